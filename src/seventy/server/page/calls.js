// Calls of tools: of servers that the machine's owner named. The user sees each call and agrees to it, unless the owner
// allows the tool; what comes back is a text for the model, and decides nothing.

import * as api from "./api.js";
import * as asking from "./asking.js";
import { button, element } from "./dom.js";
import * as store from "./store.js";
import { words } from "./words.js";

// So many answers in a row may call without the user, also what the owner allows.
const MOST_ALONE = 8;
const busy = new Set();
// What the server offered last, by name, and to which key.
let offered = new Map(), offeredTo = null;
// Set by `connect`: settings(), drawn(conversation, node).
let page = null;

export const connect = hooks => { page = hooks; };

/** What may be called now, as models are told of it; nothing where the user does not want that, or may not. */
export async function forModel() {
  const { key, tools } = page.settings();
  if (!tools) return [];
  await refresh(key);
  return [...offered.values()].map(({ name, description, parameters }) =>
    ({ type: "function", function: { name, description, parameters } }));
}

/** What the server offers: {tools, problems}. */
export async function refresh(key) {
  offeredTo = key;
  try {
    const found = await api.tools(key);
    offered = new Map(found.tools.map(tool => [tool.name, tool]));
    return found;
  } catch (error) {
    offered = new Map();
    return { tools: [], problems: { "": error.message } };
  }
}

/** What must show again when it changes. */
export const stateOf = node => node.calls?.map(call => [busy.has(call.id), call.result?.length, call.note, offered.get(call.name)?.digest]);

/** Notes how a finished answer's calls were described, and runs those that need nobody. */
export async function begin(conversation, node) {
  for (const call of node.calls) {
    const tool = offered.get(call.name);
    Object.assign(call, { digest: tool?.digest ?? "" }, tool?.changed && { note: "asks" });
  }
  await store.save(conversation);
  page.drawn(conversation, node);
  if (alone(conversation, node) > MOST_ALONE) return;
  for (const call of node.calls) {
    if (offered.get(call.name)?.asks === false) await run(conversation, node, call, false);
  }
}

function alone(conversation, node) {
  let count = 0;
  for (let one = node; one?.role === "assistant"; one = conversation.nodes[one.parent]) count++;
  return count;
}

async function run(conversation, node, call, approved) {
  if (busy.has(call.id) || call.result !== undefined) return;
  busy.add(call.id);
  delete call.note;
  page.drawn(conversation, node);
  try {
    const args = JSON.parse(call.arguments || "{}"), { key } = page.settings();
    const found = await api.callTool(key, { name: call.name, digest: call.digest, arguments: args, approved });
    Object.assign(call, { result: found.content, isError: found.is_error });
  } catch (error) {
    await failed(call, error);
  }
  busy.delete(call.id);
  await settle(conversation, node);
}

/** What the tool or its server did wrong is told to the model; all else is for the user to try again. */
async function failed(call, error) {
  if (error.code === "tool_changed" || error.code === "not_approved") {
    await refresh(page.settings().key);
    call.digest = offered.get(call.name)?.digest ?? "";
    call.note = error.code === "tool_changed" ? "changed" : "asks";
  } else if (error instanceof api.ServerError || error instanceof SyntaxError) {
    Object.assign(call, { result: error.message, isError: true });
  } else {
    call.note = "offline";
  }
}

async function settle(conversation, node) {
  node.rev = (node.rev || 0) + 1;
  conversation.changed = Date.now();
  await store.save(conversation);
  page.drawn(conversation, node);
  const isWanted = conversation.leaf === node.id && !asking.isWriting(conversation);
  if (isWanted && node.calls.every(call => call.result !== undefined)) {
    asking.answer(conversation, node);
    page.drawn(conversation, node);
  }
}

function refuse(conversation, node, call) {
  Object.assign(call, { result: "The user refused this call.", isError: true, refused: true });
  return settle(conversation, node);
}

/** The calls of an answer, with what is to be decided. */
export function show(conversation, node) {
  const { key } = page.settings(), isOpen = node.calls.some(call => call.result === undefined);
  // What a tool says of itself is the server's word, not the conversation's, which may have come from anywhere.
  if (isOpen && offeredTo !== key) refresh(key).then(() => page.drawn(conversation, node));
  return node.calls.map(call => {
    const one = element("details", "call");
    one.open = call.result === undefined;
    const state = busy.has(call.id) ? "running" : call.result === undefined ? "wants" : call.refused ? "refused" : "done";
    one.append(element("summary", "", `${call.name} · ${words().callStates[state]}`), element("pre", "", pretty(call.arguments)));
    if (call.result !== undefined) one.append(element("pre", call.isError ? "error" : "", call.result.slice(0, 32_100)));
    if (state === "wants") one.append(...question(conversation, node, call));
    return one;
  });
}

function question(conversation, node, call) {
  const about = offered.get(call.name)?.description;
  const bar = element("div", "actions");
  bar.append(
    button(words().runCall, () => run(conversation, node, call, true), "primary"),
    button(words().refuseCall, () => refuse(conversation, node, call)),
  );
  const notes = [about && words().callAbout(about), call.note && words().callNotes[call.note]].filter(Boolean);
  return [...notes.map(text => element("p", "note", text)), bar];
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
