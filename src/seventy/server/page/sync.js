// Conversations that the server keeps for a user, and those of this browser: made the same, where the server keeps any.
//
// Each conversation has a revision on the server. What changed there is fetched and merged; what changed here is sent
// with the revision it was merged with, and merged once more where another device was first. Deleting wins. What could
// not be sent is remembered, and sent when the server is there again.

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
// The work that runs: one request at a time.
let work = Promise.resolve();
let timer = null;

export function connect(hooks) {
  page = hooks;
  store.connectKeeper({
    saved: conversation => plan(conversation.id, "send"),
    removed: id => plan(id, "forget"),
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
    if (user === null) return;
    state = store.syncState(user);
    then(fetchChanges);
    // What was written before the server kept anything.
    then(() => { for (const one of store.conversations()) if (!(one.id in state.revisions)) plan(one.id, "send"); });
  } else if (user !== null && Date.now() - asked > EVERY_MS) {
    then(fetchChanges);
    then(carryOut);
  }
}

/** What is to be done with a conversation: "send" or "forget". */
function plan(id, what) {
  if (user === null) return;
  state.todo[id] = what;
  store.saveSyncState(user, state);
  clearTimeout(timer);
  timer = setTimeout(() => then(carryOut), SEND_AFTER_MS);
}

async function carryOut() {
  for (const [id, what] of Object.entries(state.todo)) {
    // It may be planned once more meanwhile.
    delete state.todo[id];
    try {
      if (what === "forget") await api.forget(page.settings().key, id);
      else await send(id);
    } catch (error) {
      // What the server refuses, it would refuse again.
      if (!(error instanceof api.ServerError)) state.todo[id] ??= what;
      throw error;
    } finally {
      store.saveSyncState(user, state);
    }
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

async function send(id, again = true) {
  const conversation = store.get(id);
  if (!conversation || !Object.keys(conversation.nodes).length) return;
  try {
    const found = await api.keepConversation(page.settings().key, id, state.revisions[id] || 0, conversation);
    state.revisions[id] = found.revision;
  } catch (error) {
    if (error.status !== 409 || !again) throw error;
    await fetchChanges();
    await send(id, false);
  }
}

/** Deletes everything on the server, and so on all devices. */
export const forgetAll = () => then(async () => {
  await api.forgetAll(page.settings().key);
  await fetchChanges();
});
