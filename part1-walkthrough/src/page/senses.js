/** What a decoder cannot know: what comes after the word. */
function unknown({ first }, word) {
  const sides = first.sides.map((side) => el("p.tokens", {}, ...side.tokens.map((token, at) =>
    el(`span.part${at === side.position ? ".joined" : at > side.position ? ".later" : ""}`, {}, piece(token.piece)))));
  const rows = first.cosines.map((cosine, at) => el("td", {}, fixed(cosine, 3)));
  find("#senses .compared").prepend(el("div.panel.unknown", {},
    el("h3", {}, "What a decoder cannot know"),
    el("p.note", {}, `Each sentence once: ${word} sees what stands before it. The pale pieces come later, and it knows nothing of them. So the two vectors stay the same, layer after layer:`),
    ...sides,
    el("div.scroll", { tabindex: 0, role: "region", "aria-label": "Cosine after each layer, scrolls sideways" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "after"), ...first.cosines.map((_, at) => el("th", { scope: "col" }, at ? `layer ${at - 1}` : "embedding")))),
      el("tbody", {}, el("tr", {}, el("th", { scope: "row" }, "cosine"), ...rows)))),
    el("p.note", {}, `Read twice, as below, the second ${word} has a whole sentence behind it.`)));
}

/** One word in two sentences: the same vector at first, two at last. Only if the program compared two. */
function sensesStep() {
  const found = trace.comparison;
  if (!found) return;
  find("#senses").hidden = false;
  const drift = found.repeated ?? found.first;
  const word = `“${found.word}”`;
  const blind = found.repeated ? ` In both sentences ${word} stands behind the same tokens, and a token sees only what came before it, so nothing could tell one from the other. Here each sentence is read twice: the second ${word} has the whole sentence behind it.` : "";
  fill("#senses .idea", `The table gives ${word} one vector, whatever the sentence. Layer by layer attention mixes in what stands before it, and one vector becomes two.${blind}`);
  const meters = el("div.two.senses", {});
  const cosine = el("div.meter.cosine", {}, el("span", {}, "cosine"), el("i"), el("span.number", {}));
  const layers = player("Layers", (at) => {
    const value = drift.cosines[at];
    cosine.style.setProperty("--v", Math.max(0, value));
    cosine.lastChild.textContent = fixed(value, 3);
    meters.replaceChildren(...drift.sides.map((side, i) => el("div.panel", {},
      el("p.tokens", {}, ...side.tokens.map((token, at) => el(`span.part${at === side.position ? ".joined" : ""}`, {}, piece(token.piece)))),
      el("h3", {}, at === 0 ? "The embedding would go on with" : `After layer ${at - 1} it would go on with`),
      ...drift.next[i][at].map((guess) => el("div.meter", { "--v": guess.probability }, piece(guess.piece), el("i"), el("span.number", {}, percent(guess.probability)))))));
  }, 1100);
  const rows = drift.heads.map(({ layer, head, shift, attention }) => el("div.mover", {},
    el("p.note", {}, el("b", {}, `Layer ${layer}, head ${head}`), ` moved it by ${fixed(shift, 1)}. It looks at:`),
    ...drift.sides.map((side, i) => el("p.tokens", {}, ...side.tokens.slice(0, side.position + 1).map((token, at) =>
      el(`span.part${shade(attention[i][at]) > 0.55 ? ".hot" : ""}`, { "--s": shade(attention[i][at]), title: `${token.piece} ${percent(attention[i][at])}` }, piece(token.piece)))))));
  find("#senses .compared").replaceChildren(
    el("div.panel", {}, el("h3", {}, `How alike the two vectors of ${word} are`), cosine, layers.node), meters,
    el("div.panel", {}, el("h3", {}, "The heads that moved it most"), el("p.note", {}, "The stronger the colour, the more of its attention goes there."), ...rows));
  if (found.repeated) unknown(found, word);
  layers.series(drift.cosines.length, -1);
}
