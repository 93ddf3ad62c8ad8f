function predictStep() {
  fill("#predict .shape", `x [L, E] → last row [1, E] · head [E, V] = logits [1, V] = [1, ${count(model.vocabulary)}]   →   softmax(logits / T)`);
  lens();
  sampler();
}

/** What each layer would say, had it been the last one. */
function lens() {
  const rows = trace.lens;
  const head = el("tr", {}, el("th", { scope: "col" }, "after layer"),
    ...tokens.map((token, position) => el("th", { scope: "col", "data-token": position }, piece(token.piece))));
  const body = rows.map((row) => el("tr", {},
    el("th", { scope: "row" }, row.after === 0 ? "embedding" : String(row.after - 1)),
    ...row.each.map((guess, position) => {
      const right = tokens[position + 1]?.id === guess.id;
      const s = guess.probability;
      const after = position + 1 < L ? `; the prompt goes on with ${tokens[position + 1].piece}` : "";
      return el(`td${s > 0.5 ? ".hot" : ""}${right ? ".right" : ""}`, {
        "--s": s, title: `${guess.piece} ${percent(guess.probability)}${after}`,
      }, piece(guess.piece));
    })));
  const line = el("div", {});
  const last = el("div", { "aria-live": "polite" });
  fill(".lens", el("div.panel", {},
    el("h3", {}, "What each layer would say"),
    el("p.note", {}, "The output table applied after every layer, not only after the last one: the likeliest next token at each position, the stronger the colour, the surer. A green frame: the prompt does go on like this."),
    el("div.scroll", { tabindex: 0, role: "region", "aria-label": "Logit lens, scrolls sideways" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)))),
    el("div.two", {}, el("figure.panel", {}, el("h3", {}, "How sure each layer is of ", piece(trace.prediction.greedy.piece)), line), el("div.panel", {}, last)));
  chart(line, (width) => ({
    height: Math.min(260, Math.max(180, width * 0.45)), marginLeft: 44, marginBottom: 34,
    ariaLabel: "Probability of the final answer after each layer",
    style: { background: "transparent", color: "var(--ink)", fontSize: "12px" },
    x: { label: "after layer", ticks: Math.min(rows.length, Math.floor(width / 40)), tickFormat: (after) => (after === 0 ? "none" : String(after - 1)) },
    y: { label: null, domain: [0, Math.max(...rows.map((row) => row.answer)) * 1.05], tickFormat: ".0%", grid: true, ticks: 5 },
    marks: [
      Plot.areaY(rows, { x: "after", y: "answer", fill: "var(--accent)", fillOpacity: 0.12 }),
      Plot.line(rows, { x: "after", y: "answer", stroke: "var(--accent)", strokeWidth: 2.5 }),
      Plot.dot(rows, { x: "after", y: "answer", fill: "var(--accent)", r: 3.5 }),
      Plot.tip(rows, Plot.pointerX({ x: "after", y: "answer", fill: "var(--card)", stroke: "var(--line)",
        title: (row) => `${row.after ? `after layer ${row.after - 1}` : "embedding"}: ${percent(row.answer)}\n${row.last.map((guess) => `${guess.piece}  ${percent(guess.probability)}`).join("\n")}` })),
    ],
  }))();
  watch(() => {
    for (const cell of document.querySelectorAll(".lens th[data-token]")) cell.classList.toggle("on", Number(cell.dataset.token) === state.token);
    const ends = rows.map((row) => ({ row, guess: row.each[state.token] }));
    last.replaceChildren(el("h3", {}, "After ", piece(tokens[state.token].piece)),
      ...ends.toReversed().slice(0, 12).map(({ row, guess }) => el("div.meter", { "--v": guess.probability },
        el("span", {}, row.after === 0 ? "embedding" : `layer ${row.after - 1}`, " ", piece(guess.piece)), el("i"), el("span.number", {}, percent(guess.probability)))));
  });
}

const SLIDERS = [
  { name: "temperature", label: "temperature", min: 0, max: 2, step: 0.05, off: 1, help: "below 1 sharpens, above 1 flattens; 0 always takes the likeliest" },
  { name: "top_k", label: "top-k", min: 0, max: 50, step: 1, off: 0, help: "keep the k likeliest; 0 keeps all" },
  { name: "top_p", label: "top-p", min: 0.05, max: 1, step: 0.01, off: 1, help: "keep the likeliest until they make up p; 1 keeps all" },
  { name: "min_p", label: "min-p", min: 0, max: 0.5, step: 0.01, off: 0, help: "keep what is at least this share as likely as the best; 0 keeps all" },
];
const PRESETS = [
  ["as the program drew it", null],
  ["nothing", { temperature: 1, top_k: 0, top_p: 1, min_p: 0 }],
  ["cold", { temperature: 0.2, top_k: 0, top_p: 1, min_p: 0 }],
  ["hot", { temperature: 1.5, top_k: 0, top_p: 1, min_p: 0 }],
  ["top-k 5", { temperature: 1, top_k: 5, top_p: 1, min_p: 0 }],
  ["top-p 0.9", { temperature: 1, top_k: 0, top_p: 0.9, min_p: 0 }],
  ["min-p 0.1", { temperature: 1.5, top_k: 0, top_p: 1, min_p: 0.1 }],
  ["greedy", { temperature: 0, top_k: 0, top_p: 1, min_p: 0 }],
];
const FEW = 16;

/** Bars that follow the sliders: computed here, from the logits of the trace. */
function sampler() {
  const start = Object.fromEntries(SLIDERS.map(({ name }) => [name, rounded(trace.prediction.settings[name])]));
  const settings = { ...start };
  let shown = FEW;
  const controls = SLIDERS.map((slider) => {
    const output = el("output", { for: slider.name });
    const input = el("input", { id: slider.name, type: "range", min: slider.min, max: slider.max, step: slider.step,
      oninput: () => { settings[slider.name] = Number(input.value); update(); } });
    const show = () => {
      input.value = settings[slider.name];
      output.textContent = settings[slider.name] === slider.off && slider.name !== "temperature" ? "off" : settings[slider.name];
    };
    return { show, node: el("div.slider", {}, el("label", { for: slider.name }, slider.label, output), input, el("small", {}, slider.help)) };
  });
  const presets = PRESETS.map(([name, values]) => el("button", { type: "button", onclick: () => { Object.assign(settings, values ?? start); update(); } }, name));
  const bars = el("ol.bars", {});
  const summary = el("p.summary", { role: "status" });
  const drawn = el("div.drawn", { "aria-live": "polite" });
  const more = el("button", { type: "button", onclick: () => { shown = shown === FEW ? 64 : FEW; update(); } });
  let now;
  const draw = () => {
    drawn.prepend(el("span.token", { "--hue": 265 }, nameOf(pick(now.probabilities))));
    while (drawn.childElementCount > 24) drawn.lastChild.remove();
  };
  fill(".temperatures", el("h3", {}, "The same scores at three temperatures"),
    el("div.three", {}, ...[[0.2, "plays safe"], [1, "as it is"], [1.5, "surprises"]].map(([temperature, says]) => {
      const at = tempered(logprobs.length, temperature);
      return el("div.panel", { "data-temperature": temperature }, el("h4", {}, `T = ${temperature.toFixed(1)}, `, el("span", {}, says)),
        ...Array.from({ length: Math.min(6, trace.prediction.named.length) }, (_, rank) =>
          el("div.meter", { "--v": at[rank] }, piece(trace.prediction.named[rank].piece), el("i"), el("span.number", {}, percent(at[rank])))));
    })),
    el("p.note", {}, "A temperature divides the scores before softmax. No token overtakes another; below 1 the first gains, above 1 the others do."));
  fill(".sampling",
    el("div.controls", {}, el("div.panel", {}, el("h3", {}, "Play the sampler"), ...controls.map(({ node }) => node), el("div.buttons", {}, ...presets))),
    el("div.panel", {}, el("h3", {}, "The next token"), summary, bars, el("div.buttons", {}, more, el("button.main", { type: "button", onclick: draw }, "Draw a token")), drawn,
      el("p.note", {}, "The pale bar is the probability at temperature 1 with every token in; the strong bar is what the draw sees. Order: top-p, min-p, top-k at temperature 1, and the temperature last, as in mlx-lm. Other engines apply the temperature first and keep other sets.")));
  function update() {
    now = sample(settings);
    for (const { show } of controls) show();
    summary.textContent = summarise(now, settings);
    const scale = Math.max(Math.exp(logprobs[0]), now.probabilities[0]);
    const rows = Math.min(shown, trace.prediction.named.length, logprobs.length);
    bars.replaceChildren(...Array.from({ length: rows }, (_, rank) => bar(rank, now, settings, scale)), rest(rows, now));
    bars.dataset.kept = now.kept;
    more.hidden = logprobs.length <= FEW;
    more.textContent = shown === FEW ? "Show more" : "Show fewer";
  }
  update();
}

/** The f32 of a flag as it was typed: 0.7, not 0.699999988. */
const rounded = (value) => Number(value.toPrecision(6));

function bar(rank, now, settings, scale) {
  const { id, piece: text } = trace.prediction.named[rank];
  const before = Math.exp(logprobs[rank]);
  const after = now.probabilities[rank];
  const why = removal(rank, now.stages, settings);
  const reason = why ?? (settings.temperature === 0 && rank > 0 ? "greedy takes the likeliest" : null);
  return el(`li${why ? ".removed" : ""}`, { "--b": before / scale, "data-id": id, "data-probability": after, "data-removed": why ? why.split(":")[0] : null, title: `id ${id}, logit ${fixed(logits[id], 3)}, ${percent(before)} at temperature 1` },
    piece(text),
    el("span.track", { "--a": after / scale }, el("i.before"), el("i.after")),
    el("span.number", {}, reason ? "–" : percent(after)),
    reason ? el("small.reason", {}, reason) : null);
}

function rest(rows, now) {
  const others = logprobs.length - rows;
  if (others <= 0) return "";
  let after = 0;
  for (let rank = rows; rank < now.kept; rank++) after += now.probabilities[rank];
  return el("li.rest", {}, el("span", {}, `${count(others)} more tokens, ${percent(Math.max(0, 1 - mass(rows)))} at temperature 1`), el("span.number", {}, percent(after)));
}

function summarise(now, settings) {
  const cuts = now.stages.map(({ filter, kept, mass }) => `${filter} leaves ${count(kept)} (${percent(mass)} of the probability)`);
  if (settings.temperature === 0) cuts.push("temperature 0 takes the likeliest");
  return cuts.length ? `Of ${count(logprobs.length)} tokens ${cuts.join(", then ")}.` : `All ${count(logprobs.length)} tokens are in.`;
}

/** A rank, drawn with its probability. */
function pick(probabilities) {
  let left = Math.random();
  for (let rank = 0; rank < probabilities.length; rank++) {
    left -= probabilities[rank];
    if (left < 0) return rank;
  }
  return 0;
}
const nameOf = (rank) => trace.prediction.named[rank]?.piece ?? `id ${ranked[rank]}`;
