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
// The server said what is wrong with a request, and would say the same again; anything else may be over by then.
const FINAL = [400, 404, 409, 413, 507];
// Set by `connect`: changed(id), note(text).
let page = null;
// Whose conversations the server keeps: {name, key, state}; null where it keeps none.
let account = null;
// What is known of each user's, for as long as the page lives: work that was left may still add to it.
const states = new Map();
let asked = 0;
// The work that runs: one request at a time.
let work = Promise.resolve();
let timer = null;

class Left extends Error {}

/** Ends work that was begun for another user: what the server answered is not this one's. */
function check(mine) {
  if (account !== mine) throw new Left();
}

export function connect(hooks) {
  page = hooks;
  store.connectKeeper({
    saved: conversation => plan(conversation.id, "send"),
    removed: id => plan(id, "forget"),
  });
}

function then(next) {
  const mine = account;
  work = work.then(() => (mine && account === mine ? next(mine) : undefined)).catch(error => {
    if (error.status === 507 || error.status === 413) page.note(words().historyFull);
  });
  return work;
}

/** Keeps nothing for anybody until the next `told`; before another user's conversations are opened. */
export function leave() {
  clearTimeout(timer);
  account = null;
}

/** What the server said of itself to whoever has this key: whose conversations it keeps. */
export function told(status, key) {
  const name = status?.history_days ? status.user : null;
  if (name === null) return leave();
  if (account?.name === name) {
    account.key = key;
    if (Date.now() - asked <= EVERY_MS) return;
    then(fetchChanges);
    then(carryOut);
    return;
  }
  leave();
  if (!states.has(name)) states.set(name, store.syncState(name));
  account = { name, key, state: states.get(name) };
  then(fetchChanges);
  // What was written before the server kept anything.
  then(({ state }) => {
    for (const { id } of store.conversations()) if (!(id in state.revisions)) plan(id, "send");
  });
}

const keepState = ({ name, state }) => store.saveSyncState(name, state);

/** What is to be done with a conversation: "send" or "forget". */
function plan(id, what) {
  if (!account) return;
  account.state.todo[id] = what;
  keepState(account);
  clearTimeout(timer);
  timer = setTimeout(() => then(carryOut), SEND_AFTER_MS);
}

async function carryOut(mine) {
  const { todo } = mine.state;
  for (const [id, what] of Object.entries(todo)) {
    check(mine);
    // It may be planned once more meanwhile.
    delete todo[id];
    try {
      if (what === "forget") await api.forget(mine.key, id);
      else await send(mine, id);
    } catch (error) {
      if (!FINAL.includes(error.status)) todo[id] ??= what;
      throw error;
    } finally {
      keepState(mine);
    }
  }
}

async function fetchChanges(mine) {
  asked = Date.now();
  const { state } = mine;
  const { changes } = await api.history(mine.key, state.since);
  for (const change of changes) {
    check(mine);
    if (change.deleted) {
      delete state.revisions[change.id];
      if (store.get(change.id)) await store.remove(change.id, true);
      page.changed(change.id);
    } else if (state.revisions[change.id] !== change.revision) {
      await fetchOne(mine, change.id);
    }
    state.since = change.revision;
    keepState(mine);
  }
}

async function fetchOne(mine, id) {
  const { revision, conversation } = await api.keptConversation(mine.key, id);
  check(mine);
  const theirs = upgraded(conversation);
  if (!theirs || theirs.id !== id) return;
  await store.save(store.takeIn(theirs), false, true);
  mine.state.revisions[id] = revision;
  page.changed(id);
}

async function send(mine, id, again = true) {
  const conversation = store.get(id), { revisions } = mine.state;
  if (!conversation || !Object.keys(conversation.nodes).length) return;
  try {
    revisions[id] = (await api.keepConversation(mine.key, id, revisions[id] || 0, conversation)).revision;
  } catch (error) {
    if (error.status !== 409 || !again) throw error;
    await fetchChanges(mine);
    check(mine);
    await send(mine, id, false);
  }
}

/** Deletes everything on the server, and so on all devices. */
export const forgetAll = () => then(async mine => {
  await api.forgetAll(mine.key);
  await fetchChanges(mine);
});
