//! How far an error comes: from the weights to the output of their layer, to the logits, to the first
//! token that changes.
//!
//! Everything here is computed in f32 from the numbers that are stored, so that two answers differ by
//! the quantization and by nothing else: in bf16 the rounding of a sum is as large as the error of one
//! matrix in the logits.

use std::collections::HashMap;

use anyhow::{Context, Result};
use console::interrupt::check_interrupted;
use console::report::status;
use mlx_rs::{Array, Dtype, ops, transforms};
use serde::Serialize;
use shared::checkpoint::mlx_dtype;
use shared::config::{GroupQuantization, ModelConfig, Quantization};
use shared::layers::{ids_array, probe, to_f32};
use shared::request::Request;
use shared::sampling::greedy;
use shared::session::Session;
use shared::weights::Weights;

use super::specimen::{Specimen, rms, share};
use crate::floats::Fit;
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;
use crate::quantize::quantize_weights;

/// A model whose weights can be taken out and put back.
#[derive(Debug)]
pub struct Subject {
    /// Its name.
    pub model: String,
    /// What a viewer has to know about its weights.
    pub remark: Option<String>,
    config: ModelConfig,
    /// In the type that they are stored in.
    tensors: HashMap<String, Array>,
}

impl Subject {
    /// Reads all weights; packed ones are unpacked first.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn load(session: &Session) -> Result<Self> {
        let checkpoint = &session.checkpoint;
        let stored = checkpoint
            .tensors
            .iter()
            .map(|tensor| tensor.dtype.as_str());
        let is_packed = checkpoint.config.quantization.is_some();
        let dtype = match checkpoint.dtype {
            Some(dtype) => mlx_dtype(dtype),
            None if stored.clone().any(|dtype| dtype == "BF16") => Dtype::Bfloat16,
            // GGUF keeps its norms in F32 beside packed matrices with f16 scales.
            None if is_packed || stored.clone().any(|dtype| dtype == "F16") => Dtype::Float16,
            None => Dtype::Float32,
        };
        let (config, weights) = checkpoint.load_dense_weights(dtype)?;
        let remark = is_packed.then(|| {
            format!(
                "{} is quantized already: what is shown is its unpacked weights, quantized again",
                checkpoint.name
            )
        });
        Ok(Self {
            model: checkpoint.name.clone(),
            remark,
            config,
            tensors: weights.into_tensors(),
        })
    }

    /// The matrix of a module, `[out, in]`.
    ///
    /// # Errors
    /// If there is none.
    pub fn weight(&self, module: &str) -> Result<&Array> {
        let weight = self.tensors.get(&format!("{module}.weight"));
        weight.with_context(|| format!("{} has no {module}.weight", self.model))
    }

    /// The model as it is.
    fn whole(&self, module: &str) -> Result<Variant> {
        let mut tensors = self.tensors.clone();
        widen(&mut tensors)?;
        let weight = tensors.get(&format!("{module}.weight"));
        Ok(Variant {
            weight: weight.context("the matrix is gone")?.clone(),
            model: Model::new(&self.config, Weights::new(tensors, &self.config))?,
            config: self.config.clone(),
        })
    }

    /// The model with what `plan` says packed.
    fn packed(&self, plan: &Quantization, module: &str) -> Result<Variant> {
        let weights = Weights::new(self.tensors.clone(), &self.config);
        let (config, weights) = quantize_weights(&self.config, weights, plan, Fit::Mlx)?;
        let mut tensors = weights.into_tensors();
        widen(&mut tensors)?;
        let part = |name: &str| {
            let part = tensors.get(&format!("{module}.{name}"));
            part.with_context(|| format!("{module} was not quantized: no {name}"))
        };
        let group = plan.default;
        let weight = ops::dequantize(
            part("weight")?,
            part("scales")?,
            part("biases")?,
            group.group_size as i32,
            group.bits as i32,
        )?;
        Ok(Variant {
            weight,
            model: Model::new(&config, Weights::new(tensors, &config))?,
            config,
        })
    }

    /// Packs all matrices, or only one.
    fn plan(&self, group: GroupQuantization, only: Option<&str>) -> Quantization {
        let modules = self.matrices().filter(|(module, columns)| {
            !columns.is_multiple_of(group.group_size) || only.is_some_and(|only| only != *module)
        });
        Quantization {
            default: group,
            overrides: modules
                .map(|(module, _)| (module.to_owned(), None))
                .collect(),
        }
    }

    /// The names of all matrices, with the widths of their rows.
    fn matrices(&self) -> impl Iterator<Item = (&str, usize)> {
        let matrices = self.tensors.iter().filter(|(_, tensor)| tensor.ndim() == 2);
        matrices.filter_map(|(name, tensor)| {
            Some((name.strip_suffix(".weight")?, tensor.dim(1) as usize))
        })
    }
}

/// All floats as f32, codes as they are.
fn widen(tensors: &mut HashMap<String, Array>) -> Result<()> {
    for tensor in tensors.values_mut() {
        if tensor.dtype() != Dtype::Uint32 {
            *tensor = tensor.as_dtype(Dtype::Float32)?;
        }
    }
    transforms::eval(tensors.values())?;
    Ok(())
}

/// A model, and the matrix under the microscope as floats `[out, in]`.
struct Variant {
    model: Model,
    config: ModelConfig,
    weight: Array,
}

impl Variant {
    /// What `module` makes of the prompt, without its bias: `[…, out]`.
    fn output(&self, module: &str, ids: &[u32]) -> Result<Array> {
        if module == EMBEDDING {
            return Ok(self.weight.take_axis(ids_array(ids), 0)?);
        }
        let mut cache = empty_cache(CacheKind::Prealloc, &self.config);
        let run = || self.model.next_logits(&ids_array(ids), &mut cache);
        let (_, inputs) = probe::inputs_of(module, run)?;
        let x = inputs.first();
        let x = x.with_context(|| format!("the prompt does not pass {module}"))?;
        Ok(ops::matmul(x, self.weight.t())?)
    }
}

/// The one matrix that a prompt's ids choose rows of, and do not multiply.
const EMBEDDING: &str = "model.embed_tokens";

/// What became of the error.
#[derive(Debug, Clone, Serialize)]
pub struct Followed {
    /// Tokens of the prompt, as the model got it.
    pub prompt_tokens: usize,
    /// Most tokens that were compared.
    pub most: usize,
    /// RMS error of the weights that are shown, over their own RMS.
    pub shown: f64,
    /// Matrices that were quantized in no stage: G does not divide their rows.
    pub left_dense: usize,
    /// One matrix, then all of them.
    pub stages: Vec<Stage>,
}

/// The error of one way to quantize, where it was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stage {
    /// What was quantized.
    pub quantized: &'static str,
    /// RMS error of the matrix over its own RMS.
    pub weights: f64,
    /// The same of what the matrix makes of the prompt.
    pub output: f64,
    /// RMS difference of the logits after the prompt.
    pub logits_rms: f64,
    /// Largest difference of a logit after the prompt.
    pub logits_max: f64,
    /// Choices that were compared: all of the answer with its end, or those up to the one that changed.
    pub compared: usize,
    /// The first choice that is another one.
    pub change: Option<Duel>,
    /// Where the same choice was the least sure; None if the first one changed.
    pub closest: Option<Duel>,
}

/// Two tokens of which a model takes one: that with the larger logit.
#[derive(Debug, Clone, Serialize)]
pub struct Duel {
    /// Which token of the answer, from 1.
    pub token: usize,
    /// What the model chose.
    pub before: String,
    /// What it chooses now, or nearly chose.
    pub rival: String,
    /// By how much the logit of `before` was ahead of that of `rival`.
    pub margin: f64,
    /// By how much it is ahead now; negative where the rival won, or 0 in a tie.
    pub now: f64,
}

/// Quantizes the specimen's matrix alone and then all matrices, and measures what each comes to.
///
/// # Errors
/// If the model cannot be built or run, or after Ctrl-C.
pub fn follow(
    session: &Session,
    subject: &Subject,
    request: &Request,
    specimen: &Specimen,
) -> Result<Followed> {
    let group = GroupQuantization::affine(specimen.group_size, specimen.bits);
    let module = specimen.module.as_str();
    let dense = subject.whole(module)?;
    let output = dense.output(module, &request.ids)?;
    let measure = |(quantized, only): (&'static str, Option<&str>)| {
        status(&format!("following the error: {quantized}"));
        let variant = subject.packed(&subject.plan(group, only), module)?;
        let answer = compare(session, &dense, &variant, request)?;
        Ok(Stage {
            quantized,
            weights: relative(&variant.weight, &dense.weight)?,
            output: relative(&variant.output(module, &request.ids)?, &output)?,
            ..answer
        })
    };
    let stages = [("this matrix", Some(module)), ("all matrices", None)].map(measure);
    let errors = specimen.groups.iter().flat_map(|group| group.errors());
    let values = specimen
        .groups
        .iter()
        .flat_map(|group| group.values.clone());
    let undivided = |(_, columns): &(&str, usize)| !columns.is_multiple_of(group.group_size);
    Ok(Followed {
        left_dense: subject.matrices().filter(undivided).count(),
        prompt_tokens: request.ids.len(),
        most: request.max_tokens,
        shown: share(rms(errors), rms(values)),
        stages: stages.into_iter().collect::<Result<_>>()?,
    })
}

/// `‖a − b‖ / ‖b‖`
fn relative(a: &Array, b: &Array) -> Result<f64> {
    let (a, b) = (to_f32(a)?, to_f32(b)?);
    let difference = rms(a.iter().zip(&b).map(|(a, b)| a - b));
    Ok(share(difference, rms(b.iter().copied())))
}

/// Both models go on from the same prompt with the same tokens, those of the first, until the second
/// one would choose another.
fn compare(
    session: &Session,
    dense: &Variant,
    other: &Variant,
    request: &Request,
) -> Result<Stage> {
    let mut caches = [dense, other].map(|v| empty_cache(CacheKind::Prealloc, &v.config));
    let [first_cache, second_cache] = &mut caches;
    let mut stage = Stage::default();
    let mut input = request.ids.clone();
    for token in 1..=request.max_tokens {
        check_interrupted()?;
        let ids = ids_array(&input);
        let before = Choice::of(&dense.model.next_logits(&ids, first_cache)?)?;
        let after = Choice::of(&other.model.next_logits(&ids, second_cache)?)?;
        if token == 1 {
            let difference = || before.logits.iter().zip(&after.logits).map(|(a, b)| b - a);
            stage.logits_rms = rms(difference());
            stage.logits_max = f64::from(difference().map(f32::abs).fold(0.0, f32::max));
        }
        stage.compared = token;
        let duel = duel(session, token, &before, &after)?;
        if before.id != after.id {
            stage.change = Some(duel);
            break;
        }
        let closest = stage.closest.as_ref();
        if closest.is_none_or(|closest| duel.now < closest.now) {
            stage.closest = Some(duel);
        }
        if request.stop_ids.contains(&before.id) {
            break;
        }
        input = vec![before.id];
    }
    Ok(stage)
}

/// The choice of the first model against that of the second, or against the second one's next best.
fn duel(session: &Session, token: usize, before: &Choice, after: &Choice) -> Result<Duel> {
    let rival = if before.id == after.id {
        after.next_best()
    } else {
        after.id
    };
    let text = |id| session.tokenizer.decode(&[id], false);
    Ok(Duel {
        token,
        before: text(before.id)?,
        rival: text(rival)?,
        margin: before.ahead(before.id, rival),
        now: after.ahead(before.id, rival),
    })
}

/// The logits `[V]` of one step, and the id that is chosen.
struct Choice {
    id: u32,
    logits: Vec<f32>,
}

impl Choice {
    fn of(logits: &Array) -> Result<Self> {
        Ok(Self {
            id: greedy(logits)?.item_exact::<u32>(),
            logits: to_f32(logits)?,
        })
    }

    /// What would be chosen without the first choice.
    fn next_best(&self) -> u32 {
        let others = (0..).zip(&self.logits).filter(|(id, _)| *id != self.id);
        others
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map_or(self.id, |(id, _)| id)
    }

    /// By how much the logit of `a` is above that of `b`.
    fn ahead(&self, a: u32, b: u32) -> f64 {
        let logit = |id: u32| self.logits.get(id as usize).copied().unwrap_or(f32::NAN);
        f64::from(logit(a)) - f64::from(logit(b))
    }
}
