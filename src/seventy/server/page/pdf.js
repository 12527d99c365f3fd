// The text of a PDF, read here in the browser by pdf.js, which is loaded when the first one comes.

import { GlobalWorkerOptions, getDocument } from "./vendor/pdf.min.js";

const MAX_PAGES = 2000;
const at = path => new URL(path, import.meta.url).href;
GlobalWorkerOptions.workerSrc = at("./vendor/pdf.worker.min.js");

/** Its text, a blank line between two pages; null where it is no PDF, wants a password or has no text. */
export async function textOf(bytes) {
  const loading = getDocument({
    data: bytes, cMapUrl: at("./vendor/cmaps/"), cMapPacked: true, isEvalSupported: false, useWasm: false,
    disableFontFace: true, useSystemFonts: false, verbosity: 0,
  });
  try {
    const document = await loading.promise;
    const pages = [];
    for (let number = 1; number <= Math.min(document.numPages, MAX_PAGES); number++) {
      const page = await document.getPage(number);
      const { items } = await page.getTextContent();
      pages.push(items.map(item => (item.str ?? "") + (item.hasEOL ? "\n" : "")).join("").trim());
      page.cleanup();
    }
    return pages.filter(Boolean).join("\n\n") || null;
  } catch {
    return null;
  } finally {
    await loading.destroy();
  }
}
