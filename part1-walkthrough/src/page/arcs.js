/** Attention as arcs: from the token that is followed back to those it looks at, in the chosen head. */
function arcs() {
  const [step, top, base] = [92, 14, 190];
  const x = (position) => step * (position + 0.5);
  const picture = svg("svg", { role: "img", viewBox: `0 0 ${step * L} ${base + 34}` });
  const lines = svg("g", { fill: "none", "stroke-linecap": "round" });
  const words = tokens.map((token, position) => {
    const word = svg("text", { x: x(position), y: base + 24, "text-anchor": "middle" }, token.piece.length > 10 ? `${token.piece.slice(0, 9)}…` : token.piece);
    word.addEventListener("click", () => set({ token: position }));
    return word;
  });
  picture.append(lines, ...words);
  picture.style.minWidth = `${64 * L}px`;
  const says = el("p.note", { "aria-live": "polite" });
  const turns = player("Layers of this head", (at) => {
    if (state.layer !== at) set({ layer: at });
  }, 1100);
  find(".arcs").replaceChildren(el("h3", {}, "Who looks at whom, layer by layer"), el("div.scroll", { tabindex: 0, role: "region", "aria-label": "Arcs of attention, scrolls sideways" }, picture), turns.node, says);
  turns.series(model.layers, state.layer);

  /** From one token back to another: the farther, the higher. */
  function arc(query, key, weight, strong) {
    const [from, to] = [x(query), x(key)];
    const height = Math.max(top, base - 26 - (base - 40) * Math.min(1, (query - key + 0.6) / Math.max(4, L - 1)));
    const path = query === key
      ? `M ${from - 9} ${base} C ${from - 26} ${base - 46} ${from + 26} ${base - 46} ${from + 9} ${base}`
      : `M ${from} ${base} C ${from} ${height} ${to} ${height} ${to} ${base}`;
    return svg("path", { d: path, stroke: colour(key), "stroke-width": (strong ? 1 : 0.6) + weight * (strong ? 13 : 4), "stroke-opacity": strong ? 0.25 + 0.7 * weight : 0.1 + 0.25 * weight, "data-key": key, "data-query": query });
  }
  watch(() => {
    const { token, layer, head } = state;
    turns.go(layer);
    const drawn = [];
    for (let query = 0; query < L; query++) {
      for (let key = 0; key <= query; key++) {
        const value = weight(layer, head, query, key);
        if (value >= (query === token ? 0.01 : 0.15)) drawn.push([query === token, arc(query, key, value, query === token)]);
      }
    }
    lines.replaceChildren(...drawn.toSorted((a, b) => a[0] - b[0]).map(([, line]) => line));
    words.forEach((word, position) => word.classList.toggle("on", position === token));
    const most = Array.from({ length: token + 1 }, (_, key) => [key, weight(layer, head, token, key)]).toSorted((a, b) => b[1] - a[1]).slice(0, 3);
    const told = most.filter(([, value]) => value >= 0.01).map(([key, value]) => `${tokens[key].piece} ${percent(value)}`).join(", ");
    says.textContent = `Layer ${layer}, head ${head}: ${tokens[token].piece} looks at ${told}. The thicker an arc, the more; the pale ones are the other tokens’.`;
    picture.setAttribute("aria-label", says.textContent);
  });
}
