//! The command `convert`: a checkpoint in, a quantized one out, in the layout of mlx-lm.
//!
//! A few rows at a time: read, packed and written, so that a model of any size needs little memory. The new
//! directory has its name only when all of it is on the disk.

mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use console::cli::ModelArgs;
use console::files::NewDirectory;
use console::numbers::{count, decimal, fixed, plural};
use console::progress;
use console::report::{Report, warn};
use shared::checkpoint::{Checkpoint, RowReader};
use shared::config::GroupQuantization;
use shared::session::open_checkpoint;

use crate::quantize::Rounding;
use crate::recipe::{Mixed, Module, Override, Plan, Recipe};
use written::{Conversion, Done};

/// What a conversion takes.
#[derive(Debug, clap::Args)]
#[command(mut_arg("dtype", |arg| arg.help("Type of the scales, the biases and what stays dense")))]
pub struct ConvertArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// The directory to make; it must not be there
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: PathBuf,

    #[command(flatten)]
    recipe: RecipeArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Quantization")]
struct RecipeArgs {
    /// Bits of a weight: 2, 3, 4, 5, 6 or 8
    #[arg(long, value_name = "N", default_value = "4", value_parser = bits)]
    bits: usize,

    /// Neighbours in a row that share a scale and a bias: 32, 64 or 128
    #[arg(long, value_name = "G", default_value = "64", value_parser = group_size)]
    group_size: usize,

    /// How a weight becomes a code
    #[arg(long, value_enum, default_value = "affine")]
    mode: Mode,

    /// Two widths, by a recipe of mlx-lm
    #[arg(long, value_name = "RECIPE", value_enum, conflicts_with = "bits")]
    mixed: Option<Mixed>,

    /// Other bits for modules whose path matches a regular expression: 'PATTERN=BITS',
    /// 'PATTERN=BITS:GROUP' or 'PATTERN=none'; may be given again, the last that matches decides
    #[arg(long = "override", value_name = "RULE")]
    overrides: Vec<Override>,

    /// Round as MLX does on a CPU or on a GPU, where mlx-lm on a Mac converts
    #[arg(long, value_name = "cpu|gpu", default_value = "cpu", value_parser = rounding)]
    rounding: Rounding,

    /// Count the codes that the other rounding would change
    #[arg(long)]
    compare_rounding: bool,
}

/// A way to store weights in few bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// A scale and a bias for each group.
    Affine,
}

/// The groups that MLX has kernels for.
pub(crate) const GROUP_SIZES: [usize; 3] = [32, 64, 128];

/// Of `--bits`.
pub(crate) fn bits(text: &str) -> Result<usize, String> {
    one_of(text, &[2, 3, 4, 5, 6, 8])
}

/// Of `--group-size`.
pub(crate) fn group_size(text: &str) -> Result<usize, String> {
    one_of(text, &GROUP_SIZES)
}

fn one_of(text: &str, all: &[usize]) -> Result<usize, String> {
    let value = text.parse().ok().filter(|value| all.contains(value));
    value.ok_or_else(|| format!("must be one of {all:?}"))
}

fn rounding(text: &str) -> Result<Rounding, String> {
    match text {
        "cpu" => Ok(Rounding::Cpu),
        "gpu" => Ok(Rounding::Gpu),
        _ => Err("must be cpu or gpu".to_owned()),
    }
}

/// Converts and reports.
///
/// # Errors
/// If the model cannot be read or is quantized already, if the recipe does not fit it, or if the directory
/// cannot be written: then nothing of it is there.
pub fn run(args: &ConvertArgs) -> Result<()> {
    NewDirectory::check(&args.out)?;
    let checkpoint = open_checkpoint(&args.model)?;
    checkpoint.config.require_llama()?;
    refuse_quantized(&checkpoint)?;
    checkpoint.check_shapes()?;
    let plan = plan(&checkpoint, &args.recipe)?;
    for module in &plan.indivisible {
        warn(&format!(
            "{module} stays dense: no group of MLX divides its rows"
        ));
    }
    let modules = modules(&checkpoint, &plan);
    let conversion = Conversion {
        checkpoint: &checkpoint,
        reader: RowReader::open(&checkpoint)?,
        quantization: &plan.quantization,
        rounding: args.recipe.rounding,
        compare_rounding: args.recipe.compare_rounding,
        card: card(&args.model.model, &modules),
    };
    let (from, to) = (&checkpoint.name, args.out.display());
    let done = progress::step(&format!("converting {from}"), |step| {
        step.says(format!("converted {from} to {to}"));
        let bar = step.pieces(checkpoint.parameters(), BAR);
        conversion.write(&args.out, &|weights| bar.inc(weights))
    });
    let done = done.with_context(|| format!("converting {from} to {to}"))?;
    report(&checkpoint, args, &modules, &done)
}

const BAR: &str = "{spinner} {prefix} {bar:30} {percent:>3} %";

/// Codes of codes would be noise.
fn refuse_quantized(checkpoint: &Checkpoint) -> Result<()> {
    let Some(tensor) = checkpoint.packed_tensor() else {
        return Ok(());
    };
    bail!(
        "{} is quantized already ({} is stored as {}): convert the original, in F32, F16 or BF16",
        checkpoint.name,
        tensor.name,
        tensor.dtype
    )
}

fn plan(checkpoint: &Checkpoint, args: &RecipeArgs) -> Result<Plan> {
    let recipe = Recipe {
        mixed: args.mixed,
        overrides: args.overrides.clone(),
        ..Recipe::uniform(args.group_size, args.bits)
    };
    let layers = checkpoint.config.num_hidden_layers;
    recipe.plan(&Module::all(checkpoint), layers)
}

/// How many modules get which bits: `4 bits in groups of 64 (57 modules)`.
fn modules(checkpoint: &Checkpoint, plan: &Plan) -> String {
    let mut counts: BTreeMap<Option<GroupQuantization>, usize> = BTreeMap::new();
    for module in Module::all(checkpoint) {
        *counts
            .entry(plan.quantization.of(&module.path))
            .or_default() += 1;
    }
    let line = |(group, n): (Option<GroupQuantization>, usize)| {
        let what = match group {
            Some(group) => format!("{} bits in groups of {}", group.bits, group.group_size),
            None => "dense".to_owned(),
        };
        format!("{what} ({n} {})", plural(n, "module"))
    };
    counts.into_iter().map(line).collect::<Vec<_>>().join(", ")
}

/// `README.md` of the new checkpoint. The metadata is that of mlx-lm's conversions; a path of this machine
/// does not belong into it.
fn card(model: &str, modules: &str) -> String {
    let from_hub = model.contains('/') && !Path::new(model).exists();
    let base = if from_hub {
        format!("base_model: {model}\n")
    } else {
        String::new()
    };
    format!(
        "---\nlanguage: en\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n{base}---\n\n\
         Quantized for MLX, affine: {modules}.\n"
    )
}

fn report(checkpoint: &Checkpoint, args: &ConvertArgs, modules: &str, done: &Done) -> Result<()> {
    let parameters = checkpoint.parameters();
    let bits = 8.0 * done.bytes as f64 / parameters.max(1) as f64;
    let mut rows = vec![
        (
            "model",
            format!(
                "{}: {} parameters, {}",
                checkpoint.name,
                count(parameters),
                decimal(checkpoint.weight_bytes())
            ),
        ),
        ("affine", modules.to_owned()),
        (
            "result",
            format!(
                "{}: {}, {} bits per weight",
                args.out.display(),
                decimal(done.bytes),
                fixed(bits, 3)
            ),
        ),
    ];
    if args.recipe.compare_rounding {
        let share = 100.0 * done.differing as f64 / done.packed.max(1) as f64;
        rows.push((
            "rounding",
            format!(
                "{} of {} codes ({} %) differ between MLX's rounding on a CPU and on a GPU",
                count(done.differing),
                count(done.packed),
                fixed(share, 2)
            ),
        ));
    }
    Ok(Report::stdout().card(&rows)?)
}
