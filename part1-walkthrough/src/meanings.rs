//! A map of meanings: words of the table along two directions that have names.
//!
//! A table of E columns has no column that means "hot" or "alive". But the difference of two groups of words
//! is a direction, and how far other words go along it says what training has put there. The words on the
//! map are in none of the groups, or they would stand where they were put.

use anyhow::Result;
use mlx_rs::{Array, Dtype, ops};
use shared::layers::{ids_array, to_f32};
use shared::tokenizer::Tokenizer;

use crate::decoder::Decoder;
use crate::embed::unit_rows;
use crate::tokenize::name;
use crate::trace::{Direction, Meaning, Meanings};

/// Both ends of each direction: the sky and animals, things and verbs.
const ENDS: [[&[&str]; 2]; 2] = [
    [&["sky", "space", "galaxy"], &["dog", "cat", "horse", "cow"]],
    [&["thing", "place", "part"], &["has", "have", "can", "will"]],
];
/// What is placed on the map.
const WORDS: [&str; 12] = [
    "sun", "moon", "star", "planet", "bird", "rabbit", "bear", "elephant", "is", "are", "was",
    "were",
];
/// Words that an end and the map need at least.
const LEAST: (usize, usize) = (2, 6);

/// The map. None where the vocabulary has too few of the words as single pieces.
///
/// # Errors
/// If an operation fails.
pub fn meanings(decoder: &dyn Decoder, tokenizer: &Tokenizer) -> Result<Option<Meanings>> {
    let words = ids(tokenizer, &WORDS)?;
    let mut ends = Vec::new();
    for end in ENDS.into_iter().flatten() {
        ends.push(ids(tokenizer, end)?);
    }
    if words.len() < LEAST.1 || ends.iter().any(|end| end.len() < LEAST.0) {
        return Ok(None);
    }
    let table = decoder.table()?.as_dtype(Dtype::Float32)?;
    // What all rows have in common says nothing of any of them.
    let rows = unit_rows(&table.subtract(table.mean_axis(0, true)?)?)?;
    let of = |ids: &[u32]| -> Result<Array> {
        Ok(rows.take_axis(ids_array(ids), 0)?.squeeze_axes(&[0])?)
    };
    let middle = |ids: &[u32]| -> Result<Array> { Ok(of(ids)?.mean_axis(0, true)?) };
    let direction = |axis: usize| -> Result<Array> {
        let difference = middle(&ends[2 * axis + 1])?.subtract(middle(&ends[2 * axis])?)?;
        unit_rows(&difference)
    };
    let axes = ops::concatenate(&[direction(0)?, direction(1)?], 0)?; // [2, E]
    let along = to_f32(&ops::matmul(of(&words)?, axes.t())?)?; // n·2
    let names = |ids: &[u32]| -> Result<Vec<String>> {
        ids.iter().map(|id| name(tokenizer, *id)).collect()
    };
    let axis = |axis: usize| -> Result<Direction> {
        Ok(Direction {
            from: names(&ends[2 * axis])?,
            to: names(&ends[2 * axis + 1])?,
        })
    };
    let point = |(piece, place): (String, &[f32])| Meaning {
        piece,
        x: place[0],
        y: place[1],
    };
    Ok(Some(Meanings {
        axes: [axis(0)?, axis(1)?],
        points: names(&words)?
            .into_iter()
            .zip(along.chunks(2))
            .map(point)
            .collect(),
    }))
}

/// Those of the words that are one piece, with the space before them.
fn ids(tokenizer: &Tokenizer, words: &[&str]) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for word in words {
        if let [id] = tokenizer.encode_plain(&format!(" {word}"))?[..] {
            found.push(id);
        }
    }
    Ok(found)
}
