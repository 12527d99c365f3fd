// The conversation that is open: its messages, with what can be done to each.

import * as asking from "./asking.js";
import * as calls from "./calls.js";
import { $, button, element, grow, place, sign } from "./dom.js";
import { copyButton, render } from "./markdown.js";
import * as store from "./store.js";
import * as tree from "./tree.js";
import { language, words } from "./words.js";

// The element of each message, and what it shows: it is made anew only where that changed.
const shown = new Map();
let open = null;
let atEnd = true;
// Set by `connect`: what the buttons do.
let doing = {};

const round = value => value >= 100 ? Math.round(value) : Number(value.toPrecision(3));

export function connect(actions) {
  doing = actions;
  $("messages").addEventListener("scroll", () => {
    const list = $("messages");
    atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  });
}

export function toEnd() {
  atEnd = true;
  scroll();
}

function scroll() {
  if (atEnd) $("messages").scrollTop = $("messages").scrollHeight;
}

/** Says something below the messages, until the next conversation is opened. */
export function note(text, ...buttons) {
  const one = element("div", "notice", text);
  one.setAttribute("role", "status");
  one.append(...buttons);
  $("messages").append(one);
  toEnd();
}

/** Shows a conversation, its whole branch. */
export function show(conversation) {
  if (open?.id !== conversation.id) {
    shown.clear();
    $("messages").replaceChildren();
    atEnd = true;
  }
  open = conversation;
  const nodes = tree.path(open);
  const notices = [...$("messages").querySelectorAll(".notice")];
  const start = nodes.findIndex(node => node.id === open.start);
  const elements = nodes.map((node, at) => articleOf(node, at, nodes));
  if (start > 0) elements.splice(start, 0, horizon());
  place($("messages"), [...(nodes.length ? elements : [hello()]), ...notices]);
  scroll();
}

/** Shows what has come of an answer since. */
export function update(conversation, node) {
  if (open?.id !== conversation.id) return;
  const one = shown.get(node.id);
  if (!one?.element.isConnected || asking.written(conversation)?.id !== node.id) return show(conversation);
  fillAnswer(node, one.element, true);
  scroll();
}

function hello() {
  const one = element("div", "hello");
  one.append(element("h2", "", words().hello), element("p", "", words().helloNote));
  return one;
}

/** The line before which the model reads nothing any more. */
function horizon() {
  const one = element("div", "horizon");
  one.setAttribute("role", "note");
  one.append(element("span", "", words().leftOut), button(words().goOnInNew, () => doing.goOnInNew(open)));
  return one;
}

function articleOf(node, at, nodes) {
  const isActive = asking.written(open)?.id === node.id;
  const isEdited = Boolean(store.draft(`edit.${node.id}`));
  const all = tree.siblings(open, node);
  const what = JSON.stringify([
    node.content.length, node.thoughts?.length, node.error, node.end, isActive, all.indexOf(node), all.length, isEdited,
    at === nodes.length - 1, tree.isLeftOut(nodes, at), language(), asking.isWriting(open), node.rev,
    calls.stateOf(node),
  ]);
  let one = shown.get(node.id);
  // What is being edited stays as it is.
  if (one && (one.what === what || (isEdited && one.isEdited))) return one.element;
  one = { what, isEdited, element: one?.element ?? element("article", node.role) };
  shown.set(node.id, one);
  one.element.classList.toggle("apart", tree.isLeftOut(nodes, at));
  if (isEdited) edit(node, one.element);
  else if (node.role === "user") fillQuestion(node, one.element, all, nodes[at + 1]);
  else fillAnswer(node, one.element, isActive, all, at === nodes.length - 1);
  return one.element;
}

// Questions

function fillQuestion(node, one, all, next) {
  const files = element("div", "files");
  for (const file of node.files || []) files.append(fileChip(file));
  const bar = element("div", "actions");
  bar.append(...branchButtons(node, all), copyButton(() => node.content), button(words().edit, () => beginEdit(node)));
  const isUnanswered = !next && !asking.isWriting(open);
  if (isUnanswered) bar.append(button(words().again, () => doing.answer(open, node)));
  one.replaceChildren(...(node.files ? [files] : []), element("div", "text", node.content), bar);
}

/** A file of a question: its name, and its text when it is opened. */
function fileChip(file) {
  const chip = element("details", "file");
  chip.append(element("summary", "", `${file.name} · ${words().letters(file.text.length)}`));
  chip.addEventListener("toggle", () => {
    if (chip.open && chip.childElementCount === 1) chip.append(element("pre", "", file.text.slice(0, 200_000)));
  });
  return chip;
}

function beginEdit(node) {
  store.saveDraft(`edit.${node.id}`, node.content || " ");
  show(open);
  shown.get(node.id)?.element.querySelector("textarea")?.focus();
}

function edit(node, one) {
  const conversation = open;
  const area = element("textarea");
  area.value = store.draft(`edit.${node.id}`);
  area.setAttribute("aria-label", words().edit);
  const over = () => store.saveDraft(`edit.${node.id}`, "");
  const send = button(words().send, () => {
    if (!area.value.trim()) return;
    over();
    doing.ask(conversation, conversation.nodes[node.parent] ?? null, area.value, node.files);
  }, "primary");
  const bar = element("div", "actions");
  bar.append(send, button(words().cancel, () => { over(); show(conversation); }));
  one.replaceChildren(area, bar);
  area.addEventListener("input", () => { store.saveDraft(`edit.${node.id}`, area.value || " "); grow(area); });
  requestAnimationFrame(() => grow(area));
}

function branchButtons(node, all) {
  if (all.length < 2) return [];
  const at = all.indexOf(node);
  const turn = (to, text, meaning) => {
    const one = sign(text, meaning, () => doing.choose(open, all[to]));
    one.disabled = to < 0 || to >= all.length;
    return one;
  };
  const which = element("span", "note", `${at + 1}/${all.length}`);
  return [turn(at - 1, "‹", words().earlier), which, turn(at + 1, "›", words().later)];
}

// Answers

function fillAnswer(node, one, isActive, all = tree.siblings(open, node), isLast = false) {
  const parts = [];
  if (node.thoughts) parts.push(thoughtsOf(node, one, isActive));
  const text = one.querySelector(":scope > .text") ?? element("div", "text");
  render(text, node.content, isActive);
  parts.push(text);
  if (isActive) parts.push(progressOf(node));
  else {
    if (node.calls) parts.push(...calls.show(open, node));
    if (node.error) parts.push(element("div", "error", errorWords(node.error)));
    if (node.end) parts.push(element("div", "note", endWords(node)));
    parts.push(actionsOf(node, all, isLast));
  }
  place(one, parts);
}

/** What it thought, folded when it answers; whoever opens it finds it open while more comes. */
function thoughtsOf(node, one, isActive) {
  const details = one.querySelector(":scope > .thoughts") ?? element("details", "thoughts");
  if (!details.firstChild) {
    details.append(element("summary"), element("div", "text"));
    details.open = isActive && !node.content;
  }
  if (node.content && !details.dataset.answered) {
    details.open = false;
    details.dataset.answered = "yes";
  }
  const time = node.thoughtSeconds >= 1 ? words().seconds(node.thoughtSeconds) : "";
  details.firstChild.textContent = words().thinking(time);
  render(details.lastChild, node.thoughts, isActive && !node.content);
  return details;
}

function progressOf(node) {
  const box = element("div", "progress");
  const { state } = node;
  const bar = (value, total) => {
    const one = element("progress");
    one.setAttribute("aria-label", words().progress);
    if (total) Object.assign(one, { max: total, value });
    return one;
  };
  if (state?.broken) box.append(bar(), element("span", "note", words().reconnecting));
  else if (state?.loading) box.append(bar(), element("span", "note", words().modelLoads));
  else if (node.content || node.thoughts) box.append(element("span", "note", node.speed ? words().speed(node.speed) : ""));
  else if (state && !state.queued) {
    const left = state.seconds_left ? words().seconds(state.seconds_left) : "";
    box.append(bar(state.processed, state.total), element("span", "note", words().reading(state.processed, state.total, left)));
  } else box.append(bar(), element("span", "note", words().waiting(state?.queued || 0)));
  return box;
}

function actionsOf(node, all, isLast) {
  const bar = element("div", "actions");
  bar.append(...branchButtons(node, all));
  if (node.content) bar.append(copyButton(() => node.content));
  if (asking.isWriting(open)) return bar;
  if (node.error?.code === "context_length_exceeded") {
    bar.append(button(words().goOnInNew, () => doing.goOnInNew(open)));
  }
  bar.append(button(node.error ? words().tryAgain : words().again, () => doing.answer(open, open.nodes[node.parent])));
  const isCut = node.content && node.end && !["stop", "tool_calls"].includes(node.end.reason);
  if (isLast && isCut) bar.append(button(words().goOn, () => doing.goOn(open, node)));
  return bar;
}

/** What went wrong, in the user's language where the page knows it. */
export function errorWords(error) {
  // Earlier versions kept a text.
  if (typeof error === "string") return error;
  return words().errors[error.code] ?? error.message ?? words().errors.offline;
}

function endWords(node) {
  const { end } = node;
  const parts = [];
  if (words().ends[end.reason]) parts.push(words().ends[end.reason]);
  if (end.timings) {
    const t = end.timings;
    const wait = words().seconds((t.queued_ms + t.prompt_ms) / 1000);
    const drafted = t.draft_n_accepted ? words().drafted(t.draft_n_accepted, t.predicted_n, t.draft_gained_ms) : "";
    parts.push(words().finished(t.predicted_n, round(t.predicted_per_second), t.prompt_n, t.cache_n, wait) + drafted);
  }
  return parts.join(" ");
}
