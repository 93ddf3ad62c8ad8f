//! What a service promises for each answer: service level objectives.

use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

use super::Served;

/// Limits in milliseconds. A request is good if it keeps all that are given.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Slo {
    /// Sent → first token.
    pub ttft: Option<f64>,
    /// The mean gap between its tokens.
    pub tpot: Option<f64>,
    /// Sent → last token.
    pub e2el: Option<f64>,
}

impl Slo {
    /// Whether an answer was fast enough. One of a single token has no gaps, and so keeps any limit on them.
    pub fn is_met(&self, served: &Served) -> bool {
        let within = |limit: Option<f64>, value: Option<f64>| {
            limit.is_none_or(|limit| value.unwrap_or(0.0) <= limit)
        };
        within(self.ttft, served.ttft())
            && within(self.tpot, served.tpot())
            && within(self.e2el, served.e2el())
    }

    /// Share of all requests whose answers ended by themselves and were fast enough.
    pub fn share(&self, served: &[Served]) -> f64 {
        let good = served.iter();
        let good = good.filter(|served| served.completed() && self.is_met(served));
        good.count() as f64 / served.len() as f64
    }
}

/// `ttft=500,tpot=50`; vLLM's `ttft:500` is understood, too.
impl FromStr for Slo {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut slo = Self::default();
        for pair in text.split(',') {
            let (name, value) = pair
                .split_once(['=', ':'])
                .with_context(|| format!("'{pair}' is no limit: write ttft=500,tpot=50 (in ms)"))?;
            let limit = match name.trim() {
                "ttft" => &mut slo.ttft,
                "tpot" => &mut slo.tpot,
                "e2el" => &mut slo.e2el,
                _ => bail!("'{name}' has no limit: ttft, tpot and e2el have"),
            };
            let value: f64 = value
                .trim()
                .parse()
                .with_context(|| format!("the limit of {name} is '{value}', no number of ms"))?;
            ensure!(
                value > 0.0,
                "the limit of {name} is {value}: it must be above 0 ms"
            );
            ensure!(limit.replace(value).is_none(), "{name} has two limits");
        }
        Ok(slo)
    }
}
