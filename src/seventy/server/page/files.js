// Files for the next question, dropped or chosen: texts, and the text of PDFs.

const MAX_BYTES = 1 << 20, MAX_PDF_BYTES = 64 << 20;

const isPdf = file => file.type === "application/pdf" || file.name.toLowerCase().endsWith(".pdf");

export const isImage = file => file.type.startsWith("image/") && file.type !== "image/svg+xml";
export const isTooLarge = file => file.size > (isPdf(file) ? MAX_PDF_BYTES : MAX_BYTES);

/** The text of a file: of a PDF, or UTF-8, or GB 18030 as older Chinese files have it; null for what is no text. */
export async function readText(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (isPdf(file)) {
    const { textOf } = await import("./pdf.js");
    return textOf(bytes);
  }
  if (bytes.includes(0)) return null;
  for (const encoding of ["utf-8", "gb18030"]) {
    try { return new TextDecoder(encoding, { fatal: true }).decode(bytes); } catch { /* The next one. */ }
  }
  return null;
}

/** The question with its files before it, fenced so that no fence in a file ends it. */
export function withFiles(text, files = []) {
  const parts = files.map(file => {
    let fence = "```";
    while (file.text.includes(fence)) fence += "`";
    return `${file.name}\n${fence}\n${file.text.replace(/\n$/, "")}\n${fence}`;
  });
  return [...parts, text].filter(Boolean).join("\n\n");
}
