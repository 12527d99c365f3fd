// What a model writes, as safe HTML: Markdown, with math and highlighted code. Both libraries come when first needed.

import { button, element } from "./dom.js";
import { mathExtensions } from "./math.js";
import { Marked } from "./vendor/marked.esm.js";
import DOMPurify from "./vendor/purify.es.js";
import { words } from "./words.js";

const MAX_HIGHLIGHTED = 50_000;
const ALLOWED = {
  ALLOWED_TAGS: [
    "p", "br", "hr", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li", "a", "table", "thead",
    "tbody", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6", "sub", "sup", "input",
  ],
  ALLOWED_ATTR: ["href", "class", "start", "align", "type", "checked", "disabled"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  // Else their values would have to be addresses.
  ADD_URI_SAFE_ATTR: ["type", "start", "align"],
};
const marked = new Marked({ gfm: true, breaks: true, extensions: mathExtensions });
// The blocks of an element's text, as they were written when they were drawn.
const drawn = new WeakMap();
let katex = null, highlighter = null;

DOMPurify.addHook("afterSanitizeAttributes", node => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  }
});

/** Makes the element show the text; blocks that it shows already are left alone. A growing text's code stays plain. */
export function render(element, text, growing = false) {
  const tokens = marked.lexer(text);
  const before = drawn.get(element) || [];
  const blocks = tokens.filter(token => token.type !== "space").map(token => token.raw);
  let at = 0;
  while (at < blocks.length && at < before.length && before[at] === blocks[at] && element.children[at]) at++;
  while (element.children.length > at) element.lastChild.remove();
  const shown = tokens.filter(token => token.type !== "space");
  shown.slice(at).forEach((token, offset) => {
    const isLast = at + offset === shown.length - 1;
    element.append(blockOf(Object.assign([token], { links: tokens.links }), growing && isLast));
  });
  // The last one is drawn once more when it grows no longer.
  drawn.set(element, growing ? blocks.slice(0, -1) : blocks);
}

function blockOf(tokens, growing) {
  const block = element("div", "block");
  block.innerHTML = DOMPurify.sanitize(marked.parser(tokens), ALLOWED);
  for (const pre of block.querySelectorAll("pre")) frameCode(pre, growing);
  for (const table of block.querySelectorAll("table")) frameTable(table);
  for (const box of block.querySelectorAll("input")) markTask(box);
  for (const code of block.querySelectorAll("code.math")) showMath(code);
  return block;
}

function frameCode(pre, growing) {
  const code = pre.querySelector("code");
  const language = (code?.className.match(/language-(\S+)/) || ["", ""])[1];
  const bar = element("div", "code-bar");
  bar.append(element("span", "", language), copyButton(() => code?.textContent ?? ""));
  const frame = element("div", "code");
  pre.replaceWith(frame);
  pre.tabIndex = 0;
  frame.append(bar, pre);
  if (code && language && !growing && code.textContent.length < MAX_HIGHLIGHTED) highlight(code, language);
}

function frameTable(table) {
  const frame = element("div", "wide");
  // One can scroll it by keys, too.
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", words().table);
  table.replaceWith(frame);
  frame.append(table);
}

function markTask(box) {
  const mark = element("span", "task", box.checked ? "☑ " : "☐ ");
  if (box.type !== "checkbox") return box.remove();
  box.closest("li")?.classList.add("task-item");
  box.replaceWith(mark);
}

async function highlight(code, language) {
  highlighter ??= (await import("./vendor/highlight.min.js")).default;
  if (!highlighter.getLanguage(language)) return;
  const html = highlighter.highlight(code.textContent, { language, ignoreIllegals: true }).value;
  code.innerHTML = DOMPurify.sanitize(html, { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"] });
}

async function showMath(code) {
  if (!katex) {
    await import("./vendor/katex.min.js");
    katex = globalThis.katex;
  }
  const math = element("span", code.className);
  const options = {
    displayMode: code.classList.contains("display"), output: "mathml", strict: "ignore", trust: false, maxExpand: 500,
    maxSize: 50,
  };
  try {
    katex.render(code.textContent, math, options);
    code.replaceWith(math);
  } catch { /* Not finished, or no TeX: it stays as it was written. */ }
}

export function copyButton(text) {
  const one = button(words().copy, async () => {
    await copy(text());
    one.textContent = words().copied;
    setTimeout(() => { one.textContent = words().copy; }, 1500);
  });
  return one;
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Without https, by another machine's address, there is no clipboard but this.
  const area = element("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") || document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
