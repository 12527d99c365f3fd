// The server: its status, answers as they come, devices.

export class ServerError extends Error {
  constructor(status, message, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

function headers(key) {
  return key ? { "Content-Type": "application/json", Authorization: `Bearer ${key}` }
             : { "Content-Type": "application/json" };
}

async function failure(response) {
  let message = `${response.status} ${response.statusText}`, code = null;
  try {
    const { error } = await response.json();
    // Ollama's addresses answer a text.
    message = error.message ?? error;
    code = error.code ?? null;
  } catch { /* Not from our server. */ }
  return new ServerError(response.status, message, code);
}

async function asked(path, key, options = {}) {
  const { body, ...more } = options;
  const response = await fetch(path, {
    ...more, headers: { ...headers(key), ...more.headers }, ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw await failure(response);
  return response;
}

const json = async (...given) => (await asked(...given)).json();

/** How a model and the server are doing; of the default model where none is named, or one that is gone. */
export async function status(key, model) {
  try {
    return await json(`/status${model ? `?model=${encodeURIComponent(model)}` : ""}`, key);
  } catch (error) {
    if (error.status === 404 && model) return status(key);
    throw error;
  }
}

/** How many tokens a text has. */
export async function countTokens(text, key, model) {
  const query = model ? `?model=${encodeURIComponent(model)}` : "";
  return (await json(`/tokenize${query}`, key, { method: "POST", body: { content: text } })).count;
}

/** The lines of an answer as they come. */
export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const whole = held.split("\n");
    held = whole.pop();
    yield* whole;
  }
}

/**
 * The events of an answer from its beginning: begun with a body, read on
 * without. The server goes on writing when this is left. Raises TypeError where the connection breaks.
 */
export async function* answer(id, body, key, signal) {
  const options = body ? {
    method: "POST", body: { ...body, stream: true, return_progress: true, stream_options: { include_usage: true } },
  } : {};
  const response = await asked(`/answers/${encodeURIComponent(id)}`, key, { ...options, signal });
  for await (const line of lines(response)) {
    if (line === "data: [DONE]") return;
    if (!line.startsWith("data: ")) continue;
    const event = JSON.parse(line.slice(6));
    if (event.error) throw new ServerError(event.status ?? 500, event.error.message, event.error.code);
    yield event;
  }
  throw new TypeError("the connection broke");
}

export const stop = (id, key) => asked(`/answers/${encodeURIComponent(id)}`, key, { method: "DELETE" });

/** Exchanges a code of another device's for a key: {user, key}. */
export const pair = code => json("/pair", null, { method: "POST", body: { code } });

/** A code for a further device, of another user where an owner asks: {code, link, picture, seconds, user}. */
export const newCode = (key, user) => json("/pair/codes", key, { method: "POST", body: user ? { user } : {} });

/** Loads a model; returns when it is there. */
export const load = (model, key) => asked("/api/generate", key, { method: "POST", body: { model, stream: false } });

/** How a download goes: {status, total, completed}; raising the signal stops it, and what has come stays. */
export async function* pull(model, key, signal) {
  const response = await asked("/api/pull", key, { method: "POST", body: { model, stream: true }, signal });
  for await (const line of lines(response)) {
    const state = JSON.parse(line);
    if (state.error) throw new ServerError(400, state.error);
    yield state;
  }
}

// Tools of servers that the machine's owner named.

export const tools = key => json("/tools", key);
/** What a tool answers: {content, is_error}; ServerError 409 where it is described otherwise by now. */
export const callTool = (key, call) => json("/tools/call", key, { method: "POST", body: call });

// What this user has on the server, where it keeps conversations.

export const history = (key, since) => json(`/history?since=${since}`, key);
export const keptConversation = (key, id) => json(`/history/${encodeURIComponent(id)}`, key);
export const forget = (key, id) => asked(`/history/${encodeURIComponent(id)}`, key, { method: "DELETE" });
export const forgetAll = key => asked("/history", key, { method: "DELETE" });
/** Keeps a conversation that was read at a revision: {revision}; ServerError 409 where it has changed since. */
export const keepConversation = (key, id, revision, body) =>
  json(`/history/${encodeURIComponent(id)}`, key, { method: "PUT", body: { revision, conversation: body } });
