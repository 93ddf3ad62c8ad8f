//! Step 2 on a terminal.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use console::numbers::fixed;

use super::picture::{self, Dot, plane};
use super::{Screen, piece, short};
use crate::trace::{Embedded, Map, Meanings, Neighbour, Positions, Token, Trace};

/// Neighbours that have room in a row.
const NEIGHBOURS: usize = 3;
/// Positions and pairs of the picture of the rotation.
const TURNS: (usize, usize) = (12, 32);

pub(super) fn show<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    let (e, v) = (trace.model.width, trace.model.vocabulary);
    screen.say(&format!(
        "Each id picks a row of a table [V, E] = [{v}, {e}]: {e} numbers that say what the piece means, \
         the same in every sentence. The more two pieces are used alike, the more their vectors point the \
         same way: a cosine of 1 is the same direction, 0 nothing in common.",
    ))?;
    screen.report.blank()?;
    let rows = rows(trace);
    let head = ["piece", "length", "first numbers", "nearest (cosine)"];
    screen.picture(|report| report.text_table(&head, &rows, &[0, 2, 3]))?;
    let map = &trace.embedding.map;
    screen.say(&format!(
        "The same on a plane, the prompt's pieces in bold: of the {e} directions the two along which \
         these points differ most (PCA), {} and {} % of their variance.",
        fixed(f64::from(map.explained[0] * 100.0), 0),
        fixed(f64::from(map.explained[1] * 100.0), 0)
    ))?;
    screen.report.blank()?;
    let dots = dots(map);
    screen.picture(|report| plane(report, &dots))?;
    if let Some(found) = &trace.embedding.meanings {
        meanings(screen, e, found)?;
    }
    positions(screen, trace)
}

fn rows(trace: &Trace) -> Vec<Vec<String>> {
    let mut seen = BTreeSet::new();
    let tokens = trace.tokens.iter().zip(&trace.embedding.tokens);
    let row = |(token, vector): (&Token, &Embedded)| {
        let first = vector
            .first
            .iter()
            .take(2)
            .map(|value| format!("{value:+.2}"));
        let near = vector.neighbours.iter().take(NEIGHBOURS).map(neighbour);
        vec![
            piece(&token.piece),
            fixed(f64::from(vector.norm), 2),
            first.collect::<Vec<_>>().join(" ") + " …",
            near.collect::<Vec<_>>().join("  "),
        ]
    };
    tokens
        .filter(|(token, _)| seen.insert(token.id))
        .map(row)
        .collect()
}

fn neighbour(near: &Neighbour) -> String {
    format!("{} {:.2}", short(&near.piece), near.cosine)
}

/// Words along two named directions.
fn meanings<W: Write>(screen: &mut Screen<'_, W>, e: usize, found: &Meanings) -> Result<()> {
    let list = |words: &[String]| {
        words
            .iter()
            .map(|word| piece(word))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let [right, up] = &found.axes;
    screen.say(&format!(
        "A map of meanings: to the right the direction from {} to {}, upwards the one from {} to {}. The \
         words on it are in neither. These are 2 of {e} directions that a row has room for; more cost \
         memory and time in every layer.",
        list(&right.from),
        list(&right.to),
        list(&up.from),
        list(&up.to)
    ))?;
    screen.report.blank()?;
    let dots: Vec<Dot<'_>> = found
        .points
        .iter()
        .map(|point| Dot {
            label: &point.piece,
            x: f64::from(point.x),
            y: f64::from(point.y),
            important: true,
        })
        .collect();
    screen.picture(|report| plane(report, &dots))
}

fn dots(map: &Map) -> Vec<Dot<'_>> {
    let points = map.points.iter();
    points
        .map(|point| Dot {
            label: &point.piece,
            x: f64::from(point.x),
            y: f64::from(point.y),
            important: !point.at.is_empty(),
        })
        .collect()
}

fn positions<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    match &trace.positions {
        Positions::Rotated {
            theta,
            frequencies,
            same_distance,
            ..
        } => {
            screen.say(&format!(
                "The table does not know where a piece stands. This model turns q and k instead of \
                 adding something: pair i of the D = {} numbers of a head by position · θ^(-2i/D), with \
                 θ = {}. One arrow is one pair; the first ones whirl, the last ones hardly move.",
                2 * frequencies.len(),
                console::numbers::count(*theta as u64)
            ))?;
            screen.report.blank()?;
            let rows = turns(trace, frequencies);
            screen.picture(|report| {
                picture::rows(
                    report,
                    rows.iter()
                        .map(|(label, row)| (label.as_str(), row.clone())),
                )
            })?;
            let products = same_distance.iter().map(|shifted| {
                format!(
                    "q at {}, k at {}: {:.2}",
                    shifted.query, shifted.key, shifted.product
                )
            });
            screen.say(&format!(
                "So q·k depends on the distance alone. {}.",
                products.collect::<Vec<_>>().join("; ")
            ))?;
            screen.report.blank()?;
        }
        Positions::Learned { rows, .. } => learned(screen, trace, *rows)?,
    }
    Ok(())
}

/// A row per position, an arrow per pair.
fn turns(trace: &Trace, frequencies: &[f32]) -> Vec<(String, String)> {
    let every = frequencies.len().div_ceil(TURNS.1);
    let positions = trace.tokens.len().clamp(2, TURNS.0);
    let row = |position: usize| {
        let arrows = frequencies.iter().step_by(every);
        let arrows: Vec<String> = arrows
            .map(|frequency| arrow(position as f32 * frequency).to_string())
            .collect();
        (format!("position {position}"), arrows.join(" "))
    };
    (0..positions).map(row).collect()
}

/// The direction of an angle in radians, counted from the right, against the clock.
fn arrow(angle: f32) -> char {
    const ARROWS: [char; 8] = ['→', '↗', '↑', '↖', '←', '↙', '↓', '↘'];
    let eighths = (angle / std::f32::consts::FRAC_PI_4).round() as usize;
    ARROWS[eighths % 8]
}

fn learned<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace, table: usize) -> Result<()> {
    screen.say(&format!(
        "The table does not know where a piece stands. This model has a second table with a row for each \
         of {table} positions and adds it, once: final vector = token embedding + positional embedding. (Llama, Mistral and Qwen \
         add nothing. They turn q and k by their position, in every layer.)",
    ))?;
    screen.report.blank()?;
    let added = trace
        .tokens
        .iter()
        .zip(&trace.embedding.added_positions)
        .enumerate();
    let rows: Vec<Vec<String>> = added
        .map(|(position, (token, added))| {
            let number = |value: f32| fixed(f64::from(value), 2);
            vec![
                piece(&token.piece),
                position.to_string(),
                number(added.norm),
                number(added.sum_norm),
                number(added.cosine),
            ]
        })
        .collect();
    let head = [
        "piece",
        "position",
        "its length",
        "sum's length",
        "cosine before / after",
    ];
    screen.picture(|report| report.table(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::PI;

    #[test]
    fn arrows_turn_against_the_clock() {
        let turned = [
            0.0,
            PI / 4.0,
            PI / 2.0,
            PI,
            1.5 * PI,
            2.0 * PI,
            2.0 * PI + 0.1,
        ];
        assert_eq!(turned.map(arrow), ['→', '↗', '↑', '←', '↓', '→', '→']);
    }
}
