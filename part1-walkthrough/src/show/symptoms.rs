//! `--what-if` and `--compare` on a terminal.

use std::io::Write;

use anyhow::Result;
use shared::report::{BeforeAfter, Report, fixed};

use super::{Pace, Screen, card, model_card, short};
use crate::trace::{Comparison, Drift, HeadShift, Side, Token, Trace, WhatIf, WhatIfOutcome};

/// What breaks without a piece.
///
/// # Errors
/// If stdout fails, or Ctrl-C was pressed.
pub fn what_if<W: Write>(
    report: &mut Report<W>,
    pace: Pace,
    trace: &Trace,
    outcome: &WhatIfOutcome,
) -> Result<()> {
    report.card(&card(trace))?;
    report.blank()?;
    let (title, about) = described(outcome.switch);
    report.heading(&format!("what if: {title}"), "the symptom")?;
    report.blank()?;
    let mut screen = Screen { report, pace };
    screen.say(about)?;
    screen.report.blank()?;
    let bars = bars(outcome);
    screen.picture(|report| report.before_after(["p as it is", "p without it"], &bars))?;
    screen.say(
        "The last token's vector with and without it (cosine), and how widely attention looks (mean \
         entropy of a row, in bits):",
    )?;
    screen.report.blank()?;
    let head = ["after", "cosine", "entropy as it is", "entropy without it"];
    screen.picture(|report| report.table(&head, &layer_rows(outcome)))?;
    screen.picture(|report| {
        report.card(&[
            ("as it is", &outcome.text_before),
            ("without it", &outcome.text_after),
        ])
    })
}

fn described(switch: WhatIf) -> (String, &'static str) {
    match switch {
        WhatIf::NoMask => (
            "no mask".to_owned(),
            "Every token sees the ones after it, too, which it never did in training. The last token sees no \
             more than before, but what it looks at has changed.",
        ),
        WhatIf::NoPositions => (
            "no positions".to_owned(),
            "q and k are not turned. A token still sees only those before it, but not how far away they are.",
        ),
        WhatIf::NoScaling => (
            "no division by √D".to_owned(),
            "Scores are √D times as large, and softmax of large numbers gives nearly all to one token.",
        ),
        WhatIf::ZeroHead { layer, head } => (
            format!("layer {layer} without head {head}"),
            "One head adds nothing to the stream. Most heads can be spared, some cannot.",
        ),
    }
}

/// The tokens that were likely, then those that have become so.
fn bars(outcome: &WhatIfOutcome) -> Vec<BeforeAfter<'_>> {
    let was = outcome.before.iter().zip(&outcome.before_then);
    let was = was.map(|(token, then)| BeforeAfter {
        label: &token.piece,
        before: f64::from(token.probability),
        after: f64::from(*then),
        note: "",
    });
    let new = outcome
        .after
        .iter()
        .filter(|token| outcome.before.iter().all(|before| before.id != token.id));
    let new = new.map(|token| BeforeAfter {
        label: &token.piece,
        before: 0.0,
        after: f64::from(token.probability),
        note: "was not among the first",
    });
    was.chain(new).collect()
}

fn layer_rows(outcome: &WhatIfOutcome) -> Vec<Vec<String>> {
    let row = |(after, cosine): (usize, &f32)| {
        let bits = |values: &[f32]| match after.checked_sub(1) {
            Some(layer) => fixed(f64::from(values[layer]), 2),
            None => String::new(),
        };
        vec![
            after_layer(after),
            fixed(f64::from(*cosine), 3),
            bits(&outcome.entropy_before),
            bits(&outcome.entropy_after),
        ]
    };
    outcome.cosines.iter().enumerate().map(row).collect()
}

fn after_layer(blocks: usize) -> String {
    match blocks {
        0 => "embedding".to_owned(),
        n => format!("layer {}", n - 1),
    }
}

/// One word in two sentences.
///
/// # Errors
/// If stdout fails, or Ctrl-C was pressed.
pub fn comparison<W: Write>(report: &mut Report<W>, pace: Pace, found: &Comparison) -> Result<()> {
    let mut rows = model_card(&found.model);
    if let Some(switch) = found.what_if {
        rows.push(("what if", described(switch).0));
    }
    report.card(&rows)?;
    report.blank()?;
    let title = format!("{:?} in two sentences", found.word);
    report.heading(&title, "the same vector, until attention")?;
    report.blank()?;
    let mut screen = Screen { report, pace };
    match &found.repeated {
        None => drift(&mut screen, found, &found.first),
        Some(repeated) => {
            screen.say(&only_what_came_before(found))?;
            screen.report.blank()?;
            drift(&mut screen, found, repeated)
        }
    }
}

fn only_what_came_before(found: &Comparison) -> String {
    let lowest = found.first.cosines.iter().copied().fold(1.0, f32::min);
    format!(
        "{:?} stands behind the same tokens in both sentences, and a decoder's token sees only what came \
         before it. So the two vectors are the same after every layer (lowest cosine {lowest:.3}): what \
         follows cannot tell one from the other. Read each sentence twice, and the second {:?} has the \
         whole sentence behind it:",
        found.word, found.word
    )
}

fn drift<W: Write>(screen: &mut Screen<'_, W>, found: &Comparison, drift: &Drift) -> Result<()> {
    let marked: Vec<(&str, String)> = drift
        .sides
        .iter()
        .zip(["A", "B"])
        .map(|(side, name)| (name, mark(side)))
        .collect();
    screen.picture(|report| report.card(&marked))?;
    screen.say(&format!(
        "Cosine between the two vectors of {:?} (its last piece), and the length of their difference:",
        found.word
    ))?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = drift
        .cosines
        .iter()
        .zip(&drift.distances)
        .enumerate()
        .map(|(after, (cosine, distance))| {
            let number = |value: f32| fixed(f64::from(value), 3);
            vec![
                after_layer(after),
                number(*cosine),
                number(*distance),
                gauge(*cosine),
            ]
        })
        .collect();
    screen.picture(|report| {
        report.text_table(&["after", "cosine", "difference", ""], &rows, &[0, 3])
    })?;
    screen.say("The heads that moved it most, and where it looks most in each sentence:")?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = drift
        .heads
        .iter()
        .map(|head| head_row(drift, head))
        .collect();
    let head = [
        "layer.head",
        "moved by",
        "in A it looks at",
        "in B it looks at",
    ];
    screen.picture(|report| report.text_table(&head, &rows, &[0, 2, 3]))
}

/// A bar from 0 to 1 of fixed width.
fn gauge(cosine: f32) -> String {
    const CELLS: usize = 24;
    let filled = (cosine.clamp(0.0, 1.0) * CELLS as f32).round() as usize;
    "█".repeat(filled) + &"░".repeat(CELLS - filled)
}

/// The sentence's pieces, the followed one in brackets.
fn mark(side: &Side) -> String {
    let piece = |(position, token): (usize, &Token)| match position == side.position {
        true => format!("[{}]", token.piece),
        false => token.piece.clone(),
    };
    let pieces: Vec<String> = side.tokens.iter().enumerate().map(piece).collect();
    pieces.join(" ")
}

fn head_row(drift: &Drift, head: &HeadShift) -> Vec<String> {
    let looks = |i: usize| {
        let row = &head.attention[i];
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        let named = |at: &usize| {
            format!(
                "{} {:.0} %",
                short(&drift.sides[i].tokens[*at].piece),
                row[*at] * 100.0
            )
        };
        order
            .iter()
            .take(2)
            .map(named)
            .collect::<Vec<_>>()
            .join(", ")
    };
    vec![
        format!("{}.{}", head.layer, head.head),
        fixed(f64::from(head.shift), 3),
        looks(0),
        looks(1),
    ]
}
