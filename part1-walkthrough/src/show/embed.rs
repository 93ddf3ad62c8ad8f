//! Step 2 on a terminal.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use console::numbers::{count, decimal, fixed};

use super::picture::{self, Dot, plane};
use super::{Screen, piece, short};
use crate::trace::{Embedded, Map, Meanings, Neighbour, Order, Positions, Token, Trace, Width};

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
        meanings(screen, found)?;
    }
    widths(screen, e, &trace.embedding.widths)?;
    positions(screen, trace)?;
    match &trace.embedding.order {
        Some(found) => order(screen, found),
        None => Ok(()),
    }
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
fn meanings<W: Write>(screen: &mut Screen<'_, W>, found: &Meanings) -> Result<()> {
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
         words on it are in neither.",
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

/// What more directions cost.
fn widths<W: Write>(screen: &mut Screen<'_, W>, e: usize, found: &[Width]) -> Result<()> {
    screen.say(&format!(
        "A row has room for {e} directions. More cost memory and time in every layer: a matrix from {e} \
         numbers to {e} has {} weights, twice the width four times as many, and a token is multiplied with \
         all of them.",
        count((e * e) as u64)
    ))?;
    screen.report.blank()?;
    let millions = |number: u64| fixed(number as f64 / 1e6, 1);
    let row = |width: &Width| {
        vec![
            short(&width.model),
            count(width.width as u64),
            width.layers.to_string(),
            millions(width.parameters),
            decimal(2 * width.parameters),
            millions(width.multiplications),
        ]
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let head = [
        "model",
        "width",
        "layers",
        "weights M",
        "in 16 bits",
        "multiplied M a token",
    ];
    screen.picture(|report| report.table(&head, &rows))?;
    let sources = found.iter().filter_map(|width| {
        let source = width.source.as_ref()?;
        Some(format!("{} ({source})", width.model))
    });
    screen.say(&format!(
        "Computed from the sizes of {}; what a token is multiplied with besides, its keys and values, grows \
         with the text.",
        sources.collect::<Vec<_>>().join(", ")
    ))?;
    Ok(screen.report.blank()?)
}

/// The same words in another order.
fn order<W: Write>(screen: &mut Screen<'_, W>, found: &Order) -> Result<()> {
    let [a, b] = &found.texts;
    let last = found.pieces.last().map_or("", |piece| piece);
    screen.picture(|report| report.card(&[("A", a), ("B", b)]))?;
    screen.say(&format!(
        "Who bit whom? The rows of their pieces are the same, and so is the sum of them (difference {:.2}): a \
         bag of words. Where {last:?}, which sees them all, looks in layer 0, head {}, without positions and \
         with them:",
        found.sums, found.head
    ))?;
    screen.report.blank()?;
    let columns = [&found.without, &found.with].map(|reading| &reading.attention);
    let rows: Vec<Vec<String>> = (0..found.pieces.len())
        .map(|at| {
            let cells = columns.iter().flat_map(|both| both.iter());
            let mut row = vec![piece(&found.pieces[at])];
            row.extend(cells.map(|shares| shade(shares[at])));
            row
        })
        .collect();
    let head = ["looks at", "A without", "B without", "A with", "B with"];
    screen.picture(|report| report.text_table(&head, &rows, &[0]))?;
    let (without, with) = (&found.without, &found.with);
    screen.say(&format!(
        "What attention adds to it there is {:.2} long. Without positions A and B differ by {:.2}: nobody can \
         tell who bit whom. With positions they differ by {:.2}. In later layers even the mask tells something \
         of the order, since each word has seen only those before it: the cosine of the two vectors is {} \
         without positions and {} with them after the last layer.",
        with.length,
        without.difference,
        with.difference,
        end(&without.cosines),
        end(&with.cosines)
    ))?;
    Ok(screen.report.blank()?)
}

/// The last of some cosines.
fn end(cosines: &[f32]) -> String {
    fixed(f64::from(cosines.last().copied().unwrap_or(f32::NAN)), 3)
}

/// A share with a bar of eight cells.
fn shade(share: f32) -> String {
    const CELLS: usize = 8;
    let filled = (share.clamp(0.0, 1.0) * CELLS as f32).round() as usize;
    format!(
        "{}{} {share:.2}",
        "█".repeat(filled),
        "░".repeat(CELLS - filled)
    )
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
                count(*theta as u64)
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
