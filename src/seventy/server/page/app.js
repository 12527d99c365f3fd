// The page: a list of conversations, the one that is open, and what is being written.

import * as asking from "./asking.js";
import * as calls from "./calls.js";
import * as composer from "./composer.js";
import * as dialogs from "./dialogs.js";
import { $ } from "./dom.js";
import * as library from "./library.js";
import * as side from "./side.js";
import * as store from "./store.js";
import * as sync from "./sync.js";
import * as top from "./top.js";
import * as tree from "./tree.js";
import * as view from "./view.js";
import { otherLanguage, switchLanguage, translate, words } from "./words.js";

let settings = store.settings();
let open = tree.create();

function saveSettings(value) {
  settings = value;
  store.saveSettings(settings);
  showTheme();
  top.refresh();
}

function showTheme() {
  document.documentElement.dataset.theme = settings.theme || "auto";
}

// The open conversation

function openConversation(conversation) {
  open = conversation;
  view.show(open);
  view.toEnd();
  side.show();
  composer.open(open);
  showState();
  $("input").focus();
}

function showState() {
  const writing = asking.isWriting(open);
  $("send").hidden = writing;
  $("stop").hidden = !writing;
  $("export-one").hidden = !tree.path(open).length;
  top.showGauge(open);
}

function showOpen() {
  view.show(open);
  side.show();
  showState();
}

/** After the messages that the model may still read: a question that failed has no part in what follows. */
function lastGood(conversation) {
  const nodes = tree.path(conversation);
  return nodes.filter((_, at) => !tree.isLeftOut(nodes, at)).pop() ?? null;
}

async function ask(conversation, parent, text, files) {
  await asking.stop(conversation);
  asking.ask(conversation, parent, text, files);
  view.toEnd();
  showOpen();
}

async function answer(conversation, question) {
  await asking.stop(conversation);
  asking.answer(conversation, question);
  view.toEnd();
  showOpen();
}

function choose(conversation, node) {
  tree.choose(conversation, node);
  conversation.changed = Date.now();
  store.save(conversation);
  showOpen();
}

/** A new conversation that begins with the last exchange; a question that failed stands in the box again. */
function goOnInNew(conversation) {
  const nodes = tree.path(conversation), next = tree.create();
  const failed = nodes.filter((node, at) => node.role === "user" && tree.isLeftOut(nodes, at)).pop();
  const good = nodes.filter((_, at) => !tree.isLeftOut(nodes, at)).slice(-2);
  if (good[0]?.role === "user" && !failed) {
    let last = null;
    for (const { role, content, files } of good) last = tree.add(next, last, role, content, files ? { files } : {});
    next.title = conversation.title;
    store.save(next);
  }
  openConversation(next);
  if (failed) composer.fill(failed.content, failed.files);
}

asking.connect({
  settings: () => settings,
  drawn: view.update,
  ended: (conversation, node) => {
    if (open.id === conversation.id) showOpen();
    side.show();
    $("announce").textContent = node.content ? words().answered : "";
  },
  // Whose it is must be known before anything is asked with it.
  wantsKey: async () => await dialogs.askKey() && (await top.refresh(), true),
});

calls.connect({ settings: () => settings, drawn: conversation => { if (open.id === conversation.id) showOpen(); } });

view.connect({
  ask, answer, choose, goOnInNew,
  goOn: (conversation, node) => { asking.goOn(conversation, node); showOpen(); },
});

composer.connect({
  send: (text, files) => ask(open, lastGood(open), text, files),
  stop: () => asking.stop(open),
  note: view.note,
  room: () => {
    const status = top.status();
    return status?.context ? { key: settings.key, model: settings.model, tokens: status.context } : null;
  },
});

side.connect({
  isOpen: conversation => conversation.id === open.id,
  open: openConversation,
  create: () => openConversation(tree.create()),
  removed: id => { if (open.id === id) openConversation(store.conversations()[0] ?? tree.create()); },
  note: view.note,
});

dialogs.connect({ settings: () => settings, save: saveSettings, close: side.close, forgetAll: sync.forgetAll });

function chooseModel(model) {
  settings = { ...settings, model };
  store.saveSettings(settings);
}

library.connect(() => settings.key, model => { chooseModel(model); top.refresh(); });

top.connect({
  settings: () => settings,
  choose: chooseModel,
  isWriting: asking.isAnyWriting,
  told,
});

// The work of showing a user's conversations; the server's are fetched after it.
let begun = Promise.resolve();

/** Whose conversations are shown follows from the key; another user's are kept apart. */
async function told(status, key) {
  if (status) library.show(status);
  const user = status?.user ?? "";
  if (status && user !== (settings.user ?? "")) {
    const isAnothers = Boolean(settings.user);
    sync.leave();
    if (isAnothers) asking.leaveAll();
    settings = { ...settings, user };
    store.saveSettings(settings);
    begun = begin(isAnothers);
  }
  await begun;
  // There may be another one by now.
  if (status && user !== (settings.user ?? "")) return;
  sync.told(status, key);
  top.showGauge(open);
}

/** Shows the user's conversations; what is open stays open, unless it `isAnothers`. */
async function begin(isAnothers = false) {
  const user = settings.user ?? "", opened = store.open(user);
  if (isAnothers) openConversation(tree.create());
  const before = open;
  await opened;
  if (user !== (settings.user ?? "")) return;
  const again = store.get(before.id);
  openConversation(again ?? (asking.isWriting(before) ? before : store.conversations()[0] ?? tree.create()));
  for (const conversation of store.conversations()) asking.resume(conversation);
  showOpen();
}

function changedElsewhere(id) {
  const conversation = store.get(id);
  if (conversation) asking.resume(conversation);
  if (open.id === id) {
    if (conversation) { open = conversation; showOpen(); }
    else openConversation(store.conversations()[0] ?? tree.create());
  }
  side.show();
}

store.onChange(changedElsewhere);
sync.connect({ changed: changedElsewhere, note: view.note });

async function pair() {
  if (await dialogs.pairedByAddress() === false) view.note(words().wrongCode);
}

function showAll() {
  translate();
  $("language").textContent = otherLanguage();
  showOpen();
  composer.open(open);
  top.refresh();
}

$("language").addEventListener("click", () => { switchLanguage(); showAll(); });
$("export-one").addEventListener("click", () => side.exportMarkdown(open));

showTheme();
translate();
$("language").textContent = otherLanguage();
begun = begin();
await begun;
await pair();
addEventListener("hashchange", pair);
top.watch();
