//! What the files of a checkpoint hold, whatever their format.

use super::TensorInfo;
use crate::gguf::{GgufHeader, ROPE_FACTORS, hugging_face_name};

/// The list of tensors.
pub(super) struct Stored {
    /// In the order of the files.
    pub(super) tensors: Vec<TensorInfo>,
    /// How an index contradicts it: the first half of a sentence.
    pub(super) contradiction: Option<String>,
}

impl Stored {
    /// All tensors of a GGUF file but those that are configuration.
    pub(super) fn of_gguf(header: &GgufHeader) -> Self {
        let weights = header
            .tensors
            .iter()
            .filter(|tensor| tensor.name != ROPE_FACTORS);
        let tensors = weights.map(|tensor| TensorInfo {
            name: hugging_face_name(&tensor.name),
            dtype: tensor.kind.name(),
            shape: tensor.shape.clone(),
            bytes: tensor.bytes,
        });
        Self {
            tensors: tensors.collect(),
            contradiction: None,
        }
    }
}
