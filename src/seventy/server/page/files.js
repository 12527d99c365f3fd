// Text files for the next question, dropped or chosen.

const MAX_BYTES = 1 << 20;

/** The text of a file: UTF-8, or GB 18030 as older Chinese files have it; null for what is no text. */
export async function readText(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes.includes(0)) return null;
  for (const encoding of ["utf-8", "gb18030"]) {
    try { return new TextDecoder(encoding, { fatal: true }).decode(bytes); } catch { /* The next one. */ }
  }
  return null;
}

export const isTooLarge = file => file.size > MAX_BYTES;

/** The question with its files before it, fenced so that no fence in a file ends it. */
export function withFiles(text, files) {
  const parts = files.map(file => {
    let fence = "```";
    while (file.text.includes(fence)) fence += "`";
    return `${file.name}\n${fence}\n${file.text.replace(/\n$/, "")}\n${fence}`;
  });
  return [...parts, text].filter(Boolean).join("\n\n");
}
