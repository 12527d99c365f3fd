// A conversation is a tree of messages: editing and regenerating keep what was.
//
// {id, title, changed, leaf, start, shown, nodes: {id: node}}; a node is {id, parent, role, content, at, rev} and, where it
// has them: files [{name, text}] of a question; thoughts, thoughtSeconds, end, error, used, context, model of an answer;
// calls [{id, name, arguments, digest, result, isError, refused, note}] of an answer that calls tools;
// answer, the id by which the server knows it, and pending, the same while it is being written. `leaf` is the last
// message of the branch that is shown, `start` the first message that the model still reads; those before it were left
// out. `shown` says of a message which of those after it was shown last.

import { randomId } from "./dom.js";
import { withFiles } from "./files.js";

export function create() {
  return { id: randomId(), title: "", changed: Date.now(), leaf: null, start: null, shown: {}, nodes: {} };
}

/** The messages of the branch that is shown, the first one first. */
export function path(conversation) {
  const nodes = [];
  for (let node = conversation.nodes[conversation.leaf]; node; node = conversation.nodes[node.parent]) nodes.unshift(node);
  return nodes;
}

/** Adds a message after another one, and shows it. */
export function add(conversation, parent, role, content, more = {}) {
  const node = { id: randomId(), parent: parent?.id ?? null, role, content, at: Date.now(), rev: 1, ...more };
  conversation.nodes[node.id] = node;
  remember(conversation);
  conversation.leaf = node.id;
  return node;
}

const byAge = (a, b) => a.at - b.at || (a.id < b.id ? -1 : 1);

/** A message and what else was said in its place, the oldest first. */
export function siblings(conversation, node) {
  return Object.values(conversation.nodes).filter(one => one.parent === node.parent && one.role === node.role).sort(byAge);
}

function remember(conversation) {
  for (const node of path(conversation)) conversation.shown[node.parent ?? ""] = node.id;
}

/** Shows the branch of a message, as it was shown last. */
export function choose(conversation, node) {
  remember(conversation);
  for (let next = node; next;) {
    node = next;
    const after = Object.values(conversation.nodes).filter(one => one.parent === node.id).sort(byAge);
    next = after.find(one => one.id === conversation.shown[node.id]) ?? after.pop();
  }
  conversation.leaf = node.id;
}

const isFailed = node => node?.role === "assistant" && Boolean(node.error) && !node.content;

/** Questions without an answer, and what came instead of one, are no part of what the model reads. */
export function isLeftOut(nodes, at) {
  return isFailed(nodes[at]) || (nodes[at].role === "user" && isFailed(nodes[at + 1]));
}

/** The messages that the model reads before it answers after `last`: [{node, message}]. */
export function read(conversation, last) {
  const nodes = path({ ...conversation, leaf: last?.id ?? null });
  const kept = nodes.filter((_, at) => !isLeftOut(nodes, at));
  const start = kept.findIndex(node => node.id === conversation.start);
  return kept.slice(Math.max(0, start)).flatMap(node => messagesOf(node).map(message => ({ node, message })));
}

/** A message as the model reads it; what it called, and what came of that, are further ones. */
function messagesOf({ role, content, files, calls }) {
  if (role === "user") return [{ role, content: withFiles(content, files) }];
  if (!calls?.length) return [{ role, content }];
  const asked = calls.map(call => ({
    id: call.id, type: "function", function: { name: call.name, arguments: call.arguments || "{}" },
  }));
  const answers = calls.map(call => ({
    role: "tool", tool_call_id: call.id, content: call.result ?? "The user did not run this.",
  }));
  return [{ role, content, tool_calls: asked }, ...answers];
}

/** The later of two states of a message. Of one answer, read by two pages, it is what is finished, then what is longer. */
function later(a, b) {
  if (a.answer && a.answer === b.answer) {
    if (Boolean(a.pending) !== Boolean(b.pending)) return a.pending ? b : a;
    if (a.content.length !== b.content.length) return a.content.length > b.content.length ? a : b;
  }
  return (a.rev || 0) >= (b.rev || 0) ? a : b;
}

/** One conversation of two that grew apart: every message of both. The one that changed last says what is shown. */
export function merge(mine, theirs) {
  const newer = mine.changed >= theirs.changed ? mine : theirs;
  const nodes = { ...theirs.nodes };
  for (const node of Object.values(mine.nodes)) {
    nodes[node.id] = nodes[node.id] ? later(node, nodes[node.id]) : node;
  }
  cutCircles(nodes);
  return { ...newer, nodes };
}

/** Lets every message come from a first one: of messages that come from each other, one becomes such. */
function cutCircles(nodes) {
  const good = new Set();
  for (let node of Object.values(nodes)) {
    const seen = new Set();
    while (node && !good.has(node)) {
      seen.add(node);
      if (seen.has(nodes[node.parent])) node.parent = null;
      node = nodes[node.parent];
    }
    for (const one of seen) good.add(one);
  }
}

// What is known of a message, as the page can show it; undefined for anything else.

const only = isGood => value => isGood(value) ? value : undefined;
const isText = value => typeof value === "string";
const text = only(isText), number = only(Number.isFinite), none = () => undefined;
// They become a part of an address.
const answerId = only(value => isText(value) && /^[\w-]{16,64}$/.test(value));
const filesOf = value => value.filter(file => isText(file?.name) && isText(file.text));
const TIMINGS = ["queued_ms", "prompt_ms", "prompt_n", "cache_n", "predicted_n", "predicted_per_second"];
const timings = only(value => TIMINGS.every(name => Number.isFinite(value?.[name])));
const end = value => value ? { ...value, reason: text(value.reason), timings: timings(value.timings) } : undefined;
const error = value => text(value) ?? (value ? { code: text(value.code), message: text(value.message) } : undefined);

const flag = value => value === true ? true : undefined;
const isCall = call => [call?.id, call?.name, call?.arguments].every(isText);
const calls = value => Array.isArray(value) && value.length && value.every(isCall) ? value.map(call => ({
  id: call.id, name: call.name, arguments: call.arguments, digest: text(call.digest), result: text(call.result),
  isError: flag(call.isError), refused: flag(call.refused), note: text(call.note),
})) : undefined;

const KNOWN = {
  calls,
  content: value => text(value) ?? "", at: value => number(value) ?? 0, rev: number, from: text, base: number,
  files: value => Array.isArray(value) ? filesOf(value) : undefined,
  thoughts: text, thoughtSeconds: number, used: number, context: number, model: text, end, error,
  answer: answerId, pending: answerId,
  // Only of what is being written.
  state: none, speed: none,
};

/** A message with what is known of it in good order. */
function checked(node) {
  const one = { ...node };
  for (const [name, check] of Object.entries(KNOWN)) {
    one[name] = check(node[name]);
    if (one[name] === undefined) delete one[name];
  }
  return one;
}

const isMessage = one => ["user", "assistant"].includes(one?.role);
// Names that a node in `nodes` cannot have: no message has them for its parent.
const NO_IDS = ["null", "undefined", "__proto__"];

function checkedNodes(found) {
  const nodes = {};
  for (const node of Object.values(found || {})) {
    if (isMessage(node) && isText(node.id) && !NO_IDS.includes(node.id)) nodes[node.id] = checked(node);
  }
  for (const node of Object.values(nodes)) if (!Object.hasOwn(nodes, node.parent)) node.parent = null;
  cutCircles(nodes);
  return nodes;
}

/** A conversation as it was kept by earlier versions, a list of messages, or as it is; null for what is none. */
export function upgraded(data) {
  if (!data || typeof data.id !== "string") return null;
  const title = text(data.title) ?? "", changed = number(Number(data.changed)) ?? 0;
  if (!Array.isArray(data.messages)) {
    const nodes = checkedNodes(data.nodes), start = text(data.start) ?? null;
    const leaf = Object.hasOwn(nodes, data.leaf) ? data.leaf : Object.keys(nodes).pop() ?? null;
    return { ...create(), ...data, title, changed, start, leaf, shown: { ...data.shown }, nodes };
  }
  const conversation = { ...create(), id: data.id, title, changed };
  let last = null;
  data.messages.forEach((message, at) => {
    if (!isMessage(message)) return;
    const { content, ...more } = checked({
      content: message.content, thoughts: message.thoughts, end: message.end, error: message.error,
    });
    last = add(conversation, last, message.role, content, { ...more, id: `${data.id}.${at}`, at: changed + at });
  });
  return conversation;
}
