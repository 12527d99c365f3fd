// The page: a list of conversations, the one that is open, and what is being written.

import * as api from "./api.js";
import * as files from "./files.js";
import * as library from "./library.js";
import { copyButton, render } from "./markdown.js";
import * as store from "./store.js";
import { otherLanguage, switchLanguage, translate, words } from "./words.js";

const $ = id => document.getElementById(id);
let open = store.conversations()[0] || store.create();
let settings = store.settings();
let attached = [];
// What is being written: {controller, conversation}; one answer at a time in a page.
let writing = null;
let atEnd = true;

// Elements

function element(tag, className, text) {
  const one = document.createElement(tag);
  if (className) one.className = className;
  if (text !== undefined) one.textContent = text;
  return one;
}

function button(text, action) {
  const one = element("button", "quiet", text);
  one.type = "button";
  one.addEventListener("click", action);
  return one;
}

function scroll() {
  if (atEnd) $("messages").scrollTop = $("messages").scrollHeight;
}

function note(text) {
  const one = element("div", "notice", text);
  $("messages").append(one);
  atEnd = true;
  scroll();
}

// The list

function showList() {
  const list = $("conversations");
  list.replaceChildren();
  for (const conversation of store.conversations()) {
    const row = element("div", conversation.id === open.id ? "chat open" : "chat");
    const title = conversation.title || words().untitled;
    const choose = element("button", "title", title);
    choose.addEventListener("click", () => { openConversation(conversation); closeSide(); });
    const remove = element("button", "quiet", "×");
    remove.title = words().remove;
    remove.setAttribute("aria-label", words().remove);
    remove.addEventListener("click", () => {
      if (!confirm(words().removeAsk(title))) return;
      if (writing?.conversation.id === conversation.id) stop();
      store.remove(conversation.id);
      if (open.id === conversation.id) openConversation(store.conversations()[0] || store.create());
      showList();
    });
    row.append(choose, remove);
    list.append(row);
  }
}

function openConversation(conversation) {
  // One that is being written lives in memory, and is newer than what is kept.
  open = writing?.conversation.id === conversation.id ? writing.conversation : conversation;
  atEnd = true;
  showMessages();
  showList();
  $("input").focus();
}

function keep(conversation) {
  conversation.changed = Date.now();
  try {
    if (store.save(conversation)) note(words().full);
  } catch { /* Private windows have no room at all: the conversation lives as long as the page. */ }
}

// Messages

function showMessages() {
  const list = $("messages");
  list.replaceChildren();
  if (!open.messages.length) {
    const hello = element("div", "hello");
    hello.append(element("h1", "", words().hello), element("p", "", words().helloNote));
    list.append(hello);
  }
  open.messages.forEach((message, at) => list.append(messageElement(message, at)));
  scroll();
}

function messageElement(message, at) {
  const one = element("article", message.role);
  message.element = one;
  fill(message, one, at);
  return one;
}

function fill(message, one = message.element, at = open.messages.indexOf(message)) {
  const active = writing?.message === message;
  one.replaceChildren();
  if (message.role === "user") {
    one.append(element("div", "text", message.content));
  } else {
    if (message.thoughts) {
      const details = element("details", "thoughts");
      details.open = active && !message.content;
      details.append(element("summary", "", words().thinking));
      const text = element("div", "text");
      render(text, message.thoughts);
      details.append(text);
      one.append(details);
    }
    const text = element("div", "text");
    if (message.content) render(text, message.content);
    one.append(text);
    if (active) one.append(progressElement(message));
    if (message.error) one.append(element("div", "error", message.error));
    if (message.end && !active) one.append(element("div", "note", endWords(message)));
  }
  if (!active) one.append(actions(message, at));
}

function progressElement(message) {
  const box = element("div", "progress");
  const state = message.state;
  if (message.content || message.thoughts) {
    box.append(element("span", "note", message.speed ? words().speed(message.speed) : ""));
  } else if (state && !state.queued) {
    const bar = element("progress");
    bar.max = state.total;
    bar.value = state.processed;
    const left = state.seconds_left ? words().seconds(state.seconds_left) : "";
    box.append(bar, element("span", "note", words().reading(state.processed, state.total, left)));
  } else {
    box.append(element("progress"), element("span", "note", words().waiting(state?.queued || 0)));
  }
  return box;
}

function endWords(message) {
  const { end } = message;
  const parts = [];
  if (end.reason === "stopped") parts.push(words().stopped);
  if (end.reason === "length") parts.push(words().cut);
  if (end.timings) {
    const t = end.timings;
    const wait = words().seconds((t.queued_ms + t.prompt_ms) / 1000);
    parts.push(words().finished(t.predicted_n, round(t.predicted_per_second), t.prompt_n, t.cache_n, wait));
  }
  return parts.join(" ");
}

function actions(message, at) {
  const bar = element("div", "actions");
  bar.append(copyButton(() => message.content));
  if (message.role === "user") bar.append(button(words().edit, () => edit(message, at)));
  else if (at === open.messages.length - 1) bar.append(button(words().again, () => regenerate(at)));
  return bar;
}

function edit(message, at) {
  if (writing) stop();
  const area = element("textarea");
  area.value = message.content;
  const send = element("button", "primary", words().send);
  send.addEventListener("click", () => {
    if (!area.value.trim()) return;
    open.messages.length = at;
    ask(area.value);
  });
  const bar = element("div", "actions");
  bar.append(send, button(words().cancel, () => fill(message, message.element, at)));
  message.element.replaceChildren(area, bar);
  grow(area);
  area.addEventListener("input", () => grow(area));
  area.focus();
}

function regenerate(at) {
  if (writing) stop();
  open.messages.length = at;
  answer();
}

// Asking

function ask(text) {
  if (!open.title) open.title = text.trim().split("\n").pop().slice(0, 60) || text.slice(0, 60);
  open.messages.push({ role: "user", content: text });
  answer();
}

const round = value => value >= 100 ? Math.round(value) : Number(value.toPrecision(3));

function sampling() {
  const chosen = {};
  for (const name of ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"]) {
    if (settings[name] !== undefined && settings[name] !== "") chosen[name] = Number(settings[name]);
  }
  return chosen;
}

async function answer() {
  const conversation = open;
  const message = { role: "assistant", content: "" };
  const before = conversation.messages.filter(one => !one.error || one.content)
    .map(({ role, content }) => ({ role, content }));
  if (settings.system?.trim()) before.unshift({ role: "system", content: settings.system });
  conversation.messages.push(message);
  const mine = { controller: new AbortController(), conversation, message };
  writing = mine;
  atEnd = true;
  keep(conversation);
  showList();
  showMessages();
  showState();
  let tokens = 0, first = 0, drawn = false, saved = Date.now();
  const draw = () => {
    if (drawn) return;
    drawn = true;
    requestAnimationFrame(() => {
      drawn = false;
      if (open === conversation && writing === mine) { fill(message); scroll(); }
    });
  };
  try {
    const wish = { messages: before, ...sampling(), ...(settings.model && { model: settings.model }) };
    for await (const chunk of api.chat(wish, settings.key, mine.controller.signal)) {
      if (chunk.prompt_progress) message.state = chunk.prompt_progress;
      if (chunk.timings) message.end = { ...message.end, timings: chunk.timings };
      const choice = chunk.choices[0];
      if (choice?.delta.content) message.content += choice.delta.content;
      if (choice?.delta.reasoning_content) message.thoughts = (message.thoughts || "") + choice.delta.reasoning_content;
      if (choice?.finish_reason) message.end = { reason: choice.finish_reason };
      if (choice?.delta.content || choice?.delta.reasoning_content) {
        first ||= performance.now();
        tokens++;
        const seconds = (performance.now() - first) / 1000;
        if (seconds > 0.3) message.speed = round((tokens - 1) / seconds);
      }
      if (Date.now() - saved > 2000) { keep(conversation); saved = Date.now(); }
      draw();
    }
  } catch (error) {
    if (error.name === "AbortError") message.end = { reason: "stopped" };
    else if (error.status === 401) { message.error = words().wantsKey; $("settings").showModal(); }
    else message.error = error instanceof api.ServerError ? error.message : words().offline;
  }
  if (writing === mine) writing = null;
  keep(conversation);
  if (open === conversation) { showMessages(); scroll(); }
  showState();
  showList();
}

function stop() {
  writing?.controller.abort();
  writing = null;
}

// The composer

function grow(area) {
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight + 2, innerHeight * 0.4)}px`;
}

function showState() {
  $("send").hidden = Boolean(writing);
  $("stop").hidden = !writing;
}

function showFiles() {
  $("files").replaceChildren(...attached.map((file, at) => {
    const chip = element("span", "chip", file.name);
    chip.append(button("×", () => { attached.splice(at, 1); showFiles(); }));
    return chip;
  }));
}

async function attach(list) {
  for (const file of list) {
    if (files.isTooLarge(file)) { note(words().tooLarge(file.name)); continue; }
    const text = await files.readText(file);
    if (text === null) note(words().notText(file.name));
    else attached.push({ name: file.name, text });
  }
  showFiles();
  $("input").focus();
}

function send() {
  const text = files.withFiles($("input").value.trim(), attached);
  if (!text || writing) return;
  $("input").value = "";
  attached = [];
  showFiles();
  grow($("input"));
  ask(text);
}

$("composer").addEventListener("submit", event => { event.preventDefault(); send(); });
$("input").addEventListener("input", () => grow($("input")));
$("input").addEventListener("keydown", event => {
  // Enter while choosing Chinese characters belongs to the input method.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", stop);
$("attach").addEventListener("click", () => $("picker").click());
$("picker").addEventListener("change", () => { attach([...$("picker").files]); $("picker").value = ""; });
$("messages").addEventListener("scroll", () => {
  const list = $("messages");
  atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
});

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
addEventListener("pagehide", () => { if (writing) keep(writing.conversation); });

// The side and the settings

function closeSide() {
  document.body.classList.remove("side");
  $("shade").hidden = true;
}

$("menu").addEventListener("click", () => {
  $("shade").hidden = !document.body.classList.toggle("side");
});
$("shade").addEventListener("click", closeSide);
$("new").addEventListener("click", () => { openConversation(store.create()); closeSide(); });
$("language").addEventListener("click", () => { switchLanguage(); showAll(); });
$("open-settings").addEventListener("click", () => {
  const form = $("settings").querySelector("form");
  for (const field of form.elements) if (field.name) field.value = settings[field.name] ?? (field.name === "theme" ? "auto" : "");
  closeSide();
  $("settings").showModal();
});
$("settings").addEventListener("close", () => {
  const { model } = settings;
  settings = { ...Object.fromEntries(new FormData($("settings").querySelector("form"))), ...(model && { model }) };
  store.saveSettings(settings);
  showTheme();
  refresh();
});

function showTheme() {
  document.documentElement.dataset.theme = settings.theme || "auto";
}

// The numbers at the top

const gb = bytes => (bytes / 1e9).toFixed(1);

/** The name of the one model, or of all to choose from; one that is gone is forgotten. */
function showModels(now) {
  const several = now.models.length > 1;
  $("model").hidden = several;
  $("models").hidden = !several;
  $("model").textContent = now.model;
  if (settings.model && settings.model !== now.model) choose(now.model);
  const names = now.models.map(one => one.name);
  const shown = [...$("models").options].map(one => one.value);
  if (names.join("\n") !== shown.join("\n")) {
    $("models").replaceChildren(...names.map(name => new Option(name, name)));
  }
  if (document.activeElement !== $("models")) $("models").value = now.model;
}

function choose(model) {
  settings = { ...settings, model };
  store.saveSettings(settings);
}

$("models").addEventListener("change", () => { choose($("models").value); $("models").blur(); refresh(); });
library.connect(() => settings.key, model => { choose(model); refresh(); });

async function refresh() {
  const parts = [];
  try {
    const now = await api.status(settings.key, settings.model);
    showModels(now);
    library.show(now);
    if (now.state === "absent" || now.state === "leaving") parts.push(words().absent);
    if (now.state === "loading") {
      parts.push(words().loading(words().loadingWhat[now.what] || now.what, Math.round(100 * now.progress)));
    } else if (now.state === "failed") {
      parts.push(now.error);
    } else {
      if (now.running) parts.push(words().running(now.running), words().speed(round(now.decode_tokens_per_second)));
      const waiting = (now.queued || 0) + now.waiting;
      if (waiting) parts.push(words().queue(waiting));
      parts.push(words().memory(gb(now.memory_used_bytes), gb(now.memory_total_bytes)));
    }
  } catch (error) {
    parts.push(error.status === 401 ? words().wantsKey : words().offline);
  }
  $("numbers").textContent = parts.join(" · ");
}

function showAll() {
  translate();
  $("language").textContent = otherLanguage();
  showMessages();
  showList();
  refresh();
}

async function watch() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise(resolve => setTimeout(resolve, writing ? 1000 : 3000));
  }
}

showTheme();
showAll();
showState();
watch();
