//! "The dog bit the man." and "The man bit the dog.": the same words in another order.
//!
//! The rows of the table are the same in both sentences, and so is their sum: a bag of words. Attention adds
//! up, too, and a sum does not know its order. So the last token, which sees every other one, collects the
//! same from both sentences, as long as nothing says where a token stands. Both sentences run through the
//! model as it is, and once more without positions.
//!
//! In later layers a decoder is not quite blind without them: a token sees only what came before it, and that
//! was another part of the bag (Haviv et al. 2022, arXiv 2203.16634).

use anyhow::Result;
use mlx_rs::Array;
use shared::layers::to_f32;
use shared::tokenizer::Tokenizer;

use crate::decoder::Decoder;
use crate::embed::cosine;
use crate::pass::Pass;
use crate::pictures::norms;
use crate::tokenize::name;
use crate::trace::{Order, Reading, WhatIf};

/// The sentences. Both end with a token that sees all the others.
const SENTENCES: [&str; 2] = ["The dog bit the man.", "The man bit the dog."];

/// What the last token makes of both. None where a tokenizer cuts them into different pieces.
///
/// # Errors
/// If an operation fails.
pub fn order(decoder: &dyn Decoder, tokenizer: &Tokenizer) -> Result<Option<Order>> {
    let ids = [
        tokenizer.encode_plain(SENTENCES[0])?,
        tokenizer.encode_plain(SENTENCES[1])?,
    ];
    let Some(places) = same_words(&ids) else {
        return Ok(None);
    };
    let run = |ids: &[u32], switch| Pass::run(decoder, ids, switch);
    let with = [run(&ids[0], None)?, run(&ids[1], None)?];
    let switch = Some(WhatIf::NoPositions);
    let without = [run(&ids[0], switch)?, run(&ids[1], switch)?];
    let sum = |pass: &Pass| pass.embedded.tokens.sum_axis(1, false);
    let sums = sum(&with[0])?.subtract(sum(&with[1])?)?;
    let head = head(&with, &places, decoder.facts().heads)?;
    Ok(Some(Order {
        texts: SENTENCES.map(str::to_owned),
        pieces: ids[0]
            .iter()
            .map(|id| name(tokenizer, *id))
            .collect::<Result<_>>()?,
        sums: norms(&sums)?[0],
        head,
        without: reading(&without, &places, head)?,
        with: reading(&with, &places, head)?,
        places,
    }))
}

/// Where each token of the first sentence stands in the second. None if one is missing there, or if another
/// token is the last one.
fn same_words([a, b]: &[Vec<u32>; 2]) -> Option<Vec<usize>> {
    let mut free: Vec<bool> = b.iter().map(|_| true).collect();
    let place = |id: &u32| {
        let at = (0..b.len()).find(|at| free[*at] && b[*at] == *id)?;
        free[at] = false;
        Some(at)
    };
    let places: Vec<usize> = a.iter().map(place).collect::<Option<_>>()?;
    (a.len() == b.len() && places.last() == Some(&(b.len() - 1))).then_some(places)
}

/// The head of the first layer in which the last token changes most where it looks.
fn head(passes: &[Pass; 2], places: &[usize], heads: usize) -> Result<usize> {
    let mut most = (0.0, 0);
    for head in 0..heads {
        let [a, b] = looks(passes, places, head)?;
        let changed: f32 = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum();
        if changed > most.0 {
            most = (changed, head);
        }
    }
    Ok(most.1)
}

/// Where the last token looks in the first layer, in the order of the first sentence.
fn looks(passes: &[Pass; 2], places: &[usize], head: usize) -> Result<[Vec<f32>; 2]> {
    let row = |pass: &Pass| -> Result<Vec<f32>> {
        let weights = &pass.blocks[0].scores.weights; // [1, H, L, L]
        let row = weights.take_axis(Array::from_int(head as i32), 1)?;
        to_f32(&last(&row)?)
    };
    let other = row(&passes[1])?;
    Ok([
        row(&passes[0])?,
        places.iter().map(|place| other[*place]).collect(),
    ])
}

fn reading(passes: &[Pass; 2], places: &[usize], head: usize) -> Result<Reading> {
    let [a, b] = passes;
    let added = [last(&a.blocks[0].attention)?, last(&b.blocks[0].attention)?];
    let cosines = (0..=a.blocks.len()).map(|blocks| {
        let both = cosine(
            &last(a.stream_after(blocks))?,
            &last(b.stream_after(blocks))?,
        )?;
        Ok(to_f32(&both)?[0])
    });
    Ok(Reading {
        attention: looks(passes, places, head)?,
        length: norms(&added[0])?[0],
        difference: norms(&added[0].subtract(&added[1])?)?[0],
        cosines: cosines.collect::<Result<_>>()?,
    })
}

/// x `[1, L, N]` → `[1, N]`, of the last token.
fn last(x: &Array) -> Result<Array> {
    Ok(x.take_axis(Array::from_int(x.dim(1) - 1), 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_found_once_in_the_other_order() {
        let ids = [vec![1, 2, 3, 2, 9], vec![2, 3, 2, 1, 9]];
        assert_eq!(same_words(&ids), Some(vec![3, 0, 1, 2, 4]));
        assert_eq!(same_words(&[vec![1, 2, 9], vec![1, 1, 9]]), None);
        assert_eq!(same_words(&[vec![1, 2], vec![2, 1]]), None);
        assert_eq!(same_words(&[vec![1, 9], vec![1, 2, 9]]), None);
    }
}
