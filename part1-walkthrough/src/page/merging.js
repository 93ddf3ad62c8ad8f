// Byte pair encoding, done here once more: any text that is typed is cut in the browser, with the merges
// of the vocabulary. A test compares it with the tokenizers crate.

/** GPT-2's alphabet: a printable character for each byte. */
const BYTES = (() => {
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let moved = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : moved++));
})();
const BYTE_OF = new Map(BYTES.map((character, byte) => [character, byte]));

/** GPT-2's rule for words, after digits if those are cut off first. */
const WORD = /'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** A tokenizer of the trace's table of merges. */
function cutter({ merges, ids, first, alphabet, marks, digits }) {
  const lines = merges.split("\n");
  const ranks = new Map(lines.map((pair, rank) => [pair, rank]));
  const idOf = new Map(alphabet);
  lines.forEach((pair, rank) => idOf.set(pair.replace(" ", ""), ids.length ? ids[rank] : first + rank));
  const markIds = new Map(marks);
  const longest = marks.map(([text]) => text).toSorted((a, b) => b.length - a.length);
  const escaped = longest.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const mark = marks.length ? new RegExp(`(${escaped.join("|")})`, "u") : null;
  const runs = (text) => (digits === null ? [text] : text.split(digits ? /(\p{N})/u : /(\p{N}+)/u));
  const spelled = (word) => Array.from(new TextEncoder().encode(word), (byte) => BYTES[byte]);

  function word(text) {
    let pieces = spelled(text);
    const begin = pieces;
    const steps = [];
    for (;;) {
      let [best, at] = [Infinity, -1];
      for (let i = 0; i + 1 < pieces.length; i++) {
        const rank = ranks.get(`${pieces[i]} ${pieces[i + 1]}`);
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) break;
      const pair = [pieces[at], pieces[at + 1]];
      pieces = [...pieces.slice(0, at), pair.join(""), ...pieces.slice(at + 2)];
      steps.push({ rank: best, at, pair, pieces });
    }
    return { text: visible(begin.join("")), bytes: begin, steps, pieces, ids: pieces.map((piece) => idOf.get(piece)) };
  }
  /** The words of a text; a mark is a word of its own. */
  return (text) => (mark ? text.split(mark) : [text]).flatMap((part) => {
    if (markIds.has(part)) return [{ text: part, mark: true, bytes: [], steps: [], pieces: [part], ids: [markIds.get(part)] }];
    return runs(part).flatMap((run) => run.match(WORD) ?? []).map(word);
  });
}

/** What a piece in the byte alphabet stands for, made visible as in the trace. */
function visible(spelling) {
  const bytes = Uint8Array.from(spelling, (character) => BYTE_OF.get(character));
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
  } catch {
    return Array.from(bytes, (byte) => `\\x${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
  }
}

function mergingStep() {
  if (!trace.merging) return;
  const { merges, table, words } = trace.merging;
  const cut = table && cutter(table);
  const [chips, stage, says] = [el("div.chips", { role: "group", "aria-label": "Words: choose one to see its merges" }), el("div.stage", {}), el("p.told", { "aria-live": "polite" })];
  let chosen = null;
  const turns = player("Merges", draw);
  const field = el("textarea", { id: "typed", rows: 2, maxlength: 400, spellcheck: "false", oninput: () => show(cut(field.value)) });
  find("#tokenize .merging").replaceChildren(el("div.panel", {},
    el("h3", {}, "How a word becomes pieces"),
    el("p.note", {}, `Byte pair encoding: a word begins as single bytes. Then the two neighbours are joined that stand first in a list of ${count(merges)} pairs, and so on, until no pair of neighbours is in the list. The list was made before training, from the pairs that stood side by side most often; a pair’s place in it is its rank.`),
    cut ? el("label.typed", { for: "typed" }, "Type a text of your own: it is cut here, in the browser", field)
      : el("p.note", {}, "This list is too long for a page, so only the words of the prompt are shown."),
    chips, stage, turns.node, says));

  function show(found) {
    let shown = 0;
    const buttons = found.map((word) => el("button.word", { type: "button", onclick: () => choose(word, buttons) },
      ...word.pieces.map((text, i) => el("span.token", { "--hue": 20 + (53 * shown++) % 330, "data-id": word.ids?.[i] ?? null }, piece(cut && !word.mark ? visible(text) : text)))));
    found.forEach((word, i) => buttons[i].word = word);
    chips.replaceChildren(...buttons);
    const most = found.toSorted((a, b) => b.pieces.length - a.pieces.length || b.steps.length - a.steps.length)[0];
    if (most) choose(most, buttons);
    else [chosen, stage.textContent, says.textContent] = [null, "", ""];
    turns.node.hidden = !most;
  }
  function choose(word, buttons) {
    chosen = word;
    buttons.forEach((button) => button.setAttribute("aria-pressed", button.word === word));
    turns.series(word.steps.length + 1, -1);
  }
  function draw(at) {
    if (!chosen) return;
    const step = chosen.steps[at - 1];
    const pieces = step ? step.pieces : chosen.bytes;
    const name = (text) => (cut ? visible(text) : text);
    stage.replaceChildren(...(chosen.mark ? [el("span.part", {}, piece(chosen.text))]
      : pieces.map((text, i) => el(`span.part${step && i === step.at ? ".joined" : ""}`, {}, piece(name(text))))));
    says.replaceChildren(...(chosen.mark ? ["A mark: it is found before anything is cut."]
      : step ? ["Rank ", el("b", {}, count(step.rank)), " makes ", piece(name(pieces[step.at])), at === chosen.steps.length ? `: no pair of neighbours is in the list any more, ${many(pieces.length, "piece")}.` : "."]
        : [`${many(pieces.length, "byte")} to begin with${chosen.steps.length ? "." : ", and no two of them are ever joined."}`]));
  }
  if (cut) {
    field.value = trace.text;
    show(cut(trace.text));
  } else {
    show(words.map((word) => ({ ...word, pieces: word.steps.at(-1)?.pieces ?? word.bytes })));
  }
}
