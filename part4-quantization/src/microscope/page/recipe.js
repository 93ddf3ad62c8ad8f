// MLX's affine recipe once more, in f32: every result of an operation is rounded to f32, as the hardware
// does it in the program. The program's own is `src/quantize.rs`; a test compares the two with MLX.

const f32 = Math.fround;

/** To the nearest whole number: a half to the even one, or away from zero. */
const ROUND = {
  cpu: (x) => {
    const down = Math.floor(x);
    const rest = x - down;
    return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
  },
  gpu: (x) => Math.sign(x) * Math.floor(Math.abs(x) + 0.5),
};

/** What is left of an f32 that is stored in 16 bits. */
function store(x, dtype) {
  if (dtype === "f32" || x === 0) return x;
  const [digits, smallest] = dtype === "bf16" ? [7, -126] : [10, -14];
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x))), smallest);
  const unit = 2 ** (exponent - digits);
  const rounded = ROUND.cpu(x / unit) * unit;
  return dtype === "f16" && Math.abs(rounded) > 65504 ? Math.sign(x) * Infinity : rounded;
}

/** A group of weights: its scale and bias as they are stored, its codes, and all that lies between. */
function packGroup(values, bits, dtype, rounding) {
  const round = ROUND[rounding];
  const last = 2 ** bits - 1;
  const low = Math.min(...values);
  const high = Math.max(...values, rounding === "gpu" ? 0 : -Infinity);
  const step = Math.max(f32(f32(high - low) / last), f32(1e-7));
  const lowIsEdge = Math.abs(low) > Math.abs(high);
  const edge = lowIsEdge ? low : high;
  const signed = lowIsEdge ? step : -step;
  const zero = round(f32(edge / signed));
  const scale = zero === 0 ? signed : f32(edge / zero);
  const bias = zero === 0 ? 0 : edge;
  const code = (x) => Math.max(0, Math.min(last, round(f32(f32(x - bias) / scale))));
  const codes = values.map(code);
  const stored = { scale: store(scale, dtype), bias: store(bias, dtype) };
  const back = codes.map((code) => f32(f32(stored.scale * code) + stored.bias));
  return { ...stored, exact: { scale, bias }, codes, back, low, high, step, edge, zero: Math.abs(zero), last, words: packCodes(codes, bits) };
}

/** One string of bits, the lowest of the first code first. */
function packCodes(codes, bits) {
  const words = new Uint32Array((codes.length * bits) / 32);
  codes.forEach((code, index) => {
    const [word, from] = [(index * bits) >>> 5, (index * bits) & 31];
    words[word] |= code << from;
    if (from + bits > 32) words[word + 1] |= code >>> (32 - from);
  });
  return words;
}

/** √ of the mean square. */
const rms = (values) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);

// For the test, and for whoever is curious: this works in the browser's console, too.
globalThis.recipe = { packGroup, packCodes, store };
