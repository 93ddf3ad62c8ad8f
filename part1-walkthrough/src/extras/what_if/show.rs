//! What breaks without a piece, on a terminal.

use std::io::Write;

use anyhow::Result;
use console::numbers::fixed;
use console::report::Report;

use crate::show::picture::{self, BeforeAfter};
use crate::show::{Pace, Screen, after_layer, card};
use crate::trace::{Trace, WhatIf, WhatIfOutcome};

/// What breaks without a piece.
///
/// # Errors
/// If stdout fails, or Ctrl-C was pressed.
pub fn outcome<W: Write>(
    report: &mut Report<W>,
    pace: Pace,
    trace: &Trace,
    outcome: &WhatIfOutcome,
) -> Result<()> {
    report.card(&card(trace))?;
    report.blank()?;
    let (title, about) = described(outcome.switch);
    picture::heading(report, &format!("what if: {title}"), "the symptom")?;
    report.blank()?;
    let mut screen = Screen { report, pace };
    screen.say(about)?;
    screen.report.blank()?;
    let bars = bars(outcome);
    screen
        .picture(|report| picture::before_after(report, ["p as it is", "p without it"], &bars))?;
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

pub(crate) fn described(switch: WhatIf) -> (String, &'static str) {
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
