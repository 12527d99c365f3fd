// The server: its status, and answers as they come.

function headers(key) {
  return key ? { "Content-Type": "application/json", Authorization: `Bearer ${key}` }
             : { "Content-Type": "application/json" };
}

export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function failure(response) {
  let message = `${response.status} ${response.statusText}`;
  try {
    const { error } = await response.json();
    // Ollama's addresses answer a text.
    message = error.message ?? error;
  } catch { /* Not from our server. */ }
  return new ServerError(response.status, message);
}

/** How a model and the server are doing; of the default model where none is named, or one that is gone. */
export async function status(key, model) {
  const query = model ? `?model=${encodeURIComponent(model)}` : "";
  const response = await fetch(`/status${query}`, { headers: headers(key) });
  if (response.status === 404 && model) return status(key);
  if (!response.ok) throw await failure(response);
  return response.json();
}

/** The lines of an answer as they come. */
async function* lines(response) {
  if (!response.ok) throw await failure(response);
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

/** The chunks of an answer; ends early when the signal is raised, and the server then stops writing. */
export async function* chat(body, key, signal) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST", headers: headers(key), signal,
    body: JSON.stringify({
      ...body, stream: true, return_progress: true, stream_options: { include_usage: true },
    }),
  });
  for await (const line of lines(response)) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const chunk = JSON.parse(line.slice(6));
    if (chunk.error) throw new ServerError(500, chunk.error.message);
    yield chunk;
  }
}

/** Loads a model; returns when it is there. */
export async function load(model, key) {
  const body = JSON.stringify({ model, stream: false });
  const response = await fetch("/api/generate", { method: "POST", headers: headers(key), body });
  if (!response.ok) throw await failure(response);
}

/** How a download goes: {status, total, completed}; raising the signal stops it, and what has come stays. */
export async function* pull(model, key, signal) {
  const body = JSON.stringify({ model, stream: true });
  const response = await fetch("/api/pull", { method: "POST", headers: headers(key), body, signal });
  for await (const line of lines(response)) {
    const state = JSON.parse(line);
    if (state.error) throw new ServerError(400, state.error);
    yield state;
  }
}
