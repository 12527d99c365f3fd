// Answers: asked for, read on after a reload or a break, stopped. The server writes them, whether or not a page reads.

import * as api from "./api.js";
import * as calls from "./calls.js";
import { randomId } from "./dom.js";
import * as store from "./store.js";
import * as tree from "./tree.js";

const RETRIES = 60, FIRST_RETRIES = 2;
// What is being written, by the id of its conversation: {node, id, controller}.
const running = new Map();
// Set by `connect`: settings() of the user, drawn(conversation, node), ended(conversation, node), wantsKey():
// whether there is another one now, of whoever this page belongs to by then.
let page = null;

export const connect = hooks => { page = hooks; };
export const isWriting = conversation => running.has(conversation.id);
export const isAnyWriting = () => running.size > 0;
export const written = conversation => running.get(conversation.id)?.node;

const round = value => value >= 100 ? Math.round(value) : Number(value.toPrecision(3));

/** Puts a question after a message (null: at the beginning) and has it answered. */
export function ask(conversation, parent, text, files = []) {
  if (!conversation.title) conversation.title = titleOf(text, files);
  const question = tree.add(conversation, parent, "user", text, files.length ? { files } : {});
  return answer(conversation, question);
}

function titleOf(text, files) {
  const line = text.trim().split("\n").find(Boolean) || files[0]?.name || "";
  return [...line].slice(0, 60).join("");
}

/** Has a question answered, once more where it was already. */
export function answer(conversation, question) {
  const node = tree.add(conversation, question, "assistant", "", { from: conversation.start });
  return write(conversation, node, bodyOf(conversation, question));
}

/** Lets an answer go on that was stopped or cut. */
export function goOn(conversation, node) {
  const body = bodyOf(conversation, conversation.nodes[node.parent]);
  body.messages.push({ role: "assistant", content: node.content });
  node.base = node.content.length;
  delete node.end;
  delete node.error;
  return write(conversation, node, { ...body, continue_final_message: true });
}

/** Reads on in the answers that were being written when the page was left, or that another page asked for. */
export function resume(conversation) {
  if (running.has(conversation.id)) return;
  const node = Object.values(conversation.nodes).find(one => one.pending);
  if (node) write(conversation, node, null);
}

/** Ends an answer; what was written stays. */
export async function stop(conversation) {
  const mine = running.get(conversation.id);
  if (!mine) return;
  mine.stopped = true;
  running.delete(conversation.id);
  try {
    await api.stop(mine.id, page.settings().key);
  } catch { /* It ended by itself, or nobody is there to tell. */ }
  mine.controller.abort();
  await mine.over;
}

/** Reads on in none of them: they are another user's now. The server goes on writing. */
export function leaveAll() {
  for (const mine of running.values()) {
    mine.left = true;
    mine.controller.abort();
  }
  running.clear();
}

function bodyOf(conversation, question) {
  const settings = page.settings();
  const messages = tree.read(conversation, question).map(one => one.message);
  if (settings.system?.trim()) messages.unshift({ role: "system", content: settings.system });
  const chosen = {};
  for (const name of ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"]) {
    if (settings[name] !== undefined && settings[name] !== "") chosen[name] = Number(settings[name]);
  }
  return { messages, ...chosen, ...(settings.model && { model: settings.model }) };
}

function write(conversation, node, body) {
  const mine = { node, id: node.pending || randomId(), controller: new AbortController(), stopped: false, left: false };
  running.set(conversation.id, mine);
  node.pending = node.answer = mine.id;
  delete node.error;
  mine.over = follow(conversation, mine, body);
  return mine.over;
}

async function follow(conversation, mine, body) {
  const { node } = mine;
  await save(conversation, node);
  if (mine.left) return;
  page.drawn(conversation, node);
  try {
    const tools = body ? await calls.forModel() : [];
    await readOn(conversation, mine, tools.length ? { ...body, tools } : body);
  } catch (error) {
    if (!mine.left) fail(node, mine, error);
  }
  if (mine.left) return;
  // Where the server was not reached, it is asked again when the page is opened the next time.
  if (node.error?.code !== "offline" || !node.content) delete node.pending;
  delete node.state;
  delete node.speed;
  // Calls that were cut are none.
  if (node.end?.reason !== "tool_calls") delete node.calls;
  if (running.get(conversation.id) === mine) running.delete(conversation.id);
  await save(conversation, node);
  // The server need not keep it any longer.
  if (!node.pending) api.stop(mine.id, page.settings().key).catch(() => {});
  page.ended(conversation, node);
  if (node.calls && body) await calls.begin(conversation, node);
}

const save = (conversation, node) => {
  conversation.changed = Date.now();
  node.rev = (node.rev || 0) + 1;
  return store.save(conversation);
};

/** Reads the answer to its end; a connection that breaks is made again, and gives it from its beginning. */
async function readOn(conversation, mine, body) {
  const { node } = mine;
  let tries = 0, begun = !body;
  for (;;) {
    try {
      const reader = new Reader(conversation, mine);
      // Once there is something to lose, the server is not asked to write it again.
      for await (const event of api.answer(mine.id, begun ? null : body, page.settings().key, mine.controller.signal)) {
        if (mine.left) return;
        begun ||= Boolean(event.choices?.[0]?.delta.content);
        tries = 0;
        reader.take(event);
        if (Date.now() - reader.saved > 2000) {
          reader.saved = Date.now();
          store.save(conversation, true);
        }
        page.drawn(conversation, node);
      }
      return;
    } catch (error) {
      if (mine.stopped || mine.left || error.name === "AbortError") throw error;
      if (error.status === 401 && await page.wantsKey()) {
        if (mine.left) return;
        continue;
      }
      const isLoading = error.code === "model_loading";
      if (error instanceof api.ServerError && !isLoading) throw error;
      if (!isLoading && ++tries > (begun ? RETRIES : FIRST_RETRIES)) throw error;
      node.state = { broken: !isLoading, loading: isLoading };
      page.drawn(conversation, node);
      await pause(Math.min(5000, 500 * (tries + 1)));
      if (mine.left) return;
    }
  }
}

/** For so long, or until there is a network again or somebody looks. */
function pause(milliseconds) {
  return new Promise(resolve => {
    const over = () => {
      clearTimeout(timer);
      removeEventListener("online", over);
      document.removeEventListener("visibilitychange", over);
      resolve();
    };
    const timer = setTimeout(over, milliseconds);
    addEventListener("online", over);
    document.addEventListener("visibilitychange", over);
  });
}

function fail(node, mine, error) {
  if (mine.stopped || error.name === "AbortError") node.end = { ...node.end, reason: "stopped" };
  else if (error.code === "answer_not_found" && node.content) node.end = { ...node.end, reason: "broken" };
  else if (error.code === "answer_not_found") node.error = { code: "lost" };
  else if (error instanceof api.ServerError) node.error = { code: error.code ?? String(error.status), message: error.message };
  else node.error = { code: "offline" };
}

/** Puts the events of an answer into its message. */
class Reader {
  constructor(conversation, mine) {
    Object.assign(this, { conversation, node: mine.node, saved: Date.now(), text: "", thoughts: "", tokens: 0, calls: [] });
    this.base = mine.node.content.slice(0, mine.node.base || 0);
    this.began = this.first = 0;
  }

  take(event) {
    const { node } = this;
    if (event.object === "answer.fitted") return this.fit(event);
    if (event.object === "answer.stopped") node.end = { ...node.end, reason: event.reason };
    if (event.model) node.model = event.model;
    if (event.prompt_progress) node.state = event.prompt_progress;
    if (event.timings) node.end = { ...node.end, timings: event.timings };
    if (event.usage) node.used = event.usage.total_tokens;
    const choice = event.choices?.[0];
    if (choice?.delta.content || choice?.delta.reasoning_content) this.write(choice.delta);
    for (const part of choice?.delta.tool_calls ?? []) this.call(part);
    if (choice?.finish_reason) node.end = { reason: choice.finish_reason, ...node.end };
  }

  write(delta) {
    const { node } = this, now = performance.now();
    this.first ||= now;
    this.tokens++;
    if (delta.reasoning_content) {
      this.began ||= now;
      this.thoughts += delta.reasoning_content;
      node.thoughts = this.thoughts;
    }
    if (delta.content) {
      if (this.began && !this.text) node.thoughtSeconds = Math.max(node.thoughtSeconds || 0, (now - this.began) / 1000);
      this.text += delta.content;
      node.content = this.base + this.text;
    }
    const seconds = (now - this.first) / 1000;
    if (seconds > 0.3) node.speed = round((this.tokens - 1) / seconds);
  }

  call({ index, id, function: { name, arguments: text } }) {
    const one = this.calls[index] ??= { id: id || randomId(), name: "", arguments: "" };
    one.name += name ?? "";
    one.arguments += text ?? "";
    this.node.calls = this.calls;
  }

  /** The conversation outgrew the context: from where on the model reads it now. */
  fit(event) {
    const { conversation, node } = this;
    node.context = event.context;
    if (!event.left_out) return;
    const read = tree.read({ ...conversation, start: node.from }, conversation.nodes[node.parent]);
    conversation.start = read[event.left_out]?.node.id ?? conversation.start;
  }
}
