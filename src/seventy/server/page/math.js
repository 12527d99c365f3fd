// Math in Markdown: $x$, $$x$$, \(x\) and \[x\]. What is found becomes <code class="math"> with the TeX in it.

const escaped = text => text.replace(/[&<>]/g, sign => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);

const BLOCK = /^ {0,3}(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n+|$)/;
const INLINE = [
  [/^\$\$([^$]+?)\$\$/, true],
  [/^\\\[([\s\S]+?)\\\]/, true],
  [/^\\\(([\s\S]+?)\\\)/, false],
  // No space inside the dollars and no digit after them, as Pandoc has it: "$5 and $10" are prices.
  [/^\$(?![\s$])((?:\\.|[^\\$\n])*?(?:\\.|[^\\$\s]))\$(?!\d)/, false],
];

export const mathExtensions = [
  {
    name: "mathBlock", level: "block",
    start: source => source.match(/(?:^|\n) {0,3}(?:\$\$|\\\[)/)?.index,
    tokenizer(source) {
      const found = BLOCK.exec(source);
      return found ? { type: "mathBlock", raw: found[0], tex: (found[1] ?? found[2]).trim() } : undefined;
    },
    renderer: token => `<p><code class="math display">${escaped(token.tex)}</code></p>`,
  },
  {
    name: "math", level: "inline",
    start: source => source.match(/\$|\\[([]/)?.index,
    tokenizer(source) {
      for (const [pattern, display] of INLINE) {
        const found = pattern.exec(source);
        if (found) return { type: "math", raw: found[0], tex: found[1].trim(), display };
      }
      return undefined;
    },
    renderer: token => `<code class="math${token.display ? " display" : ""}">${escaped(token.tex)}</code>`,
  },
];
