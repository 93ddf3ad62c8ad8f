/**
 * Markdown as elements. The text is a model's, so it is not trusted: there is no HTML in it, only text that looks like
 * it; links lead to the web or nowhere; pictures are links, since to fetch one would tell somebody that it was read.
 */
import { el } from "./dom.js";

/** Lists and quotes in each other. Deeper ones are text. */
const DEEPEST = 8;

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(\S[^]*)$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const CELLS = { test: (line) => line.includes("|") && /^[\s:|-]+$/.test(line) };

/** Puts a text into an element. Blocks that it has already are left alone: while a text grows, only its last one changes. */
export function show(element, text) {
  const blocks = split(text.split("\n"));
  const old = [...element.children];
  blocks.forEach((block, at) => {
    const source = block.lines.join("\n");
    if (old[at]?.source === source && old[at]?.kind === block.kind) return;
    const made = build(block, 0);
    made.source = source;
    made.kind = block.kind;
    if (old[at]) old[at].replaceWith(made);
    else element.append(made);
  });
  for (const extra of old.slice(blocks.length)) extra.remove();
}

/** Lines as blocks, each with its lines. */
function split(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(FENCE);
    const from = at++;
    const more = (goesOn) => {
      while (at < lines.length && goesOn(lines[at])) at++;
    };
    let kind = "text";
    if (line.trim() === "") continue;
    if (fence) {
      kind = "code";
      const mark = fence[1];
      more((next) => !next.trim().startsWith(mark));
      at++;
    } else if (HEADING.test(line)) kind = "heading";
    else if (RULE.test(line)) kind = "rule";
    else if (QUOTE.test(line)) {
      kind = "quote";
      more((next) => QUOTE.test(next));
    } else if (ITEM.test(line)) {
      kind = "list";
      more((next) => ITEM.test(next) || /^\s+\S/.test(next));
    } else if (line.includes("|") && CELLS.test(lines[at] ?? "")) {
      kind = "table";
      more((next) => next.includes("|"));
    } else more((next) => next.trim() !== "" && ![FENCE, HEADING, RULE, QUOTE, ITEM].some((other) => other.test(next)));
    blocks.push({ kind, lines: lines.slice(from, at) });
  }
  return blocks;
}

const builders = {
  text: ({ lines }) => el("p", {}, ...inline(lines.join("\n"))),
  rule: () => el("hr"),
  heading: ({ lines }) => {
    const [, marks, text] = lines[0].match(HEADING);
    let end = text.trimEnd().length;
    while (text[end - 1] === "#") end -= 1;
    // The page has its own first levels.
    return el(`h${Math.min(6, marks.length + 2)}`, {}, ...inline(text.slice(0, end).trimEnd()));
  },
  code: ({ lines }) => {
    const [, mark, language] = lines[0].match(FENCE);
    const closed = lines.length > 1 && lines.at(-1).trim().startsWith(mark);
    const code = lines.slice(1, closed ? -1 : undefined).join("\n");
    const copy = el("button.copy", { type: "button", onclick: () => copyText(copy, code) }, "Copy");
    return el("div.code", {}, el("div.head", {}, el("span", {}, language || "code"), copy), el("pre", { tabindex: "0" }, el("code", {}, code)));
  },
  quote: ({ lines }, depth) => el("blockquote", {}, ...inside(lines.map((line) => line.match(QUOTE)?.[1] ?? line), depth)),
  list: ({ lines }, depth) => {
    const [, indent, mark] = lines[0].match(ITEM);
    const items = [];
    for (const line of lines) {
      const item = line.match(ITEM);
      if (item && item[1].length <= indent.length) items.push([item[3]]);
      else items.at(-1).push(line.replace(/^\s{1,4}/, ""));
    }
    const ordered = /\d/.test(mark);
    const list = items.map((item) => el("li", {}, ...(item.length === 1 ? inline(item[0]) : inside(item, depth))));
    return el(ordered ? "ol" : "ul", ordered ? { start: parseInt(mark, 10) } : {}, ...list);
  },
  table: ({ lines }) => {
    const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim()));
    const row = (line, tag) => el("tr", {}, ...cells(line).map((cell) => el(tag, {}, ...cell)));
    const table = el("table", {}, el("thead", {}, row(lines[0], "th")), el("tbody", {}, ...lines.slice(2).map((line) => row(line, "td"))));
    return el("div.wide", { tabindex: "0" }, table);
  },
};

const build = (block, depth) => builders[block.kind](block, depth);

function inside(lines, depth) {
  if (depth >= DEEPEST) return [lines.join("\n")];
  const blocks = split(lines);
  // An item with one paragraph needs none.
  if (blocks[0]?.kind === "text") return [...inline(blocks[0].lines.join("\n")), ...blocks.slice(1).map((block) => build(block, depth + 1))];
  return blocks.map((block) => build(block, depth + 1));
}

/** What can stand within a line, the first that matches. None of these looks back, so each takes time in line with its text. */
const SPANS = [
  [/^(`+)([^`]|[^`][^]*?[^`])\1(?!`)/, ([, , code]) => el("code", {}, code)],
  [/^\*\*(?=\S)([^*]+)\*\*/, ([, text], depth) => el("strong", {}, ...inline(text, depth + 1))],
  [/^__(?=\S)([^_]+)__/, ([, text], depth) => el("strong", {}, ...inline(text, depth + 1))],
  [/^\*(?=[^\s*])([^*\n]+)\*/, ([, text], depth) => el("em", {}, ...inline(text, depth + 1))],
  [/^_(?=[^\s_])([^_\n]+)_(?!\w)/, ([, text], depth) => el("em", {}, ...inline(text, depth + 1))],
  [/^~~(?=\S)([^~]+)~~/, ([, text], depth) => el("s", {}, ...inline(text, depth + 1))],
  [/^!?\[([^\]\n]{1,500})\]\(([^()\s]{1,2000})\)/, ([all, text, target]) => link(target, text) ?? all],
  [/^https?:\/\/[^\s<>()"'`]{1,2000}/, ([target]) => link(target, target)],
  [/^\\([\\`*_{}[\]()#+.!~>-])/, ([, mark]) => mark],
];

/** A line as text and elements. */
function inline(text, depth = 0) {
  if (depth > DEEPEST) return [text];
  const parts = [];
  let plain = "";
  let at = 0;
  while (at < text.length) {
    const found = "`*_~[!h\\".includes(text[at]) && !(text[at] === "_" && /\w/.test(text[at - 1] ?? "")) ? span(text, at, depth) : null;
    if (found) {
      if (plain) parts.push(plain);
      plain = "";
      parts.push(found.made);
      at += found.length;
    } else plain += text[at++];
  }
  if (plain) parts.push(plain);
  return parts;
}

function span(text, at, depth) {
  // What is further away than this is no part of it: a text of many open marks would be searched again for each.
  const rest = text.slice(at, at + 4000);
  for (const [pattern, make] of SPANS) {
    const match = rest.match(pattern);
    if (match) return { made: make(match, depth), length: match[0].length };
  }
  return null;
}

/** A link to the web. Others, such as `javascript:`, are none. */
function link(target, text) {
  if (!/^(https?:\/\/|mailto:)/i.test(target)) return null;
  return el("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" }, text);
}

/** Puts a text on the clipboard, and says so on the button. */
export async function copyText(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser forbids it";
  }
  setTimeout(() => (button.textContent = before), 1500);
}
