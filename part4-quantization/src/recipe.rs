//! Which module gets how many bits.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use console::numbers::plural;
use regex::Regex;
use shared::checkpoint::{Checkpoint, TensorInfo};
use shared::config::{GroupQuantization, Mode, Quantization};

/// A matrix that can be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its path, without `.weight`.
    pub path: String,
    /// Length of a row.
    pub columns: usize,
}

impl Module {
    /// Those of a checkpoint; a head that is tied to the embedding is not one of its own.
    pub fn all(checkpoint: &Checkpoint) -> Vec<Self> {
        let matrix = |(tensor, _): (&TensorInfo, u64)| {
            let path = tensor.name.strip_suffix(".weight")?.to_owned();
            let [_, columns] = tensor.shape[..] else {
                return None;
            };
            Some(Self { path, columns })
        };
        checkpoint.elements().filter_map(matrix).collect()
    }

    /// Which layer it belongs to; 0 outside of the layers, as in mlx-lm.
    fn layer(&self) -> usize {
        let number = self.path.split('.').nth(2);
        number.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// mlx-lm's recipes of two widths: more bits where an error does most harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(non_camel_case_types)] // the names are those of mlx-lm
pub enum Mixed {
    /// 2 bits, and 6.
    #[value(name = "mixed_2_6")]
    Mixed_2_6,
    /// 3 bits, and 4.
    #[value(name = "mixed_3_4")]
    Mixed_3_4,
    /// 3 bits, and 6.
    #[value(name = "mixed_3_6")]
    Mixed_3_6,
    /// 4 bits, and 6.
    #[value(name = "mixed_4_6")]
    Mixed_4_6,
}

impl Mixed {
    fn low_and_high(self) -> (usize, usize) {
        match self {
            Self::Mixed_2_6 => (2, 6),
            Self::Mixed_3_4 => (3, 4),
            Self::Mixed_3_6 => (3, 6),
            Self::Mixed_4_6 => (4, 6),
        }
    }

    /// More bits for `v_proj` and `down_proj` of the first eighth of the layers, of the last, and of every third
    /// between, and for a head of its own; an idea of llama.cpp's Q4_K_M. An embedding that serves as the head
    /// gets few bits: `--override embed_tokens=6` is worth a try.
    fn bits(self, module: &Module, layers: usize) -> usize {
        let (low, high) = self.low_and_high();
        let (layer, eighth) = (module.layer(), layers / 8);
        let sensitive = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
        let is = |name: &str| module.path.contains(name);
        if (is("v_proj") || is("down_proj")) && sensitive || is("lm_head") {
            high
        } else {
            low
        }
    }
}

/// What the modules get whose path matches a pattern: `PATTERN=BITS`, `PATTERN=BITS:GROUP`, `PATTERN=MODE`,
/// `PATTERN=none`.
#[derive(Debug, Clone)]
pub struct Override {
    text: String,
    pattern: Regex,
    packing: Packing,
}

#[derive(Debug, Clone, Copy)]
enum Packing {
    /// None: it stays as it is.
    Dense,
    /// Bits of affine codes and, if it is another one, the group size.
    Affine(usize, Option<usize>),
    /// A float mode.
    Floats(GroupQuantization),
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "must be PATTERN=BITS, PATTERN=BITS:GROUP, PATTERN=MODE or \
            PATTERN=none, as in 'down_proj=6', 'layers\\.[01]\\.=8:32' or 'mlp=mxfp4'";
        let (pattern, packing) = text.rsplit_once('=').ok_or(EXPECTED)?;
        let number = |text: &str| text.parse::<usize>().map_err(|_| EXPECTED.to_owned());
        let floats = Mode::from_name(packing).and_then(Mode::only_packing);
        let packing = match (floats, packing.split_once(':')) {
            (Some(floats), _) => Packing::Floats(floats),
            _ if packing == "none" => Packing::Dense,
            (None, Some((bits, group))) => Packing::Affine(number(bits)?, Some(number(group)?)),
            (None, None) => Packing::Affine(number(packing)?, None),
        };
        if let Packing::Affine(bits, group_size) = packing {
            supported(bits, group_size.unwrap_or(64))?;
        }
        let pattern = Regex::new(pattern).map_err(|error| {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            format!("{pattern:?} is no regular expression: {reason}")
        })?;
        Ok(Self {
            text: text.to_owned(),
            pattern,
            packing,
        })
    }
}

/// Whether MLX has such groups.
fn supported(bits: usize, group_size: usize) -> Result<(), String> {
    let group = GroupQuantization::affine(group_size, bits);
    if group.is_supported() {
        return Ok(());
    }
    Err(format!(
        "{bits} bits in groups of {group_size}: MLX has 2, 3, 4, 5, 6 or 8 bits and groups of 32, 64 or 128"
    ))
}

/// What the flags ask for.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// For modules of which nothing else is said.
    pub default: GroupQuantization,
    /// Two widths instead of one.
    pub mixed: Option<Mixed>,
    /// The last one that matches decides.
    pub overrides: Vec<Override>,
}

/// A recipe for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Module by module, as it stands in `config.json`.
    pub quantization: Quantization,
    /// Modules that stay dense because MLX has no group that divides their rows.
    pub indivisible: Vec<String>,
}

impl Recipe {
    /// Every module the same.
    pub fn uniform(default: GroupQuantization) -> Self {
        Self {
            default,
            mixed: None,
            overrides: Vec::new(),
        }
    }

    /// What each module of a model with so many layers gets.
    ///
    /// # Errors
    /// If an override matches no module, or if a group does not divide rows that another one would divide.
    pub fn plan(&self, modules: &[Module], layers: usize) -> Result<Plan> {
        for rule in &self.overrides {
            ensure!(
                modules
                    .iter()
                    .any(|module| rule.pattern.is_match(&module.path)),
                "--override {} matches none of the {} {}; the first is {}",
                rule.text,
                modules.len(),
                plural(modules.len(), "module"),
                modules.first().map_or("none", |module| &module.path)
            );
        }
        let (mut overrides, mut indivisible, mut wrong) = (BTreeMap::new(), vec![], vec![]);
        for module in modules {
            let (mut group, named) = self.group(module, layers);
            if let Some(asked) = group
                && !module.columns.is_multiple_of(asked.group_size)
            {
                if module.columns.is_multiple_of(32) {
                    wrong.push((module, asked.group_size));
                } else {
                    indivisible.push(module.path.clone());
                    group = None;
                }
            }
            if named || group.is_none() {
                overrides.insert(module.path.clone(), group);
            }
        }
        check_groups(&wrong)?;
        ensure!(
            indivisible.len() < modules.len(),
            "no group of MLX divides the rows of any module: nothing would be quantized"
        );
        let default = self.default;
        Ok(Plan {
            quantization: Quantization { default, overrides },
            indivisible,
        })
    }

    /// What one module gets, and whether that is said of it by name.
    fn group(&self, module: &Module, layers: usize) -> (Option<GroupQuantization>, bool) {
        let mixed = self.mixed.map(|mixed| mixed.bits(module, layers));
        let base = GroupQuantization {
            bits: mixed.unwrap_or(self.default.bits),
            ..self.default
        };
        let matching = |rule: &&Override| rule.pattern.is_match(&module.path);
        let Some(rule) = self.overrides.iter().rev().find(matching) else {
            return (Some(base), mixed.is_some());
        };
        let usual = match base.mode {
            Mode::Affine => base.group_size,
            _ => 64, // those of a float mode are its own
        };
        let group = match rule.packing {
            Packing::Dense => None,
            Packing::Affine(bits, group_size) => {
                let group_size = group_size.unwrap_or(usual);
                Some(GroupQuantization::affine(group_size, bits))
            }
            Packing::Floats(group) => Some(group),
        };
        (group, true)
    }
}

fn check_groups(wrong: &[(&Module, usize)]) -> Result<()> {
    let Some((module, group_size)) = wrong.first() else {
        return Ok(());
    };
    let more = match wrong.len() - 1 {
        0 => String::new(),
        others => format!(" (and of {others} more)"),
    };
    let fits = [64, 32]
        .into_iter()
        .find(|size| module.columns.is_multiple_of(*size));
    anyhow::bail!(
        "groups of {group_size} do not divide the rows of {}{more}, which have {} weights: take --group-size \
         {}, or name such modules in an --override 'PATTERN=BITS:GROUP' or 'PATTERN=none'",
        module.path,
        module.columns,
        fits.unwrap_or(32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, columns: usize) -> Module {
        Module {
            path: path.to_owned(),
            columns,
        }
    }

    fn recipe(overrides: &[&str]) -> Recipe {
        let overrides = overrides.iter().map(|text| text.parse().unwrap());
        Recipe {
            overrides: overrides.collect(),
            ..Recipe::uniform(GroupQuantization::affine(64, 4))
        }
    }

    #[test]
    fn the_last_override_that_matches_decides() {
        let paths = [
            "model.layers.0.mlp.down_proj",
            "model.layers.1.mlp.down_proj",
            "lm_head",
        ];
        let modules = paths.map(|path| module(path, 128));
        let recipe = recipe(&["down_proj=6", r"layers\.1\.=8:32", "^lm_head$=none"]);
        let plan = recipe.plan(&modules, 2).unwrap();
        let said = paths.map(|path| plan.quantization.of(path).map(|g| (g.bits, g.group_size)));
        assert_eq!(said, [Some((6, 64)), Some((8, 32)), None]);
        assert_eq!(plan.quantization.overrides.len(), 3);
    }

    #[test]
    fn an_override_may_name_a_float_mode_and_be_one_beside_it() {
        let modules = ["a", "b", "c"].map(|path| module(path, 128));
        let mut recipe = recipe(&["a=nvfp4", "c=8"]);
        recipe.default = Mode::Mxfp4.only_packing().unwrap();
        let plan = recipe.plan(&modules, 1).unwrap();
        let said = ["a", "b", "c"].map(|path| plan.quantization.of(path));
        let [nvfp4, mxfp4] = [Mode::Nvfp4, Mode::Mxfp4].map(Mode::only_packing);
        assert_eq!(said, [nvfp4, mxfp4, Some(GroupQuantization::affine(64, 8))]);
    }

    #[test]
    fn an_override_that_matches_nothing_is_told() {
        let error = recipe(&["experts=6"]).plan(&[module("lm_head", 64)], 1);
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("--override experts=6 matches none of the 1 module"),
            "{error}"
        );
    }

    #[test]
    fn overrides_that_cannot_be_are_refused() {
        for text in [
            "down_proj",
            "down_proj=",
            "x=7",
            "x=4:48",
            "x=4:",
            "(=4",
            "x=all",
        ] {
            assert!(text.parse::<Override>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_group_that_does_not_divide_is_an_error_and_rows_that_none_divides_stay_dense() {
        let modules = [module("a", 576), module("b", 1536), module("c", 50)];
        let error = Recipe::uniform(GroupQuantization::affine(128, 4))
            .plan(&modules, 1)
            .unwrap_err();
        assert!(
            error.to_string().contains("take --group-size 64"),
            "{error}"
        );
        let plan = Recipe::uniform(GroupQuantization::affine(64, 4))
            .plan(&modules, 1)
            .unwrap();
        assert_eq!(plan.indivisible, ["c"]);
        assert_eq!(plan.quantization.of("c"), None);
        assert!(
            Recipe::uniform(GroupQuantization::affine(64, 4))
                .plan(&modules[2..], 1)
                .is_err()
        );
    }
}
