//! How MLX quantized a checkpoint, module by module.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::foreign::{self, Foreign};
use super::keys::Keys;

/// What the codes of a packed matrix stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Steps of one width: `scale · code + bias`, with a scale and a bias for each group.
    Affine,
    /// Floats of 4 bits (E2M1) times a power of two (E8M0) for each 32: OCP's microscaling format.
    Mxfp4,
    /// Floats of 8 bits (E4M3) times a power of two for each 32.
    Mxfp8,
    /// Floats of 4 bits times a float of 8 bits (E4M3) for each 16, and at will times one float for all.
    Nvfp4,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Affine, Self::Mxfp4, Self::Mxfp8, Self::Nvfp4];

    /// MLX's name, which stands in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }

    /// The mode of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The one group size and number of bits that a float mode has; None for affine, which has many.
    pub fn only_packing(self) -> Option<GroupQuantization> {
        let (group_size, bits) = match self {
            Self::Affine => return None,
            Self::Mxfp4 => (32, 4),
            Self::Mxfp8 => (32, 8),
            Self::Nvfp4 => (16, 4),
        };
        Some(GroupQuantization {
            group_size,
            bits,
            mode: self,
        })
    }
}

/// Parameters of MLX's quantization of one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupQuantization {
    /// G, how many neighbours in a row share a scale (and in affine mode a bias).
    pub group_size: usize,
    /// Bits of one weight.
    pub bits: usize,
    /// What the bits stand for.
    pub mode: Mode,
}

impl GroupQuantization {
    /// Affine codes, the mode of most checkpoints.
    pub const fn affine(group_size: usize, bits: usize) -> Self {
        Self {
            group_size,
            bits,
            mode: Mode::Affine,
        }
    }

    /// Whether MLX has kernels for it.
    pub fn is_supported(self) -> bool {
        match self.mode.only_packing() {
            Some(only) => self == only,
            None => {
                [32, 64, 128].contains(&self.group_size) && [2, 3, 4, 5, 6, 8].contains(&self.bits)
            }
        }
    }

    /// How a row of `inputs` weights was packed into `words` of 32 bits with `groups` scales; `None` if
    /// MLX cannot have done that. Scales of one byte are those of a float mode, which the two sizes then
    /// tell from each other.
    pub(crate) fn of_row(
        inputs: usize,
        words: usize,
        groups: usize,
        byte_scales: bool,
    ) -> Option<Self> {
        let group_size = inputs.checked_div(groups)?;
        let bits = words.checked_mul(32)?.checked_div(inputs)?;
        let packing = |mode| Self {
            group_size,
            bits,
            mode,
        };
        let mut modes = Mode::ALL.into_iter().map(packing);
        let found = modes
            .find(|found| byte_scales != (found.mode == Mode::Affine) && found.is_supported())?;
        let fits = found.group_size * groups == inputs && found.bits * inputs == 32 * words;
        fits.then_some(found)
    }
}

impl Display for GroupQuantization {
    /// `4 bits in groups of 64`, after the mode where that is not affine.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mode != Mode::Affine {
            write!(f, "{}: ", self.mode.name())?;
        }
        write!(f, "{} bits in groups of {}", self.bits, self.group_size)
    }
}

/// How a checkpoint is quantized, module by module.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantization {
    /// For modules without an entry in `overrides`.
    pub default: GroupQuantization,
    /// By module path (`model.layers.0.mlp.down_proj`); `None`: this module is not quantized.
    pub overrides: BTreeMap<String, Option<GroupQuantization>>,
}

impl Quantization {
    /// What the config says of `module`; `None`: it is not quantized.
    pub fn of(&self, module: &str) -> Option<GroupQuantization> {
        self.overrides
            .get(module)
            .copied()
            .unwrap_or(Some(self.default))
    }
}

impl Quantization {
    /// The value of `quantization` in `config.json`, in the order in which mlx-lm writes it.
    pub fn to_json(&self) -> Value {
        let mut object = group_json(self.default);
        for (module, group) in &self.overrides {
            let value = group.map_or(Value::Bool(false), |group| group_json(group).into());
            object.insert(module.clone(), value);
        }
        object.into()
    }
}

fn group_json(group: GroupQuantization) -> Map<String, Value> {
    let entries = [
        ("group_size", group.group_size.into()),
        ("bits", group.bits.into()),
        ("mode", group.mode.name().into()),
    ];
    entries
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

/// `quantization` is MLX's own key. `quantization_config` repeats it in MLX checkpoints, and
/// belongs to another method (AWQ, GPTQ, FP8, …) in all others.
pub(super) fn read(keys: &Keys) -> Result<(Option<Quantization>, Option<Foreign>)> {
    if let Some(object) = keys.object("quantization")? {
        let keys = Keys {
            file: "quantization of config.json",
            object,
        };
        let own = Quantization {
            default: group(&keys)?,
            overrides: overrides(&keys)?,
        };
        return Ok((Some(own), None));
    }
    let Some(object) = keys.object("quantization_config")? else {
        return Ok((None, None));
    };
    let keys = Keys {
        file: "quantization_config of config.json",
        object,
    };
    let (quantization, foreign) = foreign::read(&keys)?;
    Ok((Some(quantization), foreign))
}

fn overrides(keys: &Keys) -> Result<BTreeMap<String, Option<GroupQuantization>>> {
    let default = group(keys)?;
    let mut found = BTreeMap::new();
    for (module, value) in keys.object {
        let quantization = match value {
            Value::Bool(false) => None,
            Value::Bool(true) => Some(default),
            Value::Object(object) => {
                let file = "quantization of config.json";
                let keys = Keys { file, object };
                Some(group(&keys).with_context(|| format!("module {module:?}"))?)
            }
            _ => continue,
        };
        found.insert(module.clone(), quantization);
    }
    Ok(found)
}

fn group(keys: &Keys) -> Result<GroupQuantization> {
    let mode = match keys.text("mode")? {
        None => Mode::Affine,
        Some(name) => Mode::from_name(name).with_context(|| {
            let names = Mode::ALL.map(Mode::name).join(", ");
            format!(
                "mode {name:?} in {} is not supported: only {names} are",
                keys.file
            )
        })?,
    };
    let only = mode.only_packing();
    let size = |key, most, only: Option<usize>| match keys.size(key, most)?.or(only) {
        Some(size) => Ok(size),
        None => Err(keys.missing(key)),
    };
    let group = GroupQuantization {
        group_size: size("group_size", 1 << 16, only.map(|only| only.group_size))?,
        bits: size("bits", 32, only.map(|only| only.bits))?,
        mode,
    };
    if group.is_supported() {
        return Ok(group);
    }
    let GroupQuantization {
        group_size, bits, ..
    } = group;
    match only {
        Some(only) => bail!(
            "group_size {group_size} with bits {bits} in {} is not supported: MLX has {only}",
            keys.file
        ),
        None => bail!(
            "group_size {group_size} with bits {bits} in {} is not supported: MLX has groups of 32, \
             64 or 128 and 2, 3, 4, 5, 6 or 8 bits",
            keys.file
        ),
    }
}
