//! Step times of machines that nobody here has, from their data sheets.
//!
//! A step takes what its bytes take to come from memory, or what its operations take to be computed, whichever
//! is longer: the roofline. No machine reaches it, so this is a bound and no prediction: whoever shows such
//! numbers calls them simulated, in every line.

use anyhow::{Context, Result, bail};
use shared::config::ModelConfig;
use shared::machine::published_bandwidth;

use crate::step_times::{StepTimes, Table};

/// A machine, as far as the roofline goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Chip {
    /// Its name, as it is given to `--machine`.
    pub name: String,
    /// Bytes per second from memory, as published.
    pub bandwidth: f64,
    /// Operations per second on 16-bit numbers.
    pub flops: f64,
    /// Where the operations per second are from.
    pub flops_source: &'static str,
    /// Whether MLX runs on Metal there, whose kernels read weights again for some numbers of rows.
    pub metal: bool,
}

/// A model, as far as the roofline goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Weights that a step multiplies with: all but the table of embeddings.
    pub parameters: f64,
    /// Bits of each, with its share of scales and biases.
    pub bits_per_weight: f64,
    /// What a position takes in a 16-bit cache.
    pub kv_bytes_per_token: f64,
    /// Operations of one query on one key, in all layers: two products.
    pub flops_per_pair: f64,
}

const PUBLISHED: &str = "published";
/// GPU cores · 128 units · 2 operations · clock.
const COMPUTED: &str = "cores × clock, not published";

/// Name, what macOS calls it, cores of its CPU, TFLOP/s and where they are from.
const APPLE: [(&str, &str, usize, f64, &str); 7] = [
    ("m1", "Apple M1", 8, 2.6, PUBLISHED),
    ("m2", "Apple M2", 8, 3.6, PUBLISHED),
    ("m3-max", "Apple M3 Max", 16, 14.1, COMPUTED),
    ("m3-ultra", "Apple M3 Ultra", 32, 28.3, COMPUTED),
    ("m4", "Apple M4", 10, 3.8, COMPUTED),
    ("m4-pro", "Apple M4 Pro", 14, 8.1, COMPUTED),
    ("m4-max", "Apple M4 Max", 16, 16.2, COMPUTED),
];

/// How often MLX on Metal reads 4-bit weights for so many rows: times of one product on an M3 Ultra over that of
/// one row (ml-explore/mlx#4265: 0.041, 0.076, 0.134, 0.252 and 0.260 ms for 1, 2, 4, 8 and 16 rows). Up to
/// eight rows each row reads them again; then tiles of 32 rows share a reading (pull request 3863).
const READS_QUANTIZED: [(usize, f64); 8] = [
    (1, 1.0),
    (2, 1.85),
    (4, 3.27),
    (8, 6.15),
    (16, 6.34),
    (32, 6.34),
    (33, 12.68),
    (64, 12.68),
];
/// The same of 16-bit weights: twice as soon as there are two rows, then no more (ml-explore/mlx#3661).
const READS_16_BIT: [(usize, f64); 3] = [(1, 1.0), (2, 2.0), (64, 2.0)];
/// Where the kernels are right: one reading for all rows.
const READS_ONCE: [(usize, f64); 2] = [(1, 1.0), (64, 1.0)];
/// Lengths of pieces for which times are computed; in between, they lie on a line.
const PIECES: [usize; 14] = [1, 2, 4, 8, 16, 32, 33, 64, 96, 128, 256, 512, 1024, 8192];

impl Chip {
    /// A machine that is known by name, or `bandwidth=GB/s,tflops=TFLOP/s` of a Mac that is not.
    ///
    /// # Errors
    /// If it is not known.
    pub fn named(name: &str) -> Result<Self> {
        let chip = |bandwidth: f64, tflops: f64, flops_source, metal| {
            let (bandwidth, flops) = (bandwidth, tflops * 1e12);
            Self {
                name: name.to_lowercase(),
                bandwidth,
                flops,
                flops_source,
                metal,
            }
        };
        if name.contains('=') {
            let (bandwidth, tflops) = given(name)?;
            return Ok(chip(bandwidth * 1e9, tflops, "given", true));
        }
        let lower = name.to_lowercase();
        if lower == "h100" {
            return Ok(chip(3350e9, 989.0, PUBLISHED, false));
        }
        let names = APPLE.map(|(name, ..)| name).join(", ");
        let unknown = || {
            format!(
                "no machine is called '{name}': take one of {names}, h100, or bandwidth=546,tflops=16"
            )
        };
        let known = APPLE.iter().find(|(name, ..)| *name == lower);
        let (_, apple, cores, tflops, source) = *known.with_context(unknown)?;
        let bandwidth = published_bandwidth(apple, cores).with_context(unknown)?;
        Ok(chip(bandwidth, tflops, source, true))
    }

    /// Seconds of a step of that model. What the host does is not in it: nobody has measured it there.
    pub fn step_times(&self, shape: &Shape) -> StepTimes {
        let bytes = shape.parameters * shape.bits_per_weight / 8.0;
        let reads = Table::new(self.reads(shape).to_vec());
        // Longer pieces share their readings in the caches of the GPU; there the arithmetic decides.
        let of = |tokens: usize, most: usize| {
            let reading = reads.at(tokens.min(most)) * bytes / self.bandwidth;
            (
                tokens,
                reading.max(2.0 * shape.parameters * tokens as f64 / self.flops),
            )
        };
        StepTimes {
            host: 0.0,
            rows: Table::new((1..=128).map(|rows| of(rows, reads.last())).collect()),
            context: shape.kv_bytes_per_token / self.bandwidth,
            pieces: Table::new(PIECES.map(|tokens| of(tokens, 32)).to_vec()),
            piece_context: shape.flops_per_pair / self.flops,
        }
    }

    fn reads(&self, shape: &Shape) -> &'static [(usize, f64)] {
        match (self.metal, shape.bits_per_weight < 16.0) {
            (false, _) => &READS_ONCE,
            (true, true) => &READS_QUANTIZED,
            (true, false) => &READS_16_BIT,
        }
    }
}

/// GB/s and TFLOP/s of `bandwidth=546,tflops=16`.
fn given(text: &str) -> Result<(f64, f64)> {
    let wrong =
        || format!("'{text}' is no machine: write bandwidth=546,tflops=16 (GB/s and TFLOP/s)");
    let number = |key: &str| {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.into_iter().find(|(found, _)| found.trim() == key)?;
        value
            .trim()
            .parse()
            .ok()
            .filter(|value: &f64| *value > 0.0 && value.is_finite())
    };
    let both = (number("bandwidth"), number("tflops"));
    let (Some(bandwidth), Some(tflops)) = both else {
        bail!(wrong())
    };
    Ok((bandwidth, tflops))
}

impl Shape {
    /// Of a model's config.json. What it says of its quantization holds for all its weights.
    pub fn of(config: &ModelConfig) -> Self {
        let group = config
            .quantization
            .as_ref()
            .map(|quantization| quantization.default);
        let sizes = Sizes {
            width: config.hidden_size,
            mlp: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head: config.head_dim,
            vocabulary: config.vocab_size,
        };
        // Scale and bias have 16 bits each.
        sizes.shape(group.map_or(16.0, |group| {
            group.bits as f64 + 32.0 / group.group_size as f64
        }))
    }

    /// Of a model that is known by name, such as `qwen3-4b`, with `-4bit` or `-8bit` behind it if it is quantized.
    ///
    /// # Errors
    /// If it is not known.
    pub fn named(name: &str) -> Result<Self> {
        let lower = name.to_lowercase();
        let (base, bits) = match lower.rsplit_once('-') {
            Some((base, "4bit")) => (base, 4.5),
            Some((base, "8bit")) => (base, 8.5),
            _ => (lower.as_str(), 16.0),
        };
        let known = MODELS.iter().find(|(model, _)| *model == base);
        let (_, sizes) = known.with_context(|| {
            let names: Vec<&str> = MODELS.iter().map(|(model, _)| *model).collect();
            format!(
                "no model is called '{name}' here: {}, each also with -4bit or -8bit",
                names.join(", ")
            )
        })?;
        Ok(sizes.shape(bits))
    }
}

/// The numbers of a config.json that decide.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    width: usize,
    mlp: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head: usize,
    vocabulary: usize,
}

impl Sizes {
    const fn new(of: [usize; 7]) -> Self {
        let [width, mlp, layers, heads, kv_heads, head, vocabulary] = of;
        Self {
            width,
            mlp,
            layers,
            heads,
            kv_heads,
            head,
            vocabulary,
        }
    }

    fn shape(&self, bits_per_weight: f64) -> Shape {
        let attention = 2 * self.width * (self.heads + self.kv_heads) * self.head;
        let layer = attention + 3 * self.width * self.mlp;
        Shape {
            parameters: (self.layers * layer + self.width * self.vocabulary) as f64,
            bits_per_weight,
            kv_bytes_per_token: (2 * 2 * self.layers * self.kv_heads * self.head) as f64,
            flops_per_pair: (4 * self.layers * self.heads * self.head) as f64,
        }
    }
}

/// Width, MLP, layers, heads, key/value heads, width of a head, vocabulary: as their config.json has them.
const MODELS: [(&str, Sizes); 9] = [
    (
        "smollm2-135m",
        Sizes::new([576, 1536, 30, 9, 3, 64, 49_152]),
    ),
    (
        "qwen3-0.6b",
        Sizes::new([1024, 3072, 28, 16, 8, 128, 151_936]),
    ),
    (
        "qwen3-1.7b",
        Sizes::new([2048, 6144, 28, 16, 8, 128, 151_936]),
    ),
    (
        "qwen3-4b",
        Sizes::new([2560, 9728, 36, 32, 8, 128, 151_936]),
    ),
    (
        "qwen3-8b",
        Sizes::new([4096, 12_288, 36, 32, 8, 128, 151_936]),
    ),
    (
        "llama-3.2-1b",
        Sizes::new([2048, 8192, 16, 32, 8, 64, 128_256]),
    ),
    (
        "llama-3.2-3b",
        Sizes::new([3072, 8192, 28, 24, 8, 128, 128_256]),
    ),
    (
        "llama-3.1-8b",
        Sizes::new([4096, 14_336, 32, 32, 8, 128, 128_256]),
    ),
    (
        "mistral-7b",
        Sizes::new([4096, 14_336, 32, 32, 8, 128, 32_000]),
    ),
];
