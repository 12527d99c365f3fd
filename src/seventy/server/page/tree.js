// A conversation is a tree of messages: editing and regenerating keep what was.
//
// {id, title, changed, leaf, start, shown, nodes: {id: node}}; a node is {id, parent, role, content, at, rev} and, where it
// has them: files [{name, text}] of a question; thoughts, thoughtSeconds, end, error, used, context, model of an answer;
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
  return kept.slice(Math.max(0, start)).map(node => ({
    node,
    message: { role: node.role, content: node.role === "user" ? withFiles(node.content, node.files) : node.content },
  }));
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
  return { ...newer, nodes };
}

/** A conversation as it was kept by earlier versions, a list of messages, or as it is; null for what is none. */
export function upgraded(data) {
  if (!data || typeof data.id !== "string") return null;
  const plain = value => typeof value === "string" ? value : "";
  if (!Array.isArray(data.messages)) {
    const nodes = {};
    for (const node of Object.values(data.nodes || {})) {
      if (!["user", "assistant"].includes(node?.role) || typeof node.id !== "string") continue;
      nodes[node.id] = { ...node, content: plain(node.content) };
    }
    const leaf = nodes[data.leaf] ? data.leaf : Object.keys(nodes).pop() ?? null;
    const changed = Number(data.changed) || 0;
    return { ...create(), ...data, title: plain(data.title), changed, leaf, shown: { ...data.shown }, nodes };
  }
  const conversation = { ...create(), id: data.id, title: plain(data.title), changed: Number(data.changed) || 0 };
  let last = null;
  data.messages.forEach((message, at) => {
    if (!["user", "assistant"].includes(message?.role)) return;
    const { role, content, thoughts, end, error } = message;
    last = add(conversation, last, role, plain(content), {
      id: `${data.id}.${at}`, at: conversation.changed + at,
      ...(thoughts && { thoughts }), ...(end && { end }), ...(error && { error }),
    });
  });
  return conversation;
}
