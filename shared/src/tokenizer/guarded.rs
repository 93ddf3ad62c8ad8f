//! The `tokenizers` crate within limits: it panics on tables that do not fit each other, and a
//! normalizer that doubles its text forty times is a valid one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::watch::{self, Limits};

const AGAIN: &str = "; fetch the file again";

const BROKEN: &str = "; its tokenizer.json is broken, so fetch it again or take another model";

/// A vocabulary of 260,000 tokens takes 200 MB and some seconds while it is read.
const READING: Limits = Limits {
    memory: 2_000_000_000,
    time: Duration::from_secs(60),
};

/// Ten times what a text takes that makes the most work for each of its bytes.
fn encoding(bytes: usize) -> Limits {
    Limits {
        memory: 200_000_000 + bytes.saturating_mul(2_000),
        time: Duration::from_secs(20) + Duration::from_micros(10) * bytes as u32,
    }
}

/// Reads a `tokenizer.json`.
pub(crate) fn parse(text: &str) -> Result<tokenizers::Tokenizer> {
    let text = text.to_owned();
    let parsed = watch::run("reading it", AGAIN, READING, move || text.parse())?;
    parsed.map_err(|error: tokenizers::Error| anyhow!("{error}{AGAIN}"))
}

/// The ids of a text.
pub(crate) fn encode(
    tokenizer: &Arc<tokenizers::Tokenizer>,
    text: &str,
    add_special: bool,
) -> Result<Vec<u32>> {
    let limits = encoding(text.len());
    let (tokenizer, text) = (Arc::clone(tokenizer), text.to_owned());
    let encode = move || {
        let encoding = tokenizer.encode_fast(text, add_special)?;
        Ok(encoding.get_ids().to_vec())
    };
    let ids = watch::run("its tokenizer", BROKEN, limits, encode)?;
    ids.map_err(|error: tokenizers::Error| anyhow!("{error}{BROKEN}"))
}
