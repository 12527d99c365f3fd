// The list of conversations: open, search, delete, export and import.

import { $, download, element, randomId, sign } from "./dom.js";
import { withFiles } from "./files.js";
import * as store from "./store.js";
import * as tree from "./tree.js";
import { words } from "./words.js";

// Set by `connect`: isOpen(conversation), open(conversation), create(), removed(id), note(text).
let page = null;
let shownKey = "";

export function close() {
  document.body.classList.remove("side");
  $("shade").hidden = true;
}

/** All texts of a conversation hold every word, in any order. */
function matches(conversation, wanted) {
  if (!wanted.length) return true;
  const texts = [conversation.title, ...Object.values(conversation.nodes).map(node => withFiles(node.content, node.files))];
  const all = texts.join("\n").toLowerCase();
  return wanted.every(word => all.includes(word));
}

export function show() {
  const wanted = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = store.conversations().filter(one => matches(one, wanted));
  const key = JSON.stringify([found.map(one => [one.id, one.title, page.isOpen(one)]), words().remove, wanted]);
  if (key === shownKey) return;
  shownKey = key;
  $("conversations").replaceChildren(...found.map(row));
  if (wanted.length && !found.length) $("conversations").append(element("p", "note", words().notFound));
}

function row(conversation) {
  const one = element("div", page.isOpen(conversation) ? "chat open" : "chat");
  const title = conversation.title || words().untitled;
  const choose = element("button", "title", title);
  if (page.isOpen(conversation)) choose.setAttribute("aria-current", "true");
  choose.addEventListener("click", () => { page.open(conversation); close(); });
  const remove = sign("×", `${words().remove}: ${title}`, () => {
    if (!confirm(words().removeAsk(title))) return;
    store.remove(conversation.id);
    page.removed(conversation.id);
    show();
  });
  one.append(choose, remove);
  return one;
}

// Export and import

const fileName = title => (title || "seventy").replace(/[\\/:*?"<>|\s]+/g, " ").trim().slice(0, 60);

/** A conversation as it is shown, for people. */
export function asMarkdown(conversation) {
  const parts = [`# ${conversation.title || words().untitled}`];
  for (const node of tree.path(conversation)) {
    const who = node.role === "user" ? words().you : words().model;
    parts.push(`## ${who}`, node.role === "user" ? withFiles(node.content, node.files) : node.content);
  }
  return `${parts.join("\n\n")}\n`;
}

export function exportMarkdown(conversation) {
  download(`${fileName(conversation.title)}.md`, asMarkdown(conversation), "text/markdown");
}

export function exportAll() {
  const data = { format: "seventy.conversations", version: 1, conversations: store.conversations() };
  download(`seventy-${new Date().toISOString().slice(0, 10)}.json`, JSON.stringify(data), "application/json");
}

/** Takes in conversations of a file; those that are here are merged. */
async function importFile(file) {
  let found = [];
  try {
    const data = JSON.parse(await file.text());
    const list = Array.isArray(data) ? data : data.conversations ?? [data];
    found = list.map(tree.upgraded).filter(one => one && Object.keys(one.nodes).length);
  } catch { /* No JSON: nothing was found. */ }
  for (const one of found) {
    // One that is not here may have been deleted: it comes back as another.
    if (!store.get(one.id)) one.id = randomId();
    await store.save(store.takeIn(one));
  }
  page.note(found.length ? words().imported(found.length) : words().notImported(file.name));
  show();
}

export function connect(actions) {
  page = actions;
  $("menu").addEventListener("click", () => {
    $("shade").hidden = !document.body.classList.toggle("side");
  });
  $("shade").addEventListener("click", close);
  $("new").addEventListener("click", () => { page.create(); close(); });
  $("search").addEventListener("input", show);
  $("export").addEventListener("click", exportAll);
  $("import").addEventListener("click", () => $("import-picker").click());
  $("import-picker").addEventListener("change", async () => {
    for (const file of $("import-picker").files) await importFile(file);
    $("import-picker").value = "";
  });
}
