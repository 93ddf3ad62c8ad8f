/** The residual stream: one token's vector on its way, what is added to it, and the word it is nearest to. */
function streamStep() {
  const place = find(".stream");
  const mlp = trace.budget.find(({ part }) => part === "MLP");
  const all = trace.budget.reduce((sum, { parameters }) => sum + parameters, 0);
  const share = mlp && all ? ` These matrices are ${percent(mlp.parameters / all)} of all weights.` : "";
  const turns = player("Layers of the stream", draw, 1000);
  const line = el("ol.line", {});
  const bars = el("div.added", {});
  place.replaceChildren(el("div.panel", {},
    el("h3", {}, "The line along which a token travels"),
    el("p.note", {}, `Nothing is replaced: every layer adds to the token’s vector, first what attention brings from other tokens, then what the MLP makes of this token alone. The words are those that the vector would say next, if the layer were the last one.`),
    line, turns.node, bars,
    el("h3", {}, "The MLP: each token for itself"),
    el("div.mlp", { role: "img", "aria-label": `The MLP widens ${model.width} numbers to ${model.inner} and narrows them again` },
      el("span", { "--w": model.width / model.inner }, `${count(model.width)}`), el("b", {}, "→"),
      el("span", { "--w": 1 }, `${count(model.inner)}`), el("b", {}, "→"), el("span", { "--w": model.width / model.inner }, `${count(model.width)}`)),
    el("p.note", {}, `It widens the vector from ${count(model.width)} to ${count(model.inner)} numbers, bends each of them (${model.activation}) and narrows them again. No token sees another here.${share}`)));
  let shown = -1;
  watch(() => {
    if (shown !== state.token) {
      shown = state.token;
      turns.series(trace.lens.length, -1);
    }
  });

  function draw(at) {
    const { token } = state;
    line.replaceChildren(...trace.lens.map((row, after) => el(`li${after === at ? ".on" : after > at ? ".later" : ""}`, {},
      el("small", {}, after === 0 ? "embedding" : `layer ${after - 1}`), piece(row.each[token].piece), el("small", {}, percent(row.each[token].probability)))));
    const layer = trace.layers[at - 1];
    const most = Math.max(...trace.layers.map((one) => Math.max(one.attention_norms[token], one.mlp_norms[token], one.stream_norms[token])));
    const bar = (name, value) => el("div.meter", { "--v": value / most }, el("span", {}, name), el("i"), el("span.number", {}, fixed(value, 1)));
    bars.replaceChildren(...(layer
      ? [bar("attention adds", layer.attention_norms[token]), bar("MLP adds", layer.mlp_norms[token]), bar("stream is now", layer.stream_norms[token])]
      : [el("p.note", {}, "The row of the table, before any layer.")]));
  }
}
