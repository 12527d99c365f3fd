// Conversations, kept in this browser (IndexedDB), a database for each user; settings and drafts in localStorage.
//
// All conversations are in memory, too. Other tabs are told of every change, and what they say is merged.

import { merge, path, upgraded } from "./tree.js";

const OLD = "seventy.chat.";
const listeners = new Set();
// Told of what this page saved and deleted: {saved(conversation), removed(id)}.
let keeper = null;
const channel = "BroadcastChannel" in window ? new BroadcastChannel("seventy") : null;
let all = new Map();
let database = null;
let user = null;
// Whose a conversation is: whatever still holds another user's, it is not kept among these.
const owners = new WeakMap();

// Settings and drafts

function stored(name) {
  try { return JSON.parse(localStorage.getItem(name)); } catch { return null; }
}

function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, JSON.stringify(value));
  } catch { /* Full, or a window that keeps nothing: it lives as long as the page. */ }
}

export const settings = () => stored("seventy.settings") || {};
export const saveSettings = value => keep("seventy.settings", value);
const NOBODYS = "seventy.draft.";
const draftKey = (name, id) => name ? `seventy.drafts.${encodeURIComponent(name)}/${id}` : NOBODYS + id;
/** What stands in the box of a conversation and was not sent. */
export const draft = id => stored(draftKey(user, id)) || "";
export const saveDraft = (id, text) => keep(draftKey(user, id), text || null);
/** What a user's device knows of what the server keeps. */
export const syncState = name => stored(`seventy.sync.${name}`) || { since: 0, revisions: {}, todo: {} };
export const saveSyncState = (name, value) => keep(`seventy.sync.${name}`, value);

// The database

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function opened(name) {
  const request = indexedDB.open(name ? `seventy:${name}` : "seventy", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
  return done(request);
}

const within = (db, mode) => db.transaction("conversations", mode).objectStore("conversations");

const keysOf = start => Object.keys(localStorage).filter(key => key.startsWith(start));

/** Opens a user's conversations, "" where nobody has a name; takes over those that were written before. */
export async function open(name) {
  if (name === user) return;
  const before = user === "" ? [...all.values()] : [];
  if (user === "") adoptDrafts(name);
  user = name;
  const mine = all = new Map();
  database?.close();
  database = null;
  try {
    const found = await opened(name);
    const kept = await done(within(found, "readonly").getAll());
    // Somebody else's were opened meanwhile.
    if (all !== mine) return found.close();
    database = found;
    for (const one of kept.map(upgraded)) if (one) hold(one);
  } catch { /* They live as long as the page. */ }
  if (all !== mine) return;
  for (const key of keysOf(OLD)) {
    const one = upgraded(stored(key));
    if (one) await save(one);
    localStorage.removeItem(key);
  }
  if (name && before.length) await adopt(before);
}

function hold(conversation) {
  owners.set(conversation, user);
  all.set(conversation.id, conversation);
}

/** What was written before anybody gave a key belongs to the first who does. */
async function adopt(conversations) {
  for (const one of conversations) owners.set(one, user);
  for (const one of conversations) await save(one);
  try {
    const nobodys = await opened("");
    await done(within(nobodys, "readwrite").clear());
    nobodys.close();
  } catch { /* They stay where they are, too. */ }
}

function adoptDrafts(name) {
  for (const key of keysOf(NOBODYS)) {
    keep(draftKey(name, key.slice(NOBODYS.length)), stored(key));
    localStorage.removeItem(key);
  }
}

/** All conversations, the last changed first. */
export const conversations = () => [...all.values()].sort((a, b) => b.changed - a.changed);
export const get = id => all.get(id);

export const connectKeeper = one => { keeper = one; };

/** Keeps a conversation; whether there was room. `quiet` where nobody else need know yet. */
export async function save(conversation, quiet = false, isServers = false) {
  if ((owners.get(conversation) ?? user) !== user) return false;
  const known = all.get(conversation.id);
  if (known && known !== conversation) Object.assign(conversation, merge(conversation, known));
  hold(conversation);
  if (!quiet && !isServers) keeper?.saved(conversation);
  if (!database) return false;
  try {
    await done(within(database, "readwrite").put(JSON.parse(JSON.stringify(conversation))));
  } catch {
    return false;
  }
  if (!quiet) channel?.postMessage({ user, id: conversation.id });
  return true;
}

export async function remove(id, isServers = false) {
  all.delete(id);
  if (!isServers) keeper?.removed(id);
  saveDraft(id, "");
  try { if (database) await done(within(database, "readwrite").delete(id)); } catch { /* Gone from here at least. */ }
  channel?.postMessage({ user, id });
}

/** Calls with the id of a conversation that another tab changed or deleted. */
export const onChange = listener => listeners.add(listener);

/** Takes in what somebody else says of a conversation: what is here stays the same object, and shows the same branch. */
export function takeIn(theirs) {
  const mine = all.get(theirs.id);
  if (!mine) {
    hold(theirs);
    return theirs;
  }
  const merged = merge(mine, theirs);
  const follows = leaf => path({ ...merged, leaf }).some(node => node.id === mine.leaf);
  const leaf = !mine.leaf || follows(theirs.leaf) ? theirs.leaf : mine.leaf;
  return Object.assign(mine, merged, { leaf });
}

channel?.addEventListener("message", async ({ data }) => {
  if (data.user !== user || !database) return;
  const mine = all;
  let theirs;
  try { theirs = upgraded(await done(within(database, "readonly").get(data.id))); } catch { return; }
  if (all !== mine) return;
  if (theirs) takeIn(theirs);
  else all.delete(data.id);
  for (const listener of listeners) listener(data.id);
});
