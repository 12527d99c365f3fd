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
  try { message = (await response.json()).error.message; } catch { /* Not from our server. */ }
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

/** The chunks of an answer; ends early when the signal is raised, and the server then stops writing. */
export async function* chat(body, key, signal) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST", headers: headers(key), signal,
    body: JSON.stringify({
      ...body, stream: true, return_progress: true, stream_options: { include_usage: true },
    }),
  });
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const lines = held.split("\n");
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new ServerError(500, chunk.error.message);
      yield chunk;
    }
  }
}
