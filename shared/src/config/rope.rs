//! Rotary position embedding, as far as it is configuration.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::keys::{Keys, MAX_POSITIONS};

/// Rotary position embedding: how fast each pair of a head's elements turns with the position.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric row of wavelengths, above 1.
    pub theta: f32,
    /// Interleaved pairs `(0,1), (2,3), …` instead of halves `(0, D/2), (1, D/2+1), …`.
    pub traditional: bool,
    /// How the base wavelengths are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// Ways to stretch RoPE's wavelengths beyond the context length of pre-training.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// Stretch of every wavelength.
        factor: f32,
    },
    /// Llama 3.1: long wavelengths stretched, short ones kept, a ramp between.
    Llama3 {
        /// Stretch of the long wavelengths.
        factor: f32,
        /// Wavelengths above `original / low_freq_factor` are stretched in full.
        low_freq_factor: f32,
        /// Wavelengths below `original / high_freq_factor` stay.
        high_freq_factor: f32,
        /// Context length of pre-training.
        original_max_position_embeddings: usize,
    },
    /// YaRN (arXiv 2309.00071): a ramp over the dimensions, and a scale on q and k.
    Yarn {
        /// Stretch of the slow dimensions.
        factor: f32,
        /// Context length of pre-training.
        original_max_position_embeddings: usize,
        /// Dimensions with more turns than this in the original context stay.
        beta_fast: f32,
        /// Dimensions with fewer turns than this are stretched in full.
        beta_slow: f32,
        /// Numerator of the scale: `0.1 · mscale · ln(factor) + 1`.
        mscale: f32,
        /// Denominator of the scale, same formula.
        mscale_all_dim: f32,
    },
    /// One divisor for each of the D/2 frequencies, as GGUF stores Llama 3 scaling
    /// (`rope_freqs.weight`): wavelength `i` is `theta^(2i/D) · factors[i]`.
    Factors(Vec<f32>),
}

/// Where `rope_theta` and its like may stand, the first that has a value decides.
///
/// Before Transformers 5 `rope_theta` stood beside `rope_scaling`; since then everything is nested,
/// under `rope_parameters` or still under `rope_scaling`. The order is that of mlx-lm.
struct Places<'a> {
    top: &'a Keys<'a>,
    scaling: Option<Keys<'a>>,
    parameters: Option<Keys<'a>>,
}

impl<'a> Places<'a> {
    fn of(top: &'a Keys) -> Result<Self> {
        let nested = |key| -> Result<_> {
            let file = "rope parameters of config.json";
            Ok(top.object(key)?.map(|object| Keys { file, object }))
        };
        Ok(Self {
            top,
            scaling: nested("rope_scaling")?,
            parameters: nested("rope_parameters")?,
        })
    }

    fn theta(&self, remarks: &mut Vec<String>) -> Result<Option<f32>> {
        let places = [
            (Some(self.top), "its top level"),
            (self.scaling.as_ref(), "rope_scaling"),
            (self.parameters.as_ref(), "rope_parameters"),
        ];
        let mut found: Vec<(f32, &str)> = Vec::new();
        for (keys, place) in places {
            let theta = keys.map(|keys| keys.number("rope_theta")).transpose()?;
            found.extend(theta.flatten().map(|theta| (theta, place)));
        }
        let Some(&(first, decides)) = found.first() else {
            return Ok(None);
        };
        if let Some((other, place)) = found.iter().find(|(theta, _)| *theta != first) {
            remarks.push(format!(
                "rope_theta of config.json is {first} at {decides} and {other} in {place}: \
                 {decides} decides, as in mlx-lm"
            ));
        }
        Ok(Some(first))
    }

    fn scaling(&self, remarks: &mut Vec<String>) -> Result<RopeScaling> {
        let mut read = |keys: &Option<Keys>| {
            let keys = keys.as_ref();
            keys.map(|keys| read_scaling(keys, remarks)).transpose()
        };
        let first = read(&self.scaling)?;
        let Some(first) = first else {
            return Ok(read(&self.parameters)?.unwrap_or(RopeScaling::None));
        };
        // What does not count need not be readable.
        if self.parameters.is_some()
            && read(&self.parameters).ok().flatten().as_ref() != Some(&first)
        {
            remarks.push(
                "rope_scaling and rope_parameters of config.json differ: the first decides, as in \
                 mlx-lm"
                    .to_owned(),
            );
        }
        Ok(first)
    }
}

pub(super) fn read(keys: &Keys, model_type: &str, remarks: &mut Vec<String>) -> Result<RopeConfig> {
    let places = Places::of(keys)?;
    let theta = match (places.theta(remarks)?, model_type) {
        (Some(theta), _) => theta,
        (None, "qwen3") => return Err(keys.missing("rope_theta")),
        (None, "qwen2") => 1_000_000.0,
        (None, _) => 10_000.0,
    };
    check_full_rotary(keys)?;
    let scaling = places.scaling(remarks)?;
    let traditional = keys.flag("rope_traditional")?.unwrap_or(false);
    Ok(RopeConfig {
        theta,
        traditional,
        scaling,
    })
}

fn check_full_rotary(keys: &Keys) -> Result<()> {
    match keys.number("partial_rotary_factor")? {
        None => Ok(()),
        Some(1.0) => Ok(()),
        Some(part) => bail!(
            "partial_rotary_factor {part} in {} is not supported",
            keys.file
        ),
    }
}

fn read_scaling(keys: &Keys, remarks: &mut Vec<String>) -> Result<RopeScaling> {
    check_full_rotary(keys)?;
    if let Some((layers, _)) = keys.object.iter().find(|(_, value)| value.is_object()) {
        bail!(
            "{} differ by layer type ({layers:?}): that is not supported",
            keys.file
        );
    }
    let kind = kind(keys, remarks)?;
    let factor = || keys.number("factor")?.ok_or_else(|| keys.missing("factor"));
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: keys.number("low_freq_factor")?.unwrap_or(1.0),
            high_freq_factor: keys.number("high_freq_factor")?.unwrap_or(4.0),
            original_max_position_embeddings: original_context(keys, 8192)?,
        }),
        "yarn" => read_yarn(keys, factor()?),
        other => bail!(
            "RoPE type {other:?} in {} is not supported: only default, linear, llama3 and yarn",
            keys.file
        ),
    }
}

/// `rope_type`; older configs call it `type`.
fn kind<'a>(keys: &Keys<'a>, remarks: &mut Vec<String>) -> Result<&'a str> {
    let (new, old) = (keys.text("rope_type")?, keys.text("type")?);
    if let (Some(new), Some(old)) = (new, old)
        && new != old
    {
        remarks.push(format!(
            "{}: rope_type is {new:?} and type is {old:?}, the first decides, as in Transformers",
            keys.file
        ));
    }
    Ok(new.or(old).unwrap_or("default"))
}

fn read_yarn(keys: &Keys, factor: f32) -> Result<RopeScaling> {
    for key in ["attention_factor", "truncate"] {
        let value = keys.get(key);
        let silent = value.is_none_or(|value| value == &Value::Bool(true));
        ensure!(silent, "{key} of YaRN in {} is not supported", keys.file);
    }
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original_context(keys, 4096)?,
        beta_fast: keys.number("beta_fast")?.unwrap_or(32.0),
        beta_slow: keys.number("beta_slow")?.unwrap_or(1.0),
        mscale: keys.number("mscale")?.unwrap_or(1.0),
        mscale_all_dim: keys.number("mscale_all_dim")?.unwrap_or(0.0),
    })
}

fn original_context(keys: &Keys, default: usize) -> Result<usize> {
    let found = keys.size("original_max_position_embeddings", MAX_POSITIONS)?;
    Ok(found.unwrap_or(default))
}

/// No wavelength may come out as zero, infinite or NaN: MLX would compute with it.
pub(super) fn validate(rope: &RopeConfig, head_dim: usize) -> Result<()> {
    let theta = rope.theta;
    ensure!(
        theta > 1.0 && theta <= 1e12,
        "rope_theta is {theta}, expected above 1, at most 1e12"
    );
    let stretch = |factor: f32| {
        let known = (1e-3..=1e6).contains(&factor);
        ensure!(
            known,
            "RoPE scaling factor is {factor}, expected 0.001 to 1000000"
        );
        Ok(())
    };
    match &rope.scaling {
        RopeScaling::None => Ok(()),
        RopeScaling::Linear { factor } => stretch(*factor),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            ..
        } => {
            ensure!(
                *low > 0.0 && high > low && high.is_finite(),
                "RoPE low_freq_factor {low} and high_freq_factor {high} must be above 0 and rise"
            );
            stretch(*factor)
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            ..
        } => {
            let (fast, slow) = (beta_fast, beta_slow);
            ensure!(
                *slow > 0.0 && fast > slow,
                "YaRN beta_slow {slow} and beta_fast {fast} must be above 0 and rise"
            );
            for scale in [mscale, mscale_all_dim] {
                ensure!(
                    (0.0..=1e3).contains(scale),
                    "YaRN mscale is {scale}, expected 0 to 1000"
                );
            }
            stretch(*factor)
        }
        RopeScaling::Factors(factors) => {
            let (found, wanted) = (factors.len(), head_dim / 2);
            ensure!(
                found == wanted,
                "{found} RoPE frequency factors, expected D/2 = {wanted}"
            );
            factors.iter().try_for_each(|&factor| stretch(factor))
        }
    }
}
