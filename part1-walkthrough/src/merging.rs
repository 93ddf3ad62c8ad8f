//! Byte pair encoding of the prompt, merge by merge, as it was done by the tokenizer.
//!
//! Every word begins as single bytes. Again and again the two neighbours are joined whose merge stands
//! first in the vocabulary's list, until none of the neighbours is in it. The result is compared with the
//! ids of the tokenizer itself: what does not agree is not shown.

use anyhow::{Context, Result};
use shared::tokenizer::{Bpe, Tokenizer};

use crate::tokenize::name;
use crate::trace::{Joined, MergeTable, Merging, Word};

/// Bytes of merges that a page has room for.
const PAGE_ROOM: usize = 100_000;

/// How the tokens of a prompt were put together. None where the vocabulary is not one of bytes and merges.
///
/// # Errors
/// For an id that neither the tokenizer nor the model has.
pub fn merging(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Option<Merging>> {
    let Some(bpe) = tokenizer.bpe() else {
        return Ok(None);
    };
    let mut words = Vec::new();
    let mut at = 0;
    for run in texts(tokenizer, ids)? {
        match run {
            Run::Mark => at += 1,
            Run::Text(text, count) => {
                let Some(found) = of_text(tokenizer, &bpe, &text, &ids[at..at + count], at)? else {
                    return Ok(None);
                };
                words.extend(found);
                at += count;
            }
        }
    }
    Ok(Some(Merging {
        merges: bpe.merges().len(),
        words,
        table: table(&bpe),
    }))
}

/// What lies between two marks, or a mark.
enum Run {
    Mark,
    /// A text and how many tokens it has.
    Text(String, usize),
}

fn texts(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let (mut bytes, mut count) = (Vec::new(), 0);
    let end = |bytes: &mut Vec<u8>, count: &mut usize, runs: &mut Vec<Run>| {
        if *count > 0 {
            let text = String::from_utf8_lossy(bytes).into_owned();
            runs.push(Run::Text(text, std::mem::take(count)));
            bytes.clear();
        }
    };
    for id in ids {
        let piece = tokenizer.piece(*id)?.context("an id without a piece")?;
        if piece.special {
            end(&mut bytes, &mut count, &mut runs);
            runs.push(Run::Mark);
        } else {
            bytes.extend(piece.bytes);
            count += 1;
        }
    }
    end(&mut bytes, &mut count, &mut runs);
    Ok(runs)
}

/// The words of a text whose tokens are `ids`, the first of them at position `at`; None if they are cut in
/// another way.
fn of_text(
    tokenizer: &Tokenizer,
    bpe: &Bpe<'_>,
    text: &str,
    ids: &[u32],
    at: usize,
) -> Result<Option<Vec<Word>>> {
    let (mut words, mut seen) = (Vec::new(), 0);
    for word in bpe.words(text).unwrap_or_default() {
        let Some((bytes, steps)) = bpe.steps(&word) else {
            return Ok(None);
        };
        let last = steps.last().map_or(&bytes, |step| &step.ids);
        let end = seen + last.len();
        if ids.get(seen..end) != Some(last) {
            return Ok(None);
        }
        let names = |ids: &[u32]| -> Result<Vec<String>> {
            ids.iter().map(|id| name(tokenizer, *id)).collect()
        };
        let pieces: Vec<String> = names(last)?;
        let joined = steps.iter().map(|step| {
            Ok(Joined {
                rank: step.rank,
                at: step.at,
                pieces: names(&step.ids)?,
            })
        });
        words.push(Word {
            first: at + seen,
            text: pieces.concat(),
            steps: joined.collect::<Result<_>>()?,
            bytes: names(&bytes)?,
        });
        seen = end;
    }
    Ok((seen == ids.len()).then_some(words))
}

/// The merges for a page, if it has room for them.
fn table(bpe: &Bpe<'_>) -> Option<MergeTable> {
    let lines: Vec<String> = bpe
        .merges()
        .iter()
        .map(|(a, b)| format!("{a} {b}"))
        .collect();
    let merges = lines.join("\n");
    if merges.len() > PAGE_ROOM {
        return None;
    }
    let ids = bpe.merges().iter().map(|(a, b)| bpe.id(&format!("{a}{b}")));
    let ids: Vec<u32> = ids.collect::<Option<_>>()?;
    let first = *ids.first()?;
    let regular = ids
        .iter()
        .zip(first..)
        .all(|(id, expected)| *id == expected);
    Some(MergeTable {
        merges,
        ids: if regular { Vec::new() } else { ids },
        first,
        alphabet: bpe.alphabet(),
        marks: bpe.marks(),
        digits: bpe.digits(),
    })
}
