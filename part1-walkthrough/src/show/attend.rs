//! Step 3 on a terminal.

use std::io::Write;

use anyhow::Result;
use console::numbers::fixed;

use super::{Screen, picture, piece, sizes, tiny};
use crate::trace::{Check, Floats, Focus, Layer, Positions, Trace, Width};

pub(super) fn show<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    let focus = &trace.focus;
    if matches!(trace.positions, Positions::Learned { .. }) {
        screen.say(
            "Four stages of GPT-2 differ from Llama's. Positions were added before the first block, so q \
             and k are not turned here. LayerNorm takes off the mean and adds a bias; RMSNorm does \
             neither. One matrix makes q, k and v. The MLP has GELU between two matrices, not SwiGLU \
             among three.",
        )?;
    }
    screen.say(&format!(
        "{} blocks, one after the other, change the vectors{}. Each adds to the stream what attention \
         collects from earlier tokens, and what the MLP makes of it. The arrays of layer {}:",
        trace.model.layers,
        elsewhere(&trace.embedding.widths),
        focus.layer
    ))?;
    screen.report.blank()?;
    let shapes: Vec<Vec<String>> = focus
        .shapes
        .iter()
        .map(|shape| vec![shape.name.clone(), shape.letters.clone(), sizes(shape)])
        .collect();
    let head = ["array", "letters", "sizes"];
    screen.picture(|report| report.text_table(&head, &shapes, &[0, 1, 2]))?;
    last_row(screen, trace)?;
    heat_map(screen, trace)?;
    layers(screen, trace)?;
    checks(screen, &trace.checks)
}

/// ` (GPT-2 small has 12, …)`
fn elsewhere(widths: &[Width]) -> String {
    let known = widths.iter().filter(|width| width.source.is_some());
    let known: Vec<String> = known
        .map(|width| format!("{} has {}", width.model, width.layers))
        .collect();
    format!(" ({})", known.join(", "))
}

/// The formula in numbers, for the last token.
fn last_row<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    let (focus, l) = (&trace.focus, trace.tokens.len());
    let Focus {
        layer,
        head,
        kv_head,
        ..
    } = focus;
    screen.say(&format!(
        "softmax(q kᵀ / √D + mask) v, layer {layer}, head {head} (it reads key/value head {kv_head}). The \
         last token asks with its q, every token answers with its k; each score is divided by \
         √{} = {}; softmax makes shares of them.",
        trace.model.head_dim,
        (100.0 * (trace.model.head_dim as f64).sqrt()).round() / 100.0
    ))?;
    screen.report.blank()?;
    let number = |value: f32, decimals| fixed(f64::from(value), decimals);
    let rows: Vec<Vec<String>> = (0..l)
        .map(|column| {
            let cell = |floats: &Floats| floats.row(l - 1, l)[column];
            vec![
                format!("{column} {}", piece(&trace.tokens[column].piece)),
                number(cell(&focus.raw), 2),
                number(cell(&focus.scaled), 2),
                masked(cell(&focus.masked)),
                number(cell(&focus.weights), 3),
                number(focus.value_norms[column], 2),
            ]
        })
        .collect();
    let head = [
        "looks at",
        "q·k",
        "/ √D",
        "+ mask",
        "softmax",
        "length of v",
    ];
    screen.picture(|report| report.table(&head, &rows))
}

fn masked(score: f32) -> String {
    if score == f32::NEG_INFINITY {
        "-∞".to_owned()
    } else {
        fixed(f64::from(score), 2)
    }
}

fn heat_map<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    screen.say(&format!(
        "The same for every token: who (row) looks at whom (column), in per cent. A dot is what the mask \
         hides: no token sees the ones after it. Layer {}, head {}; --layer and --head show the others.",
        trace.focus.layer, trace.focus.head
    ))?;
    screen.report.blank()?;
    let labels: Vec<&str> = trace
        .tokens
        .iter()
        .map(|token| token.piece.as_str())
        .collect();
    let shares = trace.focus.masked.0.iter().zip(&trace.focus.weights.0);
    let cells: Vec<f32> = shares
        .map(|(masked, share)| if masked.is_finite() { *share } else { f32::NAN })
        .collect();
    screen.picture(|report| picture::heat_map(report, &labels, &cells))
}

/// What each layer does to the last token.
fn layers<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    screen.say(
        "What each layer adds to the last token's vector, as lengths, and the head that adds most with \
         the token that it looks at most:",
    )?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = trace
        .layers
        .iter()
        .enumerate()
        .map(|row| layer_row(trace, row))
        .collect();
    let head = [
        "layer",
        "stream",
        "attention adds",
        "MLP adds",
        "loudest head",
        "looks at",
    ];
    screen.picture(|report| report.text_table(&head, &rows, &[0, 5]))
}

fn layer_row(trace: &Trace, (index, layer): (usize, &Layer)) -> Vec<String> {
    let l = trace.tokens.len();
    let last = l - 1;
    let loudest = layer.loudest(last);
    let row = layer.weights.row(loudest * l + last, l);
    let most = (0..l)
        .max_by(|a, b| row[*a].total_cmp(&row[*b]))
        .unwrap_or(0);
    let number = |value: f32| fixed(f64::from(value), 2);
    vec![
        index.to_string(),
        number(layer.stream_norms[last]),
        number(layer.attention_norms[last]),
        number(layer.mlp_norms[last]),
        loudest.to_string(),
        format!(
            "{} {:.0} %",
            piece(&trace.tokens[most].piece),
            row[most] * 100.0
        ),
    ]
}

fn checks<W: Write>(screen: &mut Screen<'_, W>, checks: &[Check]) -> Result<()> {
    screen.say(
        "All this was computed in single steps. The later parts use one operation of MLX for each; the \
         largest difference between the two, relative to the largest number:",
    )?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| {
            vec![
                check.name.clone(),
                check.fused.clone(),
                tiny(check.difference / check.largest.max(f32::MIN_POSITIVE)),
                format!(
                    "{}{}",
                    tiny(check.tolerance),
                    if check.holds() { "" } else { " !" }
                ),
            ]
        })
        .collect();
    let head = ["in single steps", "one operation", "differs", "allowed"];
    screen.picture(|report| report.text_table(&head, &rows, &[0, 1]))
}
