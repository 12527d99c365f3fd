// The models of the server: which there are, loading one, and for owners fetching another by its name.

import * as api from "./api.js";
import { $ } from "./dom.js";
import { about } from "./top.js";
import { words } from "./words.js";

// The download that runs in this page: an AbortController.
let pulling = null;

function element(tag, className, text) {
  const one = document.createElement(tag);
  one.className = className;
  one.textContent = text;
  return one;
}

/** Connects the dialog; `key()` gives the API key, `choose(name)` makes a model the one that answers. */
export function connect(key, choose) {
  $("open-library").addEventListener("click", () => $("library").showModal());
  $("library-done").addEventListener("click", () => $("library").close());
  $("library-models").addEventListener("click", event => act(event.target, key, choose));
  $("pull").addEventListener("submit", event => { event.preventDefault(); pull(key); });
  $("pull-stop").addEventListener("click", () => pulling?.abort());
}

/** Shows the models of a status, and the form where this user may fetch. */
export function show(now) {
  $("open-library").hidden = now.models.length < 2 && !now.owner;
  $("pull").hidden = !now.owner;
  if ($("library").contains(document.activeElement) && document.activeElement.dataset.model) return;
  $("library-models").replaceChildren(...now.models.map(model => row(model, now.model)));
}

function row(model, chosen) {
  const one = element("li", "", "");
  const share = model.state === "loading" ? ` ${Math.round(100 * model.progress)} %` : "";
  one.append(element("span", "name", model.name), element("span", "note", words().states[model.state] + share));
  one.append(element("span", "about", about(model)));
  if (model.error) one.title = model.error;
  for (const [action, offered] of [["load", ["absent", "failed"].includes(model.state)], ["use", model.name !== chosen]]) {
    if (!offered) continue;
    const button = element("button", "quiet", words()[action]);
    Object.assign(button.dataset, { action, model: model.name });
    one.append(button);
  }
  return one;
}

async function act(button, key, choose) {
  const { action, model } = button.dataset;
  if (!action) return;
  button.blur();
  if (action === "use") return choose(model);
  button.disabled = true;
  try {
    await api.load(model, key());
  } catch (error) {
    say(error instanceof api.ServerError ? error.message : words().errors.offline);
  }
}

function say(text, share) {
  const parts = [element("span", "note", text)];
  if (share !== undefined) {
    const bar = document.createElement("progress");
    bar.value = share;
    parts.unshift(bar);
  }
  $("pull-state").replaceChildren(...parts);
}

async function pull(key) {
  const name = $("pull").elements.name.value.trim();
  if (!name || pulling) return;
  pulling = new AbortController();
  $("pull-stop").hidden = false;
  say(words().looking);
  const speed = speedometer();
  try {
    for await (const state of api.pull(name, key(), pulling.signal)) {
      if (state.total) say(progress(state, speed(state.completed)), state.completed / state.total);
    }
    say(words().pulled(name));
  } catch (error) {
    if (error.name === "AbortError") say(words().pullStopped);
    else say(error instanceof api.ServerError ? error.message : words().errors.offline);
  }
  pulling = null;
  $("pull-stop").hidden = true;
}

/** A function of the bytes there are that gives bytes a second since the first call. */
function speedometer() {
  let began = 0, first = 0;
  return bytes => {
    if (!began) [began, first] = [performance.now(), bytes];
    const seconds = (performance.now() - began) / 1000;
    return seconds > 1 ? (bytes - first) / seconds : 0;
  };
}

function progress({ completed, total }, speed) {
  const gb = bytes => (bytes / 1e9).toFixed(2);
  const left = speed ? words().seconds((total - completed) / speed) : "";
  return words().pulling(gb(completed), gb(total), speed ? (speed / 1e6).toFixed(1) : "", left);
}
