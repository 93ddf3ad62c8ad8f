//! What a wider vector costs: the weights of a model and its multiplications for a token, from its sizes alone.
//!
//! ```text
//! attention  2 · E · E + 2 · E · Hkv·D      q and the output projection; k and v
//! MLP        2 or 3 · E · F                 GELU between two matrices, SwiGLU among three
//! tables     V · E                          embedding and head, one or two of them
//! ```
//!
//! F is some multiple of E, so twice the width is four times the weights of a layer.

use crate::decoder::{Decoder, Part};
use crate::trace::Width;

/// The sizes of a published model.
struct Shape {
    model: &'static str,
    source: &'static str,
    layers: u64,
    width: u64,
    inner: u64,
    /// Hkv · D
    kv_width: u64,
    vocabulary: u64,
    kind: Kind,
}

/// What differs beside the sizes.
enum Kind {
    /// Learned positions, biases, LayerNorm, two matrices in the MLP, a tied head.
    Gpt2 { positions: u64 },
    /// Rotation, no biases, RMSNorm, three matrices in the MLP.
    Llama { tied: bool },
}

/// GPT-2's small form has the 768 dimensions that introductions name, Mistral-7B is the series' own model.
const SHAPES: [Shape; 3] = [
    Shape {
        model: "GPT-2 small",
        source: "Radford et al. 2019",
        layers: 12,
        width: 768,
        inner: 3072,
        kv_width: 768,
        vocabulary: 50_257,
        kind: Kind::Gpt2 { positions: 1024 },
    },
    Shape {
        model: "Mistral-7B",
        source: "arXiv 2310.06825",
        layers: 32,
        width: 4096,
        inner: 14_336,
        kv_width: 1024,
        vocabulary: 32_000,
        kind: Kind::Llama { tied: false },
    },
    Shape {
        model: "GPT-3",
        source: "arXiv 2005.14165",
        layers: 96,
        width: 12_288,
        inner: 49_152,
        kv_width: 12_288,
        vocabulary: 50_257,
        kind: Kind::Gpt2 { positions: 2048 },
    },
];

/// The model that is watched, as its checkpoint says, and beside it those that everybody knows, computed.
pub fn widths(decoder: &dyn Decoder) -> Vec<Width> {
    let facts = decoder.facts();
    let multiplied = |part: &Part| decoder.weights(*part, 1).multiplied;
    let own = Width {
        model: facts.name.clone(),
        source: None,
        width: facts.width,
        layers: facts.layers,
        parameters: facts.parameters,
        multiplications: Part::ALL.iter().map(multiplied).sum(),
    };
    let known = SHAPES.iter().map(|shape| Width {
        model: shape.model.to_owned(),
        source: Some(shape.source.to_owned()),
        width: shape.width as usize,
        layers: shape.layers as usize,
        parameters: shape.parameters(),
        multiplications: shape.multiplications(),
    });
    std::iter::once(own).chain(known).collect()
}

impl Shape {
    /// The matrices of one layer.
    fn matrices(&self) -> u64 {
        let in_mlp = match self.kind {
            Kind::Gpt2 { .. } => 2,
            Kind::Llama { .. } => 3,
        };
        2 * self.width * (self.width + self.kv_width) + in_mlp * self.width * self.inner
    }

    /// What a token is multiplied with, without the products of q, k and v: those grow with the text.
    fn multiplications(&self) -> u64 {
        self.layers * self.matrices() + self.vocabulary * self.width
    }

    /// The matrices, norms, biases and tables.
    fn parameters(&self) -> u64 {
        let (e, table) = (self.width, self.vocabulary * self.width);
        let (in_layer, outside) = match self.kind {
            Kind::Gpt2 { positions } => (
                4 * e + 2 * (e + self.kv_width) + self.inner + e,
                positions * e + 2 * e + table,
            ),
            Kind::Llama { tied } => (2 * e, e + if tied { table } else { 2 * table }),
        };
        self.layers * (self.matrices() + in_layer) + outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the checkpoints say that are published under these names; of GPT-3 there is only the paper's 175
    /// billion.
    #[test]
    fn the_formula_gives_the_weights_of_the_published_checkpoints() {
        let [gpt2, mistral, gpt3] = SHAPES.map(|shape| shape.parameters());
        assert_eq!(gpt2, 124_439_808);
        assert_eq!(mistral, 7_241_732_096);
        assert_eq!((gpt3 as f64 / 1e9).round(), 175.0);
    }

    #[test]
    fn the_formula_gives_what_the_built_in_model_has() {
        let tiny = Shape {
            model: "tiny",
            source: "",
            layers: 8,
            width: 256,
            inner: 768,
            kv_width: 128,
            vocabulary: 4096,
            kind: Kind::Llama { tied: true },
        };
        assert_eq!(tiny.parameters(), 7_344_384);
        assert_eq!(tiny.multiplications(), 7_344_384 - (2 * 8 + 1) * 256);
    }

    #[test]
    fn twice_the_width_is_four_times_the_weights_of_a_layer() {
        let [one, ..] = SHAPES;
        let (width, inner, kv_width) = (2 * one.width, 2 * one.inner, 2 * one.kv_width);
        let before = one.matrices();
        let two = Shape {
            width,
            inner,
            kv_width,
            ..one
        };
        assert_eq!(two.matrices(), 4 * before);
    }
}
