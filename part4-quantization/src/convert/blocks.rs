//! A GGUF file of blocks: codes that MLX has, too, are taken over as they are. The others become numbers, or are
//! packed again if that is asked for.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use console::cli::FloatType;
use shared::checkpoint::{Blocks, Checkpoint, TensorInfo};
use shared::config::{GroupQuantization, Mode, Quantization};

use super::RecipeArgs;
use crate::recipe::{Module, Plan};

/// Numbers that share a scale in most types of blocks.
const GROUP: usize = 32;

/// Whether a checkpoint has blocks.
pub(super) fn has_some(checkpoint: &Checkpoint) -> bool {
    blocks(checkpoint).next().is_some()
}

/// The matrices of blocks, by their modules.
fn blocks(checkpoint: &Checkpoint) -> impl Iterator<Item = (&str, &TensorInfo, Blocks)> {
    checkpoint.elements().filter_map(|(tensor, _)| {
        let module = tensor.name.strip_suffix(".weight")?;
        Some((module, tensor, Checkpoint::blocks(tensor)?))
    })
}

/// What each module gets.
///
/// # Errors
/// If flags ask for something that only packing again would give, or if no code is left.
pub(super) fn plan(checkpoint: &Checkpoint, args: &RecipeArgs) -> Result<Plan> {
    let name = &checkpoint.name;
    ensure!(
        args.requantize || !args.chooses(),
        "{name} is packed already, and its codes are taken over as they are: leave the flags of quantization \
         away, or take --requantize, and they are for what MLX has no matrices of"
    );
    let mut groups: HashMap<&str, Option<GroupQuantization>> = HashMap::new();
    for (module, _, blocks) in blocks(checkpoint) {
        groups.insert(module, blocks.group);
    }
    if args.requantize {
        groups.extend(again(checkpoint, args)?);
    }
    let mut counts: BTreeMap<GroupQuantization, usize> = BTreeMap::new();
    for group in groups.values().flatten() {
        *counts.entry(*group).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    let (default, _) = most.with_context(|| {
        format!("{name} has only types that MLX has no matrices of: take --requantize")
    })?;
    let group = |module: &Module| groups.get(module.path.as_str()).copied().flatten();
    let modules = Module::all(checkpoint).into_iter();
    let others = modules.filter(|module| group(module) != Some(default));
    Ok(Plan {
        quantization: Quantization {
            default,
            overrides: others
                .map(|module| (module.path.clone(), group(&module)))
                .collect(),
        },
        indivisible: Vec::new(),
    })
}

/// Modules whose blocks MLX has no matrices of, and what they get instead: as many bits as they had, in groups
/// of 32, or what the flags say.
fn again<'c>(
    checkpoint: &'c Checkpoint,
    args: &RecipeArgs,
) -> Result<Vec<(&'c str, Option<GroupQuantization>)>> {
    let others: Vec<_> = blocks(checkpoint)
        .filter(|(_, _, blocks)| blocks.group.is_none())
        .collect();
    ensure!(
        !others.is_empty(),
        "--requantize packs again what MLX has no matrices of, and {} has nothing of that: leave it away",
        checkpoint.name
    );
    let is_other = |module: &Module| others.iter().any(|(other, ..)| *other == module.path);
    let mut modules = Module::all(checkpoint);
    modules.retain(is_other);
    let recipe = args.recipe(GROUP)?;
    let plan = recipe.plan(&modules, checkpoint.config.num_hidden_layers)?;
    let as_many = args.bits.is_none() && args.mode == Mode::Affine && args.mixed.is_none();
    let wanted = |(module, _, blocks): &(&'c str, _, Blocks)| {
        let Quantization { default, overrides } = &plan.quantization;
        let unnamed = GroupQuantization {
            bits: if as_many { blocks.bits } else { default.bits },
            ..*default
        };
        (
            *module,
            overrides.get(*module).copied().unwrap_or(Some(unnamed)),
        )
    };
    Ok(others.iter().map(wanted).collect())
}

/// Whether the codes of a tensor are taken over.
pub(super) fn are_kept(tensor: &TensorInfo, group: Option<GroupQuantization>) -> bool {
    let blocks = Checkpoint::blocks(tensor);
    blocks.is_some_and(|blocks| blocks.group.is_some() && blocks.group == group)
}

/// What became of each type, for the card.
pub(super) fn origins(checkpoint: &Checkpoint, quantization: &Quantization) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (module, tensor, blocks) in blocks(checkpoint) {
        let group = quantization.of(module);
        let kind = &tensor.dtype;
        let what = match (group, checkpoint.dtype) {
            _ if are_kept(tensor, group) => kept(kind, blocks, checkpoint.dtype),
            (Some(group), _) => format!("{kind} packed again, to {group}"),
            (None, dtype) => format!(
                "{kind} unpacked to {}",
                name(dtype.unwrap_or(FloatType::F16))
            ),
        };
        *counts.entry(what).or_default() += 1;
    }
    let line = |(what, count): (String, usize)| format!("{what} ({count})");
    counts.into_iter().map(line).collect::<Vec<_>>().join("; ")
}

fn kept(kind: &str, blocks: Blocks, dtype: Option<FloatType>) -> String {
    match (dtype, blocks.exact_in_f16) {
        (None, true) => format!("{kind} code by code, scales in F16"),
        (None | Some(FloatType::F32), _) => format!("{kind} code by code, scales in F32"),
        (Some(FloatType::F16), true) => format!("{kind} code by code, scales in F16"),
        (Some(dtype), _) => format!("{kind} code by code, scales rounded to {}", name(dtype)),
    }
}

fn name(float: FloatType) -> &'static str {
    match float {
        FloatType::F32 => "F32",
        FloatType::F16 => "F16",
        FloatType::Bf16 => "BF16",
    }
}
