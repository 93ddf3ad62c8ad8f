const STEPS = [
  ["tokenize", "Tokenize", "text → ids", `[L] = [${L}]`],
  ["embed", "Embed", "ids → vectors", `[L, E] = [${L}, ${model.width}]`],
  ["attend", "Attend", `${model.layers} layers × ${model.heads} heads`, `[H, L, L] = [${model.heads}, ${L}, ${L}]`],
  ["predict", "Predict", "vector → probabilities", `[V] = [${count(model.vocabulary)}]`],
  ["decode", "Decode", "token by token", `L = ${L}, ${L + 1}, ${L + 2} …`],
  ["recompute", "Recompute", "why a cache", "2 · layers · Hkv · D"],
];

function navigation() {
  const links = [...STEPS.map(([id, name]) => [id, name]), ...(trace.comparison ? [["senses", "Two senses"]] : []), ...(trace.what_if ? [["what-if", "What if"]] : []), ["budget", "Cost"], ["checks", "Checked"]].map(([id, name]) => el("a", { href: `#${id}` }, name));
  fill(".steps", ...links);
  const sections = [...document.querySelectorAll("section:not([hidden])")];
  const mark = () => {
    const line = innerHeight * 0.35;
    const now = sections.findLast((section) => section.getBoundingClientRect().top < line);
    for (const link of links) {
      const here = link.hash === `#${now?.id}`;
      if (here === link.hasAttribute("aria-current")) continue;
      if (here) link.setAttribute("aria-current", "step");
      else link.removeAttribute("aria-current");
      if (here) link.parentNode.scrollTo({ left: link.offsetLeft - link.parentNode.offsetLeft - 40 });
    }
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

function tokenStrip() {
  const strip = find(".strip");
  const buttons = tokens.map((_, position) => tokenButton(position));
  strip.replaceChildren(...buttons);
  roving(strip, buttons, 1e9);
  watch(() => {
    follow(buttons);
    stopAt(buttons, buttons[state.token]);
    const now = buttons[state.token];
    const [left, right] = [now.offsetLeft - strip.offsetLeft, now.offsetLeft - strip.offsetLeft + now.offsetWidth];
    if (left < strip.scrollLeft || right > strip.scrollLeft + strip.clientWidth) strip.scrollTo({ left: left - strip.clientWidth / 2 });
  });
}

function hero() {
  const { chosen } = trace.prediction;
  fill(".sentence", trace.text, " ", el("span", {}, el("span.next", {}, plain(chosen.piece).trim() || chosen.piece), " ", el("small", {}, percent(chosen.probability))));
  const cuts = trace.templated ? ` The chat template was put around the prompt: the model sees ${L} tokens.` : "";
  fill(".lead", `${L} tokens, ${model.layers} layers, ${compact(model.parameters)} parameters, one next token. Every number on this page comes from one run of ${model.name} (${model.architecture}, ${model.position_encoding}, ${model.norm}, ${model.activation}), computed in ${model.computed_in}.${cuts} Choose a token above and the whole page follows it.`);
  fill(".pipeline", ...STEPS.map(([id, name, what, shape]) => el("li", {}, el("a", { href: `#${id}` }, el("b", {}, name), el("span", {}, what), el("code", {}, shape)))));
  fill(".made", "Written by ", el("code", {}, "cargo run -p part1-walkthrough -- --html FILE"), ". One file, no network: all data is inside.");
}

for (const step of [theme, hero, tokenStrip, tokenizeStep, mergingStep, embedStep, attendStep, streamStep, sensesStep, predictStep, decodeStep, recomputeStep, whatIfStep, budgetStep, checksStep, navigation, guide]) step();
document.documentElement.dataset.ready = "";
