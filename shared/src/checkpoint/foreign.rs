//! AWQ's and GPTQ's tensors, described and loaded as the affine ones that they become.
//!
//! Both store a matrix as `[in, out]` in three tensors: `qweight`, `qzeros` and `scales`. The headers are
//! rewritten first, so that everything else (what is missing, what fits, how many bits) sees MLX's names and
//! shapes; the numbers follow when they are loaded, one matrix after the other. As in mlx-lm, all floats
//! become the type of the scales, and biases, `−scale · zero`, are rounded to it.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, Dtype};
use repacking::Repacked;
use repacking::columns::{CODES, Columns, Layout, repack};

use super::{Checkpoint, TensorInfo};
use crate::config::Foreign;
use crate::layers::to_f32;
use crate::weights::is_weight_type;

/// Ends of names, with what they are of a matrix.
const PACKED: &str = ".qweight";
const ZEROS: &str = ".qzeros";
const SCALES: &str = ".scales";
/// The group of each input.
const GROUPS: &str = ".g_idx";

impl Checkpoint {
    /// Puts the tensors that will be in memory in place of those that are in the files.
    ///
    /// # Errors
    /// If the tensors of a matrix do not fit each other: with its name.
    pub(super) fn describe_foreign(&mut self) -> Result<()> {
        let Some(foreign) = self.config.foreign.filter(|foreign| foreign.is_columns()) else {
            return Ok(());
        };
        let stored: HashMap<&str, &TensorInfo> = self
            .tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        let (mut described, mut used, mut float) = (Vec::new(), HashSet::new(), None);
        for tensor in &self.tensors {
            let Some(module) = tensor.name.strip_suffix(PACKED) else {
                continue;
            };
            let part = |end: &str| stored.get(format!("{module}{end}").as_str()).copied();
            let scales = part(SCALES).with_context(|| format!("there is no {module}{SCALES}"))?;
            let zeros = part(ZEROS).map(|zeros| &zeros.shape[..]);
            let sizes = self.sizes(module, &tensor.shape, &scales.shape, zeros)?;
            described.extend(sizes.described(module, scales));
            used.extend([PACKED, ZEROS, SCALES, GROUPS].map(|end| format!("{module}{end}")));
            float = Some(scales.dtype.clone());
        }
        let float = float
            .with_context(|| {
                format!(
                    "config.json says that the weights are quantized with {}, but none of them is: take \
                     the original model or an MLX conversion of it",
                    foreign.name()
                )
            })?;
        let others = self
            .tensors
            .iter()
            .filter(|tensor| !used.contains(&tensor.name));
        described.extend(others.cloned().map(|tensor| as_float(tensor, &float)));
        self.tensors = described;
        Ok(())
    }

    /// Repacks all matrices.
    pub(super) fn repack_foreign(&self, tensors: &mut HashMap<String, Array>) -> Result<()> {
        if !self.config.foreign.is_some_and(Foreign::is_columns) {
            return Ok(());
        }
        let ends = |name: &String| Some(name.strip_suffix(PACKED)?.to_owned());
        let modules: Vec<String> = tensors.keys().filter_map(ends).collect();
        let mut float = None;
        for module in modules {
            let repacking = || format!("repacking {module}");
            float = Some(
                self.repack_module(&module, tensors)
                    .with_context(repacking)?,
            );
        }
        for tensor in tensors.values_mut() {
            if let Some(float) = float
                && is_weight_type(tensor.dtype())
            {
                *tensor = tensor.as_dtype(float)?;
            }
        }
        Ok(())
    }

    /// Returns the type of the scales.
    fn repack_module(&self, module: &str, tensors: &mut HashMap<String, Array>) -> Result<Dtype> {
        let mut part = |end: &str| tensors.remove(&format!("{module}{end}"));
        let (codes, scales) = part(PACKED)
            .zip(part(SCALES))
            .context("a part is missing")?;
        let (zeros, groups) = (part(ZEROS), part(GROUPS));
        let shape = |array: &Array| {
            array
                .shape()
                .iter()
                .map(|&n| n as usize)
                .collect::<Vec<_>>()
        };
        let zeros_shape = zeros.as_ref().map(shape);
        let sizes = self.sizes(
            module,
            &shape(&codes),
            &shape(&scales),
            zeros_shape.as_deref(),
        )?;
        if let Some(groups) = groups {
            sizes.check_order(&groups)?;
        }
        let float = scales.dtype();
        ensure!(
            is_weight_type(float),
            "scales are {float:?}, expected floats"
        );
        let (codes, zeros) = (words(&codes)?, zeros.as_ref().map(words).transpose()?);
        let Repacked {
            codes,
            scales,
            biases,
        } = repack(&Columns {
            codes: codes.try_as_slice()?,
            zeros: zeros
                .as_ref()
                .map(|zeros| zeros.try_as_slice())
                .transpose()?,
            scales: &to_f32(&scales)?,
            inputs: sizes.inputs,
            outputs: sizes.outputs,
            layout: sizes.layout,
        });
        let [rows, columns, groups] =
            [sizes.outputs, sizes.inputs / CODES, sizes.groups].map(|size| size as i32);
        let floats = |numbers: &[f32]| Array::from_slice(numbers, &[rows, groups]).as_dtype(float);
        let parts = [
            ("weight", Array::from_slice(&codes, &[rows, columns])),
            ("scales", floats(&scales)?),
            ("biases", floats(&biases)?),
        ];
        for (part, array) in parts {
            array.eval()?; // else what it is made of would stay in memory
            tensors.insert(format!("{module}.{part}"), array);
        }
        Ok(float)
    }

    /// What the shapes of a matrix say, if they fit each other.
    fn sizes(
        &self,
        module: &str,
        codes: &[usize],
        scales: &[usize],
        zeros: Option<&[usize]>,
    ) -> Result<Sizes> {
        let inputs = self.config.in_features(module);
        let inputs =
            inputs.with_context(|| format!("{module} is no matrix of this architecture"))?;
        let (&[rows, columns], &[groups, outputs]) = (codes, scales) else {
            anyhow::bail!(
                "{module}{PACKED} is {codes:?} and {module}{SCALES} {scales:?}: expected matrices"
            );
        };
        let across = rows == inputs && columns * CODES == outputs;
        let down = rows * CODES == inputs && columns == outputs;
        let layout = match self.config.foreign {
            // mlx-lm takes GPTQ's label for codes in AWQ's layout, and the shapes decide.
            Some(_) if across => Layout::Awq,
            Some(Foreign::Gptq { add }) if down => Layout::Gptq { add },
            _ => anyhow::bail!(
                "{module}{PACKED} is {codes:?}, which is no packing of {inputs} inputs and {outputs} outputs"
            ),
        };
        let fits = zeros.is_none_or(|zeros| zeros == [groups, outputs / CODES]);
        ensure!(
            fits && groups > 0 && inputs.is_multiple_of(groups) && outputs.is_multiple_of(CODES),
            "{module} has scales {scales:?} and zeros {zeros:?}, which do not fit {inputs} inputs"
        );
        let size = inputs / groups;
        ensure!(
            [32, 64, 128].contains(&size),
            "{module} has groups of {size}: MLX has groups of 32, 64 or 128, take an MLX conversion of the \
             model"
        );
        Ok(Sizes {
            inputs,
            outputs,
            groups,
            layout,
        })
    }
}

/// Of one matrix.
struct Sizes {
    inputs: usize,
    outputs: usize,
    groups: usize,
    layout: Layout,
}

impl Sizes {
    /// Codes, scales and biases as they will be.
    fn described(&self, module: &str, scales: &TensorInfo) -> [TensorInfo; 3] {
        let groups = vec![self.outputs, self.groups];
        let of = |part: &str, dtype: &str, shape: Vec<usize>, bytes| TensorInfo {
            name: format!("{module}.{part}"),
            dtype: dtype.to_owned(),
            shape,
            bytes,
        };
        let words = self.inputs / CODES;
        let codes = 4 * (self.outputs * words) as u64;
        [
            of("weight", "U32", vec![self.outputs, words], codes),
            of("scales", &scales.dtype, groups.clone(), scales.bytes),
            of("biases", &scales.dtype, groups, scales.bytes),
        ]
    }

    /// Refuses groups whose inputs are not neighbours, as act-order makes them.
    fn check_order(&self, groups: &Array) -> Result<()> {
        let size = (self.inputs / self.groups) as i32;
        let groups = groups.as_dtype(Dtype::Int32)?;
        groups.eval()?;
        let groups = groups.try_as_slice::<i32>()?;
        let plain = (0..self.inputs as i32).map(|input| input / size);
        ensure!(
            groups.iter().copied().eq(plain),
            "the inputs of a group are not neighbours (g_idx: act-order, desc_act), which MLX has no \
             matrices for: take a checkpoint without it, or an MLX conversion of the model"
        );
        Ok(())
    }
}

/// Integers of 32 bits as they are stored, with or without a sign.
fn words(array: &Array) -> Result<Array> {
    ensure!(
        matches!(array.dtype(), Dtype::Int32 | Dtype::Uint32),
        "codes are {:?}, expected integers of 32 bits",
        array.dtype()
    );
    let words = array.view::<u32>()?.contiguous()?;
    words.eval()?; // they are read on the host
    Ok(words)
}

/// The entry of a tensor whose numbers will be of the type `float`, if they are floats.
fn as_float(tensor: TensorInfo, float: &str) -> TensorInfo {
    let bytes = |dtype: &str| match dtype {
        "F32" => Some(4),
        "F16" | "BF16" => Some(2),
        _ => None,
    };
    match bytes(&tensor.dtype).zip(bytes(float)) {
        Some((from, to)) => TensorInfo {
            dtype: float.to_owned(),
            bytes: tensor.bytes / from * to,
            ..tensor
        },
        None => tensor,
    }
}
