//! A piece that is left out, and the symptom.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::predict::Candidate;

/// Something that is left out, to see what it was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum WhatIf {
    /// Every token sees the ones after it, too.
    NoMask,
    /// q and k are not rotated; where positions are added, none is.
    NoPositions,
    /// Scores are not divided by √D.
    NoScaling,
    /// One head adds nothing.
    ZeroHead {
        /// Its layer.
        layer: usize,
        /// Its number.
        head: usize,
    },
}

impl FromStr for WhatIf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = |text: &str| {
            let (layer, head) = text.split_once('.')?;
            Some(Self::ZeroHead {
                layer: layer.parse().ok()?,
                head: head.parse().ok()?,
            })
        };
        match text {
            "no-mask" => Ok(Self::NoMask),
            "no-positions" | "no-rope" => Ok(Self::NoPositions),
            "no-scaling" => Ok(Self::NoScaling),
            text => text
                .strip_prefix("zero-head=")
                .and_then(place)
                .ok_or_else(|| {
                    "must be no-mask, no-positions, no-scaling or zero-head=LAYER.HEAD".to_owned()
                }),
        }
    }
}

/// The symptom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhatIfOutcome {
    /// What was left out.
    pub switch: WhatIf,
    /// The likeliest next tokens of the model as it is, likeliest first.
    pub before: Vec<Candidate>,
    /// The probabilities of the same tokens with the switch.
    pub before_then: Vec<f32>,
    /// The likeliest next tokens with the switch.
    pub after: Vec<Candidate>,
    /// Cosine between the last token's stream with and without the switch, after the embedding and
    /// after each layer.
    pub cosines: Vec<f32>,
    /// Mean entropy of the attention rows in each layer, in bits, of the model as it is.
    pub entropy_before: Vec<f32>,
    /// The same with the switch.
    pub entropy_after: Vec<f32>,
    /// The greedy answer of the model as it is.
    pub text_before: String,
    /// The greedy answer with the switch.
    pub text_after: String,
}
