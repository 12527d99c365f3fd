// Conversations and settings, kept in this browser. A conversation is {id, title, changed, messages}.

const CONVERSATION = "seventy.chat.";

export function settings() {
  try { return JSON.parse(localStorage.getItem("seventy.settings")) || {}; } catch { return {}; }
}

export function saveSettings(value) {
  localStorage.setItem("seventy.settings", JSON.stringify(value));
}

/** All conversations, the last changed first. */
export function conversations() {
  const all = [];
  for (let i = 0; i < localStorage.length; i++) {
    const key = localStorage.key(i);
    if (!key.startsWith(CONVERSATION)) continue;
    try { all.push(JSON.parse(localStorage.getItem(key))); } catch { /* Not one of ours. */ }
  }
  return all.sort((a, b) => b.changed - a.changed);
}

export function create() {
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2, 8);
  return { id, title: "", changed: Date.now(), messages: [] };
}

// Elements and passing states of messages are the page's own.
const kept = (name, value) => ["element", "state", "speed"].includes(name) ? undefined : value;

/** Keeps a conversation; when there is no room the oldest others go. Returns whether any had to. */
export function save(conversation) {
  let removed = false;
  for (;;) {
    try {
      localStorage.setItem(CONVERSATION + conversation.id, JSON.stringify(conversation, kept));
      return removed;
    } catch (error) {
      const oldest = conversations().filter(one => one.id !== conversation.id).pop();
      if (!oldest) throw error;
      remove(oldest.id);
      removed = true;
    }
  }
}

export function remove(id) {
  localStorage.removeItem(CONVERSATION + id);
}
