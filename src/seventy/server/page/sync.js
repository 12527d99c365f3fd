// Conversations that the server keeps for a user, and those of this browser: made the same, where the server keeps any.
//
// Each conversation has a revision on the server. What changed there is fetched and merged; what changed here is sent
// with the revision it was merged with, and merged once more where another device was first. Deleting wins.

import * as api from "./api.js";
import * as store from "./store.js";
import { upgraded } from "./tree.js";
import { words } from "./words.js";

const EVERY_MS = 5000, SEND_AFTER_MS = 800;
// Set by `connect`: settings(), changed(id), note(text).
let page = null;
// The user whose conversations the server keeps, null where it keeps none.
let user = null;
let state = null;
let asked = 0;
// What is to be sent, and the work that runs: one request at a time.
const waiting = new Set();
let work = Promise.resolve();

export function connect(hooks) {
  page = hooks;
  store.connectKeeper({
    saved: conversation => { if (user !== null) send(conversation.id); },
    removed: id => { if (user !== null) then(() => api.forget(page.settings().key, id)); },
  });
}

function then(next) {
  const mine = user;
  work = work.then(() => (user === mine ? next() : undefined)).catch(error => {
    if (error.status === 507 || error.status === 413) page.note(words().historyFull);
  });
  return work;
}

/** What the server said of itself: whose conversations it keeps. */
export function told(status) {
  const now = status?.history_days ? status.user : null;
  if (now !== user) {
    user = now;
    waiting.clear();
    if (user === null) return;
    state = store.syncState(user);
    then(fetchChanges);
    // What was written before the server kept anything.
    then(() => { for (const one of store.conversations()) if (!(one.id in state.revisions)) send(one.id); });
  } else if (user !== null && Date.now() - asked > EVERY_MS) {
    then(fetchChanges);
  }
}

async function fetchChanges() {
  asked = Date.now();
  const { changes } = await api.history(page.settings().key, state.since);
  for (const change of changes) {
    if (change.deleted) {
      delete state.revisions[change.id];
      if (store.get(change.id)) await store.remove(change.id, true);
      page.changed(change.id);
    } else if (state.revisions[change.id] !== change.revision) {
      await fetchOne(change.id);
    }
    state.since = change.revision;
    store.saveSyncState(user, state);
  }
}

async function fetchOne(id) {
  const { revision, conversation } = await api.keptConversation(page.settings().key, id);
  const theirs = upgraded(conversation);
  if (!theirs || theirs.id !== id) return;
  await store.save(store.takeIn(theirs), false, true);
  state.revisions[id] = revision;
  page.changed(id);
}

function send(id) {
  if (waiting.has(id)) return;
  waiting.add(id);
  setTimeout(() => then(() => sendOne(id)), SEND_AFTER_MS);
}

async function sendOne(id, again = true) {
  waiting.delete(id);
  const conversation = store.get(id);
  if (!conversation || !Object.keys(conversation.nodes).length) return;
  try {
    const found = await api.keepConversation(page.settings().key, id, state.revisions[id] || 0, conversation);
    state.revisions[id] = found.revision;
    store.saveSyncState(user, state);
  } catch (error) {
    if (error.status !== 409 || !again) throw error;
    await fetchChanges();
    await sendOne(id, false);
  }
}

/** Deletes everything on the server, and so on all devices. */
export const forgetAll = () => then(async () => {
  await api.forgetAll(page.settings().key);
  await fetchChanges();
});
