//! How long prompts and answers are.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use rand::distr::Distribution;
use rand::{Rng, RngExt};
use rand_distr::LogNormal;

/// Most tokens of a prompt or an answer: more than any model can read.
const MOST: usize = 10_000_000;

/// A distribution of lengths in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lengths {
    /// All the same.
    Fixed(usize),
    /// Each length from the first to the last is as likely as any other.
    Uniform(usize, usize),
    /// Most are short, a few are very long, as people's questions are.
    LogNormal {
        /// Half are shorter.
        median: usize,
        /// Of the logarithm: 1 makes one in six longer than 2.7 medians.
        sigma: f64,
        /// Longer ones are cut off here.
        most: usize,
    },
}

impl Lengths {
    /// One length, at least 1.
    pub fn draw<R: Rng>(&self, random: &mut R) -> usize {
        match *self {
            Self::Fixed(length) => length,
            Self::Uniform(first, last) => random.random_range(first..=last),
            Self::LogNormal {
                median,
                sigma,
                most,
            } => {
                let normal = LogNormal::new((median as f64).ln(), sigma);
                // A sigma that was checked is one that the distribution takes.
                let drawn = normal.map_or(median as f64, |normal| normal.sample(random));
                (drawn.round() as usize).clamp(1, most)
            }
        }
    }
}

impl FromStr for Lengths {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((first, last)) = text.split_once("..") {
            let (first, last) = (tokens(first)?, tokens(last.trim_start_matches('='))?);
            ensure!(
                first <= last,
                "{first}..{last} is empty: the shorter length comes first"
            );
            return Ok(Self::Uniform(first, last));
        }
        let Some(("lognormal", numbers)) = text.split_once(':') else {
            return Ok(Self::Fixed(tokens(text)?));
        };
        let numbers: Vec<&str> = numbers.split(':').collect();
        let (median, sigma, most) = match numbers[..] {
            [median, sigma] => (median, sigma, None),
            [median, sigma, most] => (median, sigma, Some(most)),
            _ => bail!(
                "write lognormal:MEDIAN:SIGMA or lognormal:MEDIAN:SIGMA:MOST, as lognormal:64:0.8:512"
            ),
        };
        let sigma: f64 = sigma
            .parse()
            .with_context(|| format!("'{sigma}' is no number"))?;
        ensure!(
            (0.0..=10.0).contains(&sigma),
            "a sigma of {sigma} makes no sense: take 0 to 10, as 0.8"
        );
        let most = most.map_or(Ok(MOST), tokens)?;
        let median = tokens(median)?;
        ensure!(
            median <= most,
            "a median of {median} is more than the longest length, {most}"
        );
        Ok(Self::LogNormal {
            median,
            sigma,
            most,
        })
    }
}

fn tokens(text: &str) -> Result<usize> {
    let help = || format!("'{text}' is no number of tokens: write 64, 16..256 or lognormal:64:0.8");
    let tokens: usize = text.trim().parse().with_context(help)?;
    ensure!(
        tokens > 0,
        "0 tokens are too few: a prompt and an answer have at least 1"
    );
    ensure!(
        tokens <= MOST,
        "{tokens} tokens are too many: at most {MOST}"
    );
    Ok(tokens)
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Uniform(first, last) => write!(f, "{first}..{last}"),
            Self::LogNormal {
                median,
                sigma,
                most: MOST,
            } => write!(f, "lognormal:{median}:{sigma}"),
            Self::LogNormal {
                median,
                sigma,
                most,
            } => write!(f, "lognormal:{median}:{sigma}:{most}"),
        }
    }
}
