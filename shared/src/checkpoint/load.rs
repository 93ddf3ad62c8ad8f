//! The files of a checkpoint → arrays in memory.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use mlx_rs::{Array, Dtype, transforms};
use safetensors::SafeTensors;

use super::{Checkpoint, mlx_dtype};
use crate::config::{Mode, ModelConfig};
use crate::ffi::quantized::{Pieces, dequantize};
use crate::hub::{Embedded, ModelFiles};
use crate::remarks::tell_all;
use crate::weights::{Weights, is_weight_type, superfluous};

impl Checkpoint {
    /// Reads all tensors into memory.
    pub fn load_weights(&self) -> Result<Weights> {
        tell_all(self.unpacked().as_slice());
        let mut tensors = match &self.files {
            ModelFiles::Embedded(model) => load_embedded(*model)?,
            ModelFiles::Directory(_) => load_shards(&self.files.shards()?)?,
            ModelFiles::Gguf(path) => self.load_gguf(path)?,
        };
        self.repack_foreign(&mut tensors)?;
        self.rename_nvfp4(&mut tensors)?;
        let tied = self.tied();
        tensors.retain(|name, _| !superfluous(name, tied)); // never read: loading is lazy
        if let Some(dtype) = self.dtype {
            convert_floats(&mut tensors, mlx_dtype(dtype))?;
        }
        // Without this the first token would pay for reading the file, and the
        // time to first token would not be what it says.
        transforms::eval(tensors.values())
            .map_err(|error| reading(Path::new(&self.name), &error))?;
        let weights = Weights::new(tensors, &self.config);
        Ok(match self.dtype {
            Some(dtype) => weights.unpacked_to(mlx_dtype(dtype)),
            None => weights,
        })
    }

    /// Reads all tensors into memory as dense floats of `dtype`; packed ones are unpacked in f32
    /// first. Returns the configuration of such a checkpoint, too.
    ///
    /// # Errors
    /// If a file cannot be read, or a packed matrix does not fit the configuration.
    pub fn load_dense_weights(&self, dtype: Dtype) -> Result<(ModelConfig, Weights)> {
        let mut config = self.config.clone();
        let mut stored = self.load_weights()?.into_tensors();
        let modules: BTreeSet<String> = stored
            .keys()
            .filter_map(|name| Some(name.strip_suffix(".scales")?.to_owned()))
            .collect();
        for module in modules {
            let matrix = self.unpack(&mut stored, &module)?;
            stored.insert(format!("{module}.weight"), matrix);
        }
        convert_floats(&mut stored, dtype)?;
        // Else the packed weights would stay in memory beside the dense ones until their first use.
        transforms::eval(stored.values())?;
        config.quantization = None;
        config.tie_word_embeddings = Some(self.tied());
        Ok((config.clone(), Weights::new(stored, &config)))
    }

    fn unpack(&self, stored: &mut HashMap<String, Array>, module: &str) -> Result<Array> {
        let quantization = self.config.quantization.as_ref();
        let group = quantization
            .and_then(|all| all.of(module))
            .with_context(|| {
                format!("{module} has scales, but the config says nothing of quantization")
            })?;
        let mut part = |name: &str| stored.remove(&format!("{module}.{name}"));
        let missing = |name: &str| format!("the checkpoint has no {module}.{name}");
        let weight = part("weight").with_context(|| missing("weight"))?;
        let mut scales = part("scales").with_context(|| missing("scales"))?;
        let mut biases = None;
        if group.mode == Mode::Affine {
            let wide = |array: Array| array.as_dtype(Dtype::Float32);
            scales = wide(scales)?;
            biases = Some(wide(part("biases").with_context(|| missing("biases"))?)?);
        }
        let pieces = Pieces {
            weight: &weight,
            scales: &scales,
            biases: biases.as_ref(),
            group,
        };
        let global_scale = part("global_scale");
        dequantize(&pieces, global_scale.as_ref(), Some(Dtype::Float32))
    }
}

/// Codes of quantized matrices stay as they are, and so does a global scale, which is one number.
fn convert_floats(tensors: &mut HashMap<String, Array>, dtype: Dtype) -> Result<()> {
    for (name, tensor) in tensors {
        if is_weight_type(tensor.dtype()) && !name.ends_with(".global_scale") {
            *tensor = tensor.as_dtype(dtype)?;
        }
    }
    Ok(())
}

/// An error of MLX without the place in MLX's own sources that it ends in.
fn reading(path: &Path, error: &dyn Display) -> anyhow::Error {
    let text = error.to_string().replace('\n', " ");
    let text = text.split(" at /").next().unwrap_or_default();
    anyhow!(
        "reading the weights of {}: {}",
        path.display(),
        text.trim_matches('"')
    )
}

fn load_embedded(model: Embedded) -> Result<HashMap<String, Array>> {
    let file =
        SafeTensors::deserialize(model.weights()).context("the embedded model is damaged")?;
    let mut tensors = HashMap::new();
    for (name, view) in file.iter() {
        let array = Array::try_from(view)
            .map_err(|error| anyhow!("reading {name} of the embedded model: {error}"))?;
        tensors.insert(name.to_owned(), array);
    }
    Ok(tensors)
}

fn load_shards(shards: &[PathBuf]) -> Result<HashMap<String, Array>> {
    let mut tensors = HashMap::new();
    for path in shards {
        // MLX tells the format by the ending; a snapshot's links keep it, their targets do not.
        let shard = Array::load_safetensors(path).map_err(|error| reading(path, &error))?;
        tensors.extend(shard);
    }
    Ok(tensors)
}
