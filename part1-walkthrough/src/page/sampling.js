// What shared::sampling does, on the embedded logits, in its order: top-p → min-p → top-k look at the
// probabilities at temperature 1, and the temperature only reshapes what they have left.

/** Logits as the sampler sees them: the latest tokens are made less likely. */
function penalised(logits, penalty) {
  const result = Float32Array.from(logits);
  if (penalty === 1) return result;
  const context = 20;
  for (const id of new Set(tokens.slice(-context).map((token) => token.id))) {
    result[id] = logits[id] < 0 ? logits[id] * penalty : logits[id] / penalty;
  }
  return result;
}

const logits = penalised(floats(trace.prediction.logits), trace.prediction.settings.repetition_penalty);
/** Token ids, likeliest first; of equal ones the first id. No setting changes this order. */
const ranked = Uint32Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
const logSum = (() => {
  const best = logits[ranked[0]];
  return best + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - best), 0));
})();
/** Log-probabilities at temperature 1, by rank. */
const logprobs = Float64Array.from(ranked, (id) => logits[id] - logSum);

/**
 * The distribution from which the next token is drawn, by rank.
 *
 * `stages` tells for each filter that is on how many of the likeliest tokens it leaves: every filter cuts
 * the tail off. Tokens as likely as the last one that stays are kept, too, except by top-k.
 */
function sample({ temperature, top_k, top_p, min_p }) {
  const stages = [];
  let kept = logprobs.length;
  const cut = (filter, keep) => {
    kept = keep;
    stages.push({ filter, kept, mass: mass(kept) });
  };
  if (top_p < 1) {
    let above = 0;
    let keep = 0;
    while (keep < kept && above < top_p) above += Math.exp(logprobs[keep++]);
    while (keep < kept && logprobs[keep] === logprobs[keep - 1]) keep++;
    cut("top-p", Math.max(1, keep));
  }
  if (min_p > 0) {
    const threshold = logprobs[0] + Math.log(min_p);
    let keep = kept;
    while (keep > 1 && logprobs[keep - 1] < threshold) keep--;
    cut("min-p", keep);
  }
  if (top_k > 0 && top_k < logprobs.length) cut("top-k", Math.min(kept, top_k));
  return { kept, stages, probabilities: tempered(kept, temperature) };
}

/** Probability at temperature 1 of the likeliest `kept` tokens. */
function mass(kept) {
  let sum = 0;
  for (let rank = 0; rank < kept; rank++) sum += Math.exp(logprobs[rank]);
  return sum;
}

function tempered(kept, temperature) {
  const probabilities = new Float64Array(logprobs.length);
  if (temperature === 0) {
    probabilities[0] = 1; // greedy: no draw at all
    return probabilities;
  }
  let sum = 0;
  for (let rank = 0; rank < kept; rank++) {
    probabilities[rank] = Math.exp((logprobs[rank] - logprobs[0]) / temperature);
    sum += probabilities[rank];
  }
  for (let rank = 0; rank < kept; rank++) probabilities[rank] /= sum;
  return probabilities;
}

/** Which filter took a rank out, and why. */
function removal(rank, stages, settings) {
  const stage = stages.find(({ kept }) => rank >= kept);
  if (!stage) return null;
  const own = Math.exp(logprobs[rank]);
  return {
    "top-p": `top-p: ${fixed(mass(rank), 3)} before it ≥ ${settings.top_p}`,
    "min-p": `min-p: ${fixed(own, 3)} < ${settings.min_p} · ${fixed(Math.exp(logprobs[0]), 3)}`,
    "top-k": `top-k: rank ${rank + 1} > ${settings.top_k}`,
  }[stage.filter];
}
