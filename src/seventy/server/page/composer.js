// The box to write in, and files for the next question. What stands in it survives a reload, for each conversation.

import * as api from "./api.js";
import { $, element, grow, sign } from "./dom.js";
import * as files from "./files.js";
import * as store from "./store.js";
import { words } from "./words.js";

// Shorter texts are no question of the context.
const COUNTED_LETTERS = 1500;
let conversation = null;
let attached = [];
let counting = 0;
// Set by `connect`: send(text, files), stop(), note(text), room() -> {key, model, tokens} of the context, or null.
let page = null;

/** Drafts of conversations that are not kept yet are one. */
const place = () => Object.keys(conversation.nodes).length ? conversation.id : "new";

export function open(one) {
  conversation = one;
  const draft = store.draft(place()) || {};
  $("input").value = draft.text || "";
  attached = draft.files || [];
  showFiles();
  grow($("input"));
  count();
}

/** Puts a text and files into the box, to be sent again. */
export function fill(text, list = []) {
  $("input").value = text;
  attached = [...list];
  showFiles();
  keep();
  grow($("input"));
  $("input").focus();
}

function keep() {
  const text = $("input").value;
  store.saveDraft(place(), text || attached.length ? { text, files: attached } : null);
}

function showFiles() {
  $("files").replaceChildren(...attached.map((file, at) => {
    const chip = element("span", "chip", `${file.name} · ${words().letters(file.text.length)}`);
    chip.append(sign("×", words().removeFile(file.name), () => { attached.splice(at, 1); showFiles(); keep(); count(); }));
    return chip;
  }));
}

export async function attach(list) {
  for (const file of list) {
    if (files.isImage(file)) { page.note(words().noImages(file.name)); continue; }
    if (files.isTooLarge(file)) { page.note(words().tooLarge(file.name)); continue; }
    const reading = element("span", "chip", words().readingFile(file.name));
    $("files").append(reading);
    const text = await files.readText(file);
    reading.remove();
    if (text === null) page.note(words().notText(file.name));
    else attached.push({ name: file.name, text });
    showFiles();
  }
  keep();
  count();
  $("input").focus();
}

function send() {
  const text = $("input").value.trim();
  if ((!text && !attached.length) || $("send").hidden) return;
  const sent = attached;
  store.saveDraft(place(), null);
  $("input").value = "";
  attached = [];
  showFiles();
  grow($("input"));
  $("too-long").hidden = true;
  page.send(text, sent);
}

/** Warns of a text that is longer than the context, before it is sent. */
async function count() {
  const mine = ++counting;
  const whole = files.withFiles($("input").value, attached);
  const room = page.room();
  if (whole.length < COUNTED_LETTERS || !room) { $("too-long").hidden = true; return; }
  await new Promise(resolve => setTimeout(resolve, 400));
  if (mine !== counting) return;
  let tokens;
  try { tokens = await api.countTokens(whole, room.key, room.model); } catch { return; }
  if (mine !== counting) return;
  $("too-long").hidden = tokens < room.tokens;
  $("too-long").textContent = words().tooLong(tokens, room.tokens);
}

export function connect(actions) {
  page = actions;
  $("composer").addEventListener("submit", event => { event.preventDefault(); send(); });
  $("input").addEventListener("input", () => { grow($("input")); keep(); count(); });
  $("input").addEventListener("keydown", event => {
    // Enter while choosing Chinese characters belongs to the input method.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    send();
  });
  $("stop").addEventListener("click", page.stop);
  $("attach").addEventListener("click", () => $("picker").click());
  $("picker").addEventListener("change", () => { attach([...$("picker").files]); $("picker").value = ""; });
  $("input").addEventListener("paste", event => {
    const list = [...(event.clipboardData?.files || [])];
    if (!list.length) return;
    event.preventDefault();
    attach(list);
  });
  listenToDrops();
}

function listenToDrops() {
  let over = 0;
  addEventListener("dragenter", event => {
    if (event.dataTransfer?.types.includes("Files")) { over++; $("drop").hidden = false; }
  });
  addEventListener("dragleave", () => { over = Math.max(0, over - 1); $("drop").hidden = !over; });
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    over = 0;
    $("drop").hidden = true;
    if (event.dataTransfer?.files.length) attach([...event.dataTransfer.files]);
  });
}
