// Elements.

export const $ = id => document.getElementById(id);

export function element(tag, className, text) {
  const one = document.createElement(tag);
  if (className) one.className = className;
  if (text !== undefined) one.textContent = text;
  return one;
}

export function button(text, action, className = "quiet") {
  const one = element("button", className, text);
  one.type = "button";
  one.addEventListener("click", action);
  return one;
}

/** A button that shows a sign and says what it means. */
export function sign(text, meaning, action) {
  const one = button(text, action);
  one.title = meaning;
  one.setAttribute("aria-label", meaning);
  return one;
}

/** Makes these the children of an element, without touching those that stand where they should (focus stays). */
export function place(parent, wanted) {
  let at = parent.firstChild;
  for (const one of wanted) {
    if (one === at) at = at.nextSibling;
    else parent.insertBefore(one, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** As high as its text, up to a part of the window. */
export function grow(area) {
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight + 2, innerHeight * 0.4)}px`;
}

/** Random letters; crypto.randomUUID wants https. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(18));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

/** Hands the browser a file to keep. */
export function download(name, text, type) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
