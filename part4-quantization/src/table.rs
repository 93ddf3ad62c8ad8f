//! The table: every width on the same text and the same prompt, its cells printed as they are measured.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use console::cli::{ModelArgs, OutputArgs, PromptArgs, SamplingArgs};
use console::files;
use console::metrics::Rounds;
use console::report::{Report, Rows, Stdout, status};
use serde::Serialize;
use shared::config::{GroupQuantization, Mode};
use shared::session::Session;

use crate::bench::{Base, Bench, Difference};
use crate::convert::{bits, group_size, modes};
use crate::estimates::Quality;
use crate::quality::{Scored, windows};
use crate::quantized_cache::KvBits;
use crate::report;
use crate::texts::TextChoice;
use crate::variants::{BITS, GROUPS, MODES, Packings, Variant, variants};

/// What the comparison of all widths takes.
#[derive(Debug, Args)]
#[command(mut_arg("max_tokens", |arg| arg.default_value("32")))]
pub struct TableArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    quality: QualityArgs,
}

impl TableArgs {
    /// The one width that a close look is taken at: 4 bits in groups of 64, or what the flags say.
    ///
    /// # Errors
    /// If they say several.
    pub(crate) fn only_packing(&self) -> Result<GroupQuantization> {
        let only = |numbers: &[usize], default| match numbers {
            [] => Some(default),
            [number] => Some(*number),
            _ => None,
        };
        let QualityArgs {
            bits,
            group_size,
            mode,
            ..
        } = &self.quality;
        ensure!(
            mode.iter().all(|mode| *mode == Mode::Affine),
            "--show looks at affine codes: leave --mode away"
        );
        let packing = only(group_size, 64).zip(only(bits, 4));
        let (group_size, bits) =
            packing.context("--show looks at one width: give one --bits and one --group-size")?;
        Ok(GroupQuantization::affine(group_size, bits))
    }
}

/// What the quality is measured on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Quality")]
struct QualityArgs {
    /// The text to score: alice, answers or a file in UTF-8 [default: answers for the built-in model, which
    /// knows little else, and alice for others]
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| Ok::<_, String>(TextChoice::from(text)))]
    text: Option<TextChoice>,

    /// Tokens of a window; windows do not overlap
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    window: u32,

    /// Most windows that are scored
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    windows: u32,

    /// Score all tokens of a window but the first, as mlx-lm, or those after its middle, as llama.cpp
    #[arg(long, value_enum, default_value_t = Scored::All)]
    score: Scored,

    /// Only these widths
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = bits)]
    bits: Vec<usize>,

    /// Only these groups
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = group_size)]
    group_size: Vec<usize>,

    /// Only these modes: affine, mxfp4, mxfp8, nvfp4 [default: affine, and without --bits and --group-size
    /// mxfp4 and nvfp4, too]
    #[arg(long, value_name = "MODE,MODE", value_delimiter = ',', value_parser = modes())]
    #[arg(hide_possible_values = true)]
    mode: Vec<Mode>,

    /// Pack keys and values of all rows but the first: quantized:K8:V4, each 8 or 4 bits; without it, four
    /// rows show what such caches cost
    #[arg(long, value_name = "KIND", value_parser = kv_bits)]
    cache: Option<KvBits>,

    /// Answers of each row whose speed is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// A packed cache from its flag.
fn kv_bits(text: &str) -> Result<KvBits, String> {
    let known = |text: &str, letter: char| match text.strip_prefix(letter) {
        Some("8") => Some(8),
        Some("4") => Some(4),
        _ => None,
    };
    let bits = text.strip_prefix("quantized:").and_then(|bits| {
        let (keys, values) = bits.split_once(':')?;
        Some(KvBits {
            keys: known(keys, 'K')?,
            values: known(values, 'V')?,
        })
    });
    bits.ok_or_else(|| {
        "must be quantized:K8:V8, with 8 or 4 bits for keys and for values".to_owned()
    })
}

/// A row of the table: an entry of `"runs"` in the JSON line.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its answers.
    #[serde(flatten)]
    pub rounds: Rounds,
    /// 8 · bytes of all tensors ÷ number of weights.
    pub bits_per_weight: f64,
    /// Bytes that the cache needs for a position.
    pub kv_bytes_per_position: u64,
    /// On the text.
    pub quality: Quality,
    /// Where its answer leaves that of the first row.
    pub first_difference: Option<Difference>,
    /// What was compared.
    #[serde(skip)]
    pub variant: Variant,
}

/// On what the rows were measured, for the screen and the JSON line.
#[derive(Debug, Serialize)]
pub struct Measure {
    /// The name of the text.
    pub text: String,
    /// Tokens of the whole text.
    pub text_tokens: usize,
    /// Tokens of a window.
    pub window: usize,
    /// How many windows.
    pub windows: usize,
    /// Which of their tokens.
    pub scored: Scored,
    /// Tokens that were scored, of all windows.
    pub positions: usize,
    /// The id that was put in the place of each window's first token.
    pub bos: Option<u32>,
    /// The cache of all rows but the first, if it was asked for.
    pub cache: Option<String>,
}

/// Measures all rows and prints them; the chart goes to `plot`.
///
/// # Errors
/// If the model, the text, the prompt or the output fails.
pub fn run(args: &TableArgs, plot: Option<&Path>) -> Result<()> {
    plot.map(files::directory).transpose().context("plot")?;
    args.quality.check_modes()?;
    let session = Session::open(&args.model)?.with_roof();
    let checkpoint = &session.checkpoint;
    if let Some(flag) = args.quality.packing_flag() {
        ensure!(
            checkpoint.config.quantization.is_none(),
            "{} is quantized already, so {flag} cannot quantize it: take the model that it was made from",
            checkpoint.name
        );
    }
    let (request, tokenize_time) = session.request(&args.prompt, &args.sampling)?;
    let (cut, measure) = args.quality.windows(&session)?;
    let bench = Bench {
        session: &session,
        request: &request,
        tokenize_time,
        windows: &cut,
        rounds: args.quality.rounds,
    };
    bench.check_memory()?;
    let variants = variants(checkpoint, &args.quality.packings(), args.quality.cache);
    report::begin(&session, &measure)?;
    let rows = measure_all(&bench, &variants)?;
    report::finish(&bench, &rows)?;
    if let Some(path) = plot {
        report::plot(&bench, &measure, &rows, path)?;
    }
    if args.output.json {
        report::json(&bench, &measure, &rows, &args.model.model)?;
    }
    Ok(())
}

impl QualityArgs {
    /// A flag that asks for a packing.
    fn packing_flag(&self) -> Option<&'static str> {
        let flags = [
            ("--bits", self.bits.is_empty()),
            ("--group-size", self.group_size.is_empty()),
            ("--mode", self.mode.is_empty()),
        ];
        flags
            .iter()
            .find(|(_, empty)| !empty)
            .map(|(flag, _)| *flag)
    }

    /// Refuses widths that no row would have.
    fn check_modes(&self) -> Result<()> {
        let affine = self.mode.is_empty() || self.mode.contains(&Mode::Affine);
        ensure!(
            affine || self.bits.is_empty() && self.group_size.is_empty(),
            "--bits and --group-size are of affine codes: leave them away, or add affine to --mode"
        );
        Ok(())
    }

    fn packings(&self) -> Packings {
        fn chosen<T: Copy>(asked: &[T], all: &[T]) -> Vec<T> {
            if asked.is_empty() { all } else { asked }.to_vec()
        }
        let all = self.bits.is_empty() && self.group_size.is_empty();
        let modes = if all { &MODES[..] } else { &[Mode::Affine] };
        Packings {
            bits: chosen(&self.bits, &BITS),
            groups: chosen(&self.group_size, &GROUPS),
            modes: chosen(&self.mode, modes),
        }
    }

    /// The text, cut into windows.
    fn windows(&self, session: &Session) -> Result<(Vec<crate::quality::Window>, Measure)> {
        let config = &session.checkpoint.config;
        let size = self.window as usize;
        ensure!(
            size <= config.max_position_embeddings,
            "--window {size} is longer than the context of {}, which is {}",
            session.checkpoint.name,
            config.max_position_embeddings
        );
        let default = || TextChoice::for_model(&session.checkpoint.name);
        let text = self.text.clone().unwrap_or_else(default);
        let ids = text.ids(session)?;
        let begins = config.bos_token_id.filter(|bos| ids.first() == Some(bos));
        let cut = windows(&ids, size, self.windows as usize, self.score, begins)
            .with_context(|| format!("cutting {}", text.name()))?;
        let measure = Measure {
            text: text.name(),
            text_tokens: ids.len(),
            window: size,
            windows: cut.len(),
            scored: self.score,
            positions: cut.iter().map(|window| window.targets().len()).sum(),
            bos: begins.filter(|_| self.score == Scored::SecondHalf),
            cache: self.cache.map(|bits| bits.to_string()),
        };
        Ok((cut, measure))
    }
}

fn measure_all(bench: &Bench<'_>, variants: &[Variant]) -> Result<Vec<Row>> {
    let mut report = Report::stdout();
    let mut cells = report.rows(&report::HEAD)?;
    let (mut base, mut rows) = (None, Vec::new());
    for variant in variants {
        status(&format!("{}: on the text, then the prompt", variant.name));
        match measure(bench, variant, &mut base, &mut cells) {
            Ok(row) => rows.push(row),
            Err(error) => {
                cells.end()?; // an error stands on a line of its own
                return Err(error);
            }
        }
    }
    Ok(rows)
}

fn measure<'a>(
    bench: &Bench<'a>,
    variant: &'a Variant,
    base: &mut Option<Base>,
    cells: &mut Rows<'_, Stdout>,
) -> Result<Row> {
    cells.cell(&variant.name)?;
    let loaded = bench.load(variant)?;
    let parameters = bench.session.checkpoint.parameters().max(1);
    let bits_per_weight = 8.0 * loaded.weight_bytes as f64 / parameters as f64;
    report::size_cells(cells, variant, bits_per_weight, loaded.weight_bytes)?;
    let (base, quality) = match base {
        Some(base) => (&*base, bench.quality(&loaded, base)?),
        None => {
            let base = base.insert(bench.base(&loaded)?);
            (&*base, base.quality()?)
        }
    };
    report::quality_cells(cells, &quality)?;
    let (rounds, kv_bytes_per_position) = bench.answers(&loaded, base)?;
    report::speed_cell(cells, &rounds)?;
    Ok(Row {
        first_difference: base.difference(&rounds.run.tokens)?,
        rounds,
        bits_per_weight,
        kv_bytes_per_position,
        quality,
        variant: variant.clone(),
    })
}
