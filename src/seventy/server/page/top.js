// The line at the top: which model, how it does, and how much of the context the open conversation fills.

import * as api from "./api.js";
import { $ } from "./dom.js";
import * as tree from "./tree.js";
import { words } from "./words.js";

// Set by `connect`: settings(), choose(model), isWriting(), told(status, key).
let page = null;
let now = null;

const gb = bytes => (bytes / 1e9).toFixed(1);
const round = value => value >= 100 ? Math.round(value) : Number(value.toPrecision(value < 10 ? 2 : 3));

/** What the server said of itself last; null before it did. */
export const status = () => now;

/** What is known of a model beside its name: its size, and how fast it should write here. */
export function about(model) {
  const speed = model.expected_tokens_per_second;
  return [
    model.size_bytes ? `${gb(model.size_bytes)} GB` : "", speed ? words().expected(round(speed)) : "",
  ].filter(Boolean).join(", ");
}

/** The name of the one model, or of all to choose from; one that is gone is forgotten. */
function showModels() {
  const several = now.models.length > 1;
  $("model").hidden = several;
  $("models").hidden = !several;
  $("model").textContent = now.model;
  $("about-model").textContent = several ? "" : about(now.models.find(one => one.name === now.model) ?? {});
  const { model } = page.settings();
  if (model && model !== now.model) page.choose(now.model);
  const wanted = now.models.map(one => [one.name, about(one)].filter(Boolean).join(" · "));
  const shown = [...$("models").options].map(one => one.text);
  if (wanted.join("\n") !== shown.join("\n")) {
    $("models").replaceChildren(...now.models.map((one, at) => new Option(wanted[at], one.name)));
  }
  if (document.activeElement !== $("models")) $("models").value = now.model;
}

function numbers() {
  const parts = [];
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
  return parts.join(" · ");
}

export async function refresh() {
  const { key, model } = page.settings();
  try {
    const found = await api.status(key, model);
    // Another key was given meanwhile: this says who its user was.
    if (page.settings().key !== key) return;
    now = found;
    showModels();
    $("numbers").textContent = numbers();
    page.told(now, key);
  } catch (error) {
    $("numbers").textContent = error.status === 401 ? words().wantsKey : words().errors.offline;
    if (error.status === 401) page.told(null);
  }
}

/** How full the context is, by what the last answer took. */
export function showGauge(conversation) {
  const last = tree.path(conversation).filter(node => node.used).pop();
  const total = last?.context || now?.context;
  $("gauge").hidden = !(last && total);
  if ($("gauge").hidden) return;
  const share = Math.min(1, last.used / total);
  const meter = $("gauge").querySelector("meter");
  meter.value = share;
  $("gauge").querySelector("span").textContent = `${Math.round(100 * share)} %`;
  $("gauge").title = words().context(last.used, total);
  meter.setAttribute("aria-label", $("gauge").title);
}

export function connect(hooks) {
  page = hooks;
  $("models").addEventListener("change", () => { page.choose($("models").value); $("models").blur(); refresh(); });
}

/** Asks the server how it does for as long as the page is open. */
export async function watch() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise(resolve => setTimeout(resolve, page.isWriting() ? 1000 : 3000));
  }
}
