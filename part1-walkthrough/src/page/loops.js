function decodeStep() {
  const { rounds, ended_by } = trace.decode;
  const prompt = L > 14 ? `…${plain(tokens.slice(-10).map((token) => token.piece).join(""))}` : plain(tokens.map((token) => token.piece).join(""));
  fill("#decode .shape", `round r: L = ${L} + r tokens in, one token out; ${rounds.length} rounds, ended by ${ended_by}`);
  fill(".rounds", el("div.panel", {}, ...rounds.map((round, r) => {
    const said = rounds.slice(0, r).map(({ chosen }) => el("u", {}, plain(chosen.piece)));
    const others = round.top.filter(({ id }) => id !== round.chosen.id).slice(0, 3);
    return el("div.round", {}, el("b", {}, String(r + 1)), el("div", {},
      el("p.said", { dir: "auto" }, prompt, ...said, el("mark", {}, plain(round.chosen.piece))),
      el("p.others", {}, `${round.input} tokens in, ${percent(round.chosen.probability)}`, ...(others.length ? ["; else ", ...others.flatMap((guess, i) => [i ? ", " : "", piece(guess.piece), ` ${percent(guess.probability)}`])] : []), `; ${fixed(round.micros / 1000, 1)} ms`)));
  })));
}

function recomputeStep() {
  const { computed, repeated, largest_change, flops_naive, flops_cached, kv_bytes_per_token, kv_bytes_per_token_all_heads, kv_bytes, answers } = trace.recompute;
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const again = sum(repeated);
  const fact = (value, text) => el("div", {}, el("b.number", {}, value), el("span", {}, text));
  fill("#recompute .shape", `KV bytes per token = 2 · layers · Hkv · D · bytes = 2 · ${model.layers} · ${model.kv_heads} · ${model.head_dim} · ${model.activation_bytes} = ${count(kv_bytes_per_token)}`);
  const triangles = twins(computed, repeated, sum);
  const heads = model.heads === model.kv_heads ? "" : ` Queries share keys: with all ${model.heads} heads it would be ${count(kv_bytes_per_token_all_heads)} bytes.`;
  fill(".again",
    el("div.facts", {},
      fact(count(again), `of ${count(sum(computed))} positions were computed again, in each layer`),
      fact(`${fixed(flops_naive / Math.max(1, flops_cached), 1)} ×`, `${compact(flops_naive, "FLOP")} instead of ${compact(flops_cached, "FLOP")}`),
      fact(largest_change === 0 ? "0" : small(largest_change), "largest difference between the keys and values of the first round and of the last"),
      fact(decimal(kv_bytes), "a cache of prompt and answer takes")),
    el("figure", {}, ...triangles,
      el("div.keys", {}, key("var(--good)", "computed for the first time"), key("color-mix(in oklab, var(--bad) 45%, var(--cell))", "computed again"), key("var(--ghost)", "read from the cache")),
      el("figcaption", {}, `One row per round, one cell per position, prompt first. A cache costs ${count(kv_bytes_per_token)} bytes for each token.${heads}`)),
    el("div.panel.scroll", {}, el("table", {},
      el("caption.note", {}, `After this prompt of ${L} tokens, for answers of n tokens.`),
      el("thead", {}, el("tr", {}, ...["n", "computed again", "of the answer", "cache"].map((title) => el("th", { scope: "col" }, title)))),
      el("tbody", {}, ...answers.map((answer) => el("tr", {}, el("td", {}, count(answer.tokens)), el("td", {}, count(answer.repeated)), el("td", {}, count(answer.of_answer)), el("td", {}, decimal(answer.kv_bytes))))))));
}

/** The rounds of the loop without a cache and with one, side by side, played round by round. */
function twins(computed, repeated, sum) {
  const width = computed[computed.length - 1] ?? 0;
  const triangle = (name, old, total) => {
    const cells = computed.flatMap((positions, r) => Array.from({ length: width }, (_, p) =>
      el(`i${p >= positions ? "" : p < repeated[r] ? `.${old}` : ".new"}`, { "data-round": r })));
    const picture = el("div.triangle", { role: "img", "aria-label": `${name}: ${count(total)} positions computed in ${computed.length} rounds` }, ...cells);
    picture.style.gridTemplateColumns = `repeat(${width}, minmax(0, 2.4rem))`;
    return { cells, node: el("div.twin", {}, el("h3", {}, name), picture, el("p.count", {})) };
  };
  const fresh = computed.map((positions, r) => positions - repeated[r]);
  const pair = [triangle("Without a cache", "again", sum(computed)), triangle("With one", "kept", sum(fresh))];
  const turns = player("Rounds", (at) => {
    for (const { cells } of pair) for (const cell of cells) cell.classList.toggle("later", Number(cell.dataset.round) > at);
    [computed, fresh].forEach((values, i) => {
      find(".count", pair[i].node).replaceChildren(`Round ${at + 1}: ${many(values[at], "position")}. So far `, el("b", {}, count(sum(values.slice(0, at + 1)))), ".");
    });
  }, 700);
  turns.series(computed.length, -1);
  return [el("div.twins", {}, ...pair.map(({ node }) => node)), turns.node];
}

const key = (fill, text) => el("span", {}, el("i", { "--k": fill }), text);

function budgetStep() {
  const { budget } = trace;
  const measures = [["parameters", "parameters", (v) => compact(v)], ["flops", "FLOP", (v) => compact(v)], ["bytes", "bytes to read", (v) => decimal(v)], ["micros", "time, µs", (v) => count(v)]];
  const total = (name) => budget.reduce((sum, cost) => sum + cost[name], 0);
  fill("#budget .idea", `One pass over the ${L} tokens of the prompt, part by part, summed over ${model.layers} layers. Parameters, operations and bytes are counted; the time is the median of five passes with a wait after each part, on the machine that wrote this page. Where other programs kept it busy, the times are not worth comparing.`);
  const shares = budget.flatMap((cost, part) => measures.map(([name, label]) => ({ label, part, name: cost.part, share: cost[name] / (total(name) || 1) })));
  const tint = (part) => `light-dark(oklch(${0.5 + 0.03 * (part % 3)} 0.14 ${265 + (360 * part) / budget.length}), oklch(${0.74 + 0.03 * (part % 3)} 0.12 ${265 + (360 * part) / budget.length}))`;
  const picture = el("div", {});
  const body = budget.map((cost, part) => el("tr", {}, el("th", { scope: "row" }, el("i.swatch", { "--k": tint(part) }), cost.part), ...measures.map(([name, , show]) => el("td", {}, cost[name] === 0 ? "–" : show(cost[name])))));
  const sums = el("tr", {}, el("th", { scope: "row" }, el("b", {}, "all")), ...measures.map(([name, , show]) => el("td", {}, el("b", {}, show(total(name))))));
  fill(".costs", el("figure", {}, picture), el("div.panel.scroll", {}, el("table", {},
    el("thead", {}, el("tr", {}, ...["part", ...measures.map(([, label]) => label)].map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, ...body, sums))));
  chart(picture, (width) => ({
    height: 190, marginLeft: 92, marginRight: 22, ariaLabel: "Share of each part in parameters, operations, bytes and time",
    style: { background: "transparent", color: "var(--ink)", fontSize: "12px" },
    x: { label: null, tickFormat: ".0%", ticks: width < 480 ? 3 : 6 },
    y: { label: null, domain: measures.map(([, label]) => label), tickSize: 0 },
    marks: [
      Plot.barX(shares, { x: "share", y: "label", fill: { value: (d) => tint(d.part), scale: null }, inset: 0.5, rx: 2 }),
      Plot.tip(shares, Plot.pointer(Plot.stackX({ x: "share", y: "label", fill: "var(--card)", stroke: "var(--line)", title: (d) => `${d.name}: ${percent(d.share)} of ${d.label}` }))),
    ],
  }))();
}

function checksStep() {
  fill(".checks", ...trace.checks.map((check) => {
    const holds = check.difference <= check.tolerance * check.largest;
    return el(`li.${holds ? "yes" : "no"}`, {}, el("div", {}, el("b", {}, check.name), " = ", el("code", {}, check.fused),
      el("small", {}, `largest difference ${small(check.difference)} at numbers up to ${fixed(check.largest, 2)}; allowed ${small(check.tolerance * check.largest)}`)));
  }));
}

/** Only where the program was asked to leave something out: the symptom. */
function whatIfStep() {
  const outcome = trace.what_if;
  if (!outcome) return;
  const { kind, layer, head } = outcome.switch;
  const said = {
    "no-mask": "the causal mask is left out: every token sees the ones after it, too",
    "no-positions": "the model is not told where a token stands",
    "no-scaling": "the scores are not divided by √D",
    "zero-head": `head ${head} of layer ${layer} adds nothing`,
  }[kind];
  find("#what-if").hidden = false;
  fill("#what-if .idea", `Once more, but ${said}. Everything else on this page is of the model as it is.`);
  const list = (title, rows) => el("div.panel", {}, el("h3", {}, title), ...rows.map(([text, value]) =>
    el("div.meter", { "--v": value }, piece(text), el("i"), el("span.number", {}, percent(value)))));
  const layers = outcome.cosines.map((cosine, after) => el("tr", {}, el("th", { scope: "row" }, after ? `layer ${after - 1}` : "embedding"), el("td", {}, fixed(cosine, 3)),
    ...["entropy_before", "entropy_after"].map((name) => el("td", {}, after ? fixed(outcome[name][after - 1], 2) : "–"))));
  fill(".symptom",
    list("The model as it is", outcome.before.map((guess) => [guess.piece, guess.probability])),
    list("The same tokens then", outcome.before.map((guess, i) => [guess.piece, outcome.before_then[i]])),
    list("What it says then", outcome.after.map((guess) => [guess.piece, guess.probability])),
    el("div.panel", {}, el("h3", {}, "The answers"), "as it is", el("blockquote", { dir: "auto" }, outcome.text_before), "then", el("blockquote", { dir: "auto" }, outcome.text_after)),
    el("div.panel.scroll", {}, el("table", {}, el("caption.note", {}, "The last token’s stream with and without it, and how widely attention is spread (mean entropy of a row, in bits)."),
      el("thead", {}, el("tr", {}, ...["after", "cosine", "bits", "bits then"].map((title) => el("th", { scope: "col" }, title)))), el("tbody", {}, ...layers))));
}
