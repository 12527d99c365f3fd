// Dialogs: the key, settings, further devices.

import * as api from "./api.js";
import * as calls from "./calls.js";
import { $ } from "./dom.js";
import * as top from "./top.js";
import { words } from "./words.js";

// Set by `connect`: settings(), save(settings), close(), forgetAll().
let page = null;
let asking = null;

/** Asks for a key, or a code of another device's, and tries it; whether there is one now. One dialog for all who ask. */
export function askKey() {
  asking ??= new Promise(resolve => {
    const dialog = $("key-dialog"), form = dialog.querySelector("form");
    form.reset();
    $("key-error").textContent = "";
    const over = found => {
      form.removeEventListener("submit", submitted);
      dialog.removeEventListener("close", closed);
      dialog.close();
      asking = null;
      resolve(found);
    };
    const submitted = async event => {
      event.preventDefault();
      try {
        page.save({ ...page.settings(), ...await signIn(form.elements.key.value.trim()) });
        over(true);
      } catch (error) {
        $("key-error").textContent = error.code === "wrong_code" ? words().wrongCode
          : error.status === 401 ? words().wrongKey : words().errors.offline;
        form.elements.key.select();
      }
    };
    const closed = () => over(false);
    form.addEventListener("submit", submitted);
    dialog.addEventListener("close", closed);
    dialog.showModal();
  });
  return asking;
}

/** The settings that a key, or a code such as ABCD-EFGH, stands for. ServerError where it is none. */
async function signIn(given) {
  const isCode = /^[A-Z2-9]{4}-?[A-Z2-9]{4}$/i.test(given);
  try {
    await api.status(given);
    return { key: given };
  } catch (error) {
    if (!isCode || error.status !== 401) throw error;
    const { key } = await api.pair(given);
    return { key };
  }
}

/** Takes a code out of the address, #pair=ABCD-EFGH, and exchanges it for the key; null where there is none, or
 * where whoever has a key already keeps it. */
export async function pairedByAddress() {
  const code = new URLSearchParams(location.hash.slice(1)).get("pair");
  if (!code) return null;
  history.replaceState(null, "", location.pathname);
  if (page.settings().key && !confirm(words().pairAsk)) return null;
  try {
    page.save({ ...page.settings(), key: (await api.pair(code)).key });
    return true;
  } catch {
    return false;
  }
}

// Settings

function openSettings() {
  const form = $("settings").querySelector("form"), settings = page.settings();
  for (const field of form.elements) {
    if (field.type === "checkbox") field.checked = Boolean(settings[field.name]);
    else if (field.name) field.value = settings[field.name] ?? (field.name === "theme" ? "auto" : "");
  }
  const status = top.status();
  $("who").textContent = status?.user ? words().signedIn(status.user) : "";
  $("open-devices").hidden = !status?.user;
  const days = status?.history_days;
  $("history-note").hidden = $("forget-all").hidden = !days;
  if (days) $("history-note").textContent = words().historyNote(days);
  $("tools-row").hidden = !status?.tools;
  $("tools-note").textContent = "";
  if (status?.tools) showTools();
  page.close();
  $("settings").showModal();
}

/** Which tools there are, and which servers do not answer. */
async function showTools() {
  const { tools, problems } = await calls.refresh(page.settings().key);
  $("tools-note").textContent = [tools.map(tool => tool.name).join(", "), ...Object.values(problems)].filter(Boolean).join(" · ");
}

function closeSettings() {
  const form = $("settings").querySelector("form");
  page.save({ ...page.settings(), ...Object.fromEntries(new FormData(form)), tools: form.elements.tools.checked });
}

// Further devices

async function openDevices() {
  $("settings").close();
  const { user, users } = top.status();
  $("device-user").replaceChildren(...(users.length ? users : [user]).map(name => new Option(name, name)));
  $("device-user").value = user;
  $("device-user").closest("label").hidden = users.length < 2;
  $("devices").showModal();
  await showCode();
}

async function showCode() {
  const box = $("device-code");
  try {
    const found = await api.newCode(page.settings().key, $("device-user").value);
    box.querySelector("img").src = found.picture;
    box.querySelector("img").alt = words().qrCode(found.link);
    box.querySelector("output").textContent = found.code;
    const { origin, hostname } = new URL(found.link);
    const isOnlyHere = ["127.0.0.1", "localhost", "[::1]"].includes(hostname);
    box.querySelector("p").textContent = isOnlyHere ? words().onlyHere : words().codeNote(origin);
    box.hidden = false;
  } catch (error) {
    box.hidden = true;
    $("device-error").textContent = error.message;
  }
}

/** Lets the box take letters: Chromium gives it back its focus, but no caret where a dialog was closed with the mouse. */
function giveCaret() {
  const box = $("input");
  if (document.activeElement !== box) return;
  box.blur();
  box.focus();
}

export function connect(hooks) {
  page = hooks;
  for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", giveCaret);
  $("open-settings").addEventListener("click", openSettings);
  $("settings").addEventListener("close", closeSettings);
  $("open-devices").addEventListener("click", openDevices);
  $("forget-all").addEventListener("click", async () => {
    if (confirm(words().forgetAsk)) await page.forgetAll();
  });
  $("device-user").addEventListener("change", showCode);
  $("key-cancel").addEventListener("click", () => $("key-dialog").close());
}
