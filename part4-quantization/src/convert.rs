//! The command `convert`: a checkpoint in, a quantized one out, in the layout of mlx-lm.
//!
//! A few rows at a time: read, packed and written, so that a model of any size needs little memory. The new
//! directory has its name only when all of it is on the disk.

mod blocks;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use console::cli::ModelArgs;
use console::files::NewDirectory;
use console::numbers::{count, decimal, fixed, plural};
use console::progress;
use console::report::{Report, warn};
use shared::checkpoint::{Checkpoint, RowReader};
use shared::config::{GroupQuantization, Mode, Quantization};
use shared::session::open_checkpoint;

use crate::floats::Fit;
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
    /// Bits of a weight: 2, 3, 4, 5, 6 or 8 [default: 4, or those of the mode]
    #[arg(long, value_name = "N", value_parser = bits)]
    bits: Option<usize>,

    /// Neighbours in a row that share a scale and a bias: 32, 64 or 128 [default: 64, or those of the mode]
    #[arg(long, value_name = "G", value_parser = group_size)]
    group_size: Option<usize>,

    /// What a code stands for
    #[arg(long, default_value = "affine", value_parser = modes())]
    mode: Mode,

    /// How the scales of a float mode are chosen
    #[arg(long, value_enum, default_value_t)]
    fit: Fit,

    /// Two widths, by a recipe of mlx-lm
    #[arg(long, value_name = "RECIPE", value_enum, conflicts_with = "bits")]
    mixed: Option<Mixed>,

    /// Another packing for modules whose path matches a regular expression: 'PATTERN=BITS',
    /// 'PATTERN=BITS:GROUP', 'PATTERN=MODE' or 'PATTERN=none'; may be given again, the last that matches decides
    #[arg(long = "override", value_name = "RULE")]
    overrides: Vec<Override>,

    /// Round affine codes as MLX does on a CPU or on a GPU, where mlx-lm on a Mac converts [default: cpu]
    #[arg(long, value_name = "cpu|gpu", value_parser = rounding)]
    rounding: Option<Rounding>,

    /// Count the codes that the other rounding would change
    #[arg(long)]
    compare_rounding: bool,

    /// Of a GGUF file: pack again what MLX has no matrices of, such as Q6_K, in as many bits, or as the flags
    /// above say; without it that becomes numbers. Other codes are taken over as they are
    #[arg(long)]
    requantize: bool,
}

impl RecipeArgs {
    /// Whether anything is said of how to pack.
    fn chooses(&self) -> bool {
        self.bits.is_some()
            || self.group_size.is_some()
            || self.mode != Mode::Affine
            || self.fit != Fit::Mlx
            || self.mixed.is_some()
            || !self.overrides.is_empty()
            || self.rounding.is_some()
            || self.compare_rounding
    }

    /// In groups of `usual`, if nothing is said of them.
    fn recipe(&self, usual: usize) -> Result<Recipe> {
        Ok(Recipe {
            mixed: self.mixed,
            overrides: self.overrides.clone(),
            ..Recipe::uniform(self.packing(usual)?)
        })
    }

    /// What a module gets of which nothing else is said.
    fn packing(&self, usual: usize) -> Result<GroupQuantization> {
        let mode = self.mode.name();
        let Some(only) = self.mode.only_packing() else {
            let (group_size, bits) = (self.group_size.unwrap_or(usual), self.bits.unwrap_or(4));
            return Ok(GroupQuantization::affine(group_size, bits));
        };
        let other = |asked: Option<usize>, only| asked.is_some_and(|asked| asked != only);
        ensure!(
            !other(self.bits, only.bits) && !other(self.group_size, only.group_size),
            "--mode {mode} has {} bits in groups of {}: leave --bits and --group-size away",
            only.bits,
            only.group_size
        );
        ensure!(
            self.mixed.is_none(),
            "--mixed has two widths of affine codes: leave --mode {mode} away, or name modules in an --override"
        );
        Ok(only)
    }

    /// Refuses flags that nothing of the plan would listen to.
    fn check_used(&self, plan: &Plan) -> Result<()> {
        let Quantization { default, overrides } = &plan.quantization;
        let mut groups = overrides
            .values()
            .copied()
            .chain([Some(*default)])
            .flatten();
        let floats = groups.any(|group| group.mode != Mode::Affine);
        ensure!(
            self.fit == Fit::Mlx || floats,
            "--fit chooses the scales of a float mode, and there are only affine codes: take --mode mxfp4, \
             mxfp8 or nvfp4"
        );
        ensure!(
            self.mode == Mode::Affine || (self.rounding.is_none() && !self.compare_rounding),
            "--rounding is of affine codes: those of {} are packed by MLX on this machine",
            self.mode.name()
        );
        Ok(())
    }
}

/// Of `--mode`.
pub(crate) fn modes() -> impl TypedValueParser<Value = Mode> {
    let help = |mode| match mode {
        Mode::Affine => "Steps of one width: a scale and a bias for each group",
        Mode::Mxfp4 => "Floats of 4 bits, and a power of two for each 32",
        Mode::Mxfp8 => "Floats of 8 bits, and a power of two for each 32",
        Mode::Nvfp4 => "Floats of 4 bits, and a float of 8 bits for each 16",
    };
    let value = move |mode: Mode| PossibleValue::new(mode.name()).help(help(mode));
    PossibleValuesParser::new(Mode::ALL.map(value))
        .try_map(|name| Mode::from_name(&name).ok_or("there is no such mode"))
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
    args.recipe.check_used(&plan)?;
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
        rounding: args.recipe.rounding.unwrap_or_default(),
        fit: args.recipe.fit,
        compare_rounding: args.recipe.compare_rounding,
        card: card(
            &args.model.model,
            &modules,
            &remarks(&checkpoint, &plan, args),
        ),
    };
    let (from, to) = (&checkpoint.name, args.out.display());
    let done = progress::step(&format!("converting {from}"), |step| {
        step.says(format!("converted {from} to {to}"));
        let bar = step.pieces(checkpoint.parameters(), BAR);
        conversion.write(&args.out, &|weights| bar.inc(weights))
    });
    let done = done.with_context(|| format!("converting {from} to {to}"))?;
    report(&checkpoint, args, &plan, &modules, &done)
}

const BAR: &str = "{spinner} {prefix} {bar:30} {percent:>3} %";

/// Codes of codes would be noise.
fn refuse_quantized(checkpoint: &Checkpoint) -> Result<()> {
    let packed = checkpoint.packed_tensor();
    let Some(tensor) = packed.filter(|tensor| Checkpoint::blocks(tensor).is_none()) else {
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
    if blocks::has_some(checkpoint) {
        return blocks::plan(checkpoint, args);
    }
    ensure!(
        !args.requantize,
        "--requantize is for the blocks of a GGUF file, and {} has none: leave it away",
        checkpoint.name
    );
    let layers = checkpoint.config.num_hidden_layers;
    args.recipe(64)?.plan(&Module::all(checkpoint), layers)
}

/// What the card says beside the modules: sentences, each after a space.
fn remarks(checkpoint: &Checkpoint, plan: &Plan, args: &ConvertArgs) -> String {
    let mut text = String::new();
    if blocks::has_some(checkpoint) {
        let origins = blocks::origins(checkpoint, &plan.quantization);
        text.push_str(&format!(" From the blocks of a GGUF file: {origins}."));
    }
    if args.recipe.fit == Fit::Best {
        text.push_str(" The scales of float modes are those with the smallest error.");
    }
    text
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
            Some(group) => group.to_string(),
            None => "dense".to_owned(),
        };
        format!("{what} ({n} {})", plural(n, "module"))
    };
    counts.into_iter().map(line).collect::<Vec<_>>().join(", ")
}

/// `README.md` of the new checkpoint. The metadata is that of mlx-lm's conversions; a path of this machine
/// does not belong into it.
fn card(model: &str, modules: &str, remarks: &str) -> String {
    let from_hub = model.contains('/') && !Path::new(model).exists();
    let base = if from_hub {
        format!("base_model: {model}\n")
    } else {
        String::new()
    };
    format!(
        "---\nlanguage: en\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n{base}---\n\n\
         Quantized for MLX: {modules}.{remarks}\n"
    )
}

fn report(
    checkpoint: &Checkpoint,
    args: &ConvertArgs,
    plan: &Plan,
    modules: &str,
    done: &Done,
) -> Result<()> {
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
        ("modules", modules.to_owned()),
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
    if blocks::has_some(checkpoint) {
        rows.insert(
            1,
            ("blocks", blocks::origins(checkpoint, &plan.quantization)),
        );
    }
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
