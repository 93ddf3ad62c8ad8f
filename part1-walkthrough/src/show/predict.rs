//! Step 4 on a terminal.

use std::io::Write;

use anyhow::Result;
use console::numbers::{count, decimal, fixed, plural};
use shared::sampling::Sampling;

use super::picture::{self, BeforeAfter};
use super::{Screen, after_layer, piece};
use crate::trace::{Candidate, Cost, Filter, Prediction, Trace};

/// Bars at other temperatures.
const COMPARED: usize = 6;

pub(super) fn show<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    lens(screen, trace)?;
    bars(screen, trace)?;
    temperatures(screen, &trace.prediction)?;
    budget(screen, trace)
}

fn lens<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    screen.say(&format!(
        "The head multiplies the last vector with all {} rows: a score for each token. Asked after every \
         layer (the logit lens), it shows how the answer “{}” forms:",
        count(trace.model.vocabulary as u64),
        piece(&trace.prediction.greedy.piece)
    ))?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = trace
        .lens
        .iter()
        .map(|row| {
            let said = row.last.iter().take(3).map(candidate).collect::<Vec<_>>();
            vec![
                after_layer(row.after),
                fixed(f64::from(row.answer), 3),
                said.join("   "),
            ]
        })
        .collect();
    let answer = format!("p of {}", trace.prediction.greedy.piece);
    let head = ["after", &answer, "would say (p)"];
    screen.picture(|report| report.text_table(&head, &rows, &[0, 2]))
}

fn candidate(token: &Candidate) -> String {
    format!("{} {:.2}", piece(&token.piece), token.probability)
}

fn bars<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    let prediction = &trace.prediction;
    let example = if prediction.example {
        "The flags are greedy, which takes the first one. As an example, sampling with "
    } else {
        "Softmax makes probabilities of the scores. Sampling with "
    };
    screen.say(&format!("{example}{}:", described(&prediction.settings)))?;
    screen.report.blank()?;
    let rows: Vec<BeforeAfter<'_>> = prediction
        .bars
        .iter()
        .map(|bar| BeforeAfter {
            label: &bar.piece,
            before: f64::from(bar.before),
            after: f64::from(bar.after),
            note: bar.reason.as_deref().unwrap_or("stays"),
        })
        .collect();
    let heads = ["p at T = 1", "p of being drawn"];
    screen.picture(|report| picture::before_after(report, heads, &rows))?;
    let chosen = &prediction.chosen;
    screen.say(&format!(
        "{}The flags choose “{}”.",
        removed(prediction),
        piece(&chosen.piece)
    ))?;
    screen.report.blank()?;
    Ok(())
}

fn described(settings: &Sampling) -> String {
    let mut words = Vec::new();
    if settings.repetition_penalty != 1.0 {
        words.push(format!(
            "repetition penalty {}",
            settings.repetition_penalty
        ));
    }
    if settings.top_p < 1.0 {
        words.push(format!("top-p {}", settings.top_p));
    }
    if settings.min_p > 0.0 {
        words.push(format!("min-p {}", settings.min_p));
    }
    if settings.top_k > 0 {
        words.push(format!("top-k {}", settings.top_k));
    }
    words.push(format!("temperature {}", settings.temperature));
    words.join(", then ")
}

fn removed(prediction: &Prediction) -> String {
    let sentence = |outcome: &crate::trace::FilterOutcome| {
        let name = match outcome.filter {
            Filter::TopP => "top-p",
            Filter::MinP => "min-p",
            Filter::TopK => "top-k",
        };
        format!(
            "{name} removes {} and leaves {} with {} of the probability. ",
            tokens(outcome.removed),
            tokens(outcome.kept),
            fixed(f64::from(outcome.mass), 3)
        )
    };
    prediction.filters.iter().map(sentence).collect()
}

fn tokens(n: usize) -> String {
    format!("{} {}", count(n as u64), plural(n, "token"))
}

fn temperatures<W: Write>(screen: &mut Screen<'_, W>, prediction: &Prediction) -> Result<()> {
    screen.say(
        "The temperature alone: softmax(logits / T). It never changes the order, only how far the first \
         is ahead.",
    )?;
    screen.report.blank()?;
    let heads: Vec<String> = prediction
        .temperatures
        .iter()
        .map(|column| format!("T = {:.1}", column.temperature))
        .collect();
    let head: Vec<&str> = ["piece"]
        .into_iter()
        .chain(heads.iter().map(String::as_str))
        .collect();
    let bars = prediction.bars.iter().take(COMPARED).enumerate();
    let rows: Vec<Vec<String>> = bars
        .map(|(row, bar)| {
            let columns = prediction.temperatures.iter();
            let numbers = columns.map(|column| fixed(f64::from(column.probabilities[row]), 3));
            [piece(&bar.piece)].into_iter().chain(numbers).collect()
        })
        .collect();
    screen.picture(|report| report.table(&head, &rows))
}

fn budget<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    screen.say(&format!(
        "What one pass takes (tokens: {}), all layers together. An operation is one addition or one \
         multiplication in a matrix product; the time was measured with a wait after each part:",
        trace.tokens.len()
    ))?;
    screen.report.blank()?;
    let total = |of: fn(&Cost) -> u64| trace.budget.iter().map(of).sum::<u64>();
    let sum = Cost {
        part: "all".to_owned(),
        parameters: total(|cost| cost.parameters),
        flops: total(|cost| cost.flops),
        bytes: total(|cost| cost.bytes),
        micros: trace.budget.iter().map(|cost| cost.micros).sum(),
    };
    let rows: Vec<Vec<String>> = trace.budget.iter().chain([&sum]).map(cost_row).collect();
    let head = [
        "part",
        "parameters",
        "million operations",
        "weights read",
        "measured µs",
    ];
    screen.picture(|report| report.table(&head, &rows))?;
    if trace.model.tied {
        screen.say("The head has no weights of its own: it is the embedding's table once more.")?;
        screen.report.blank()?;
    }
    Ok(())
}

fn cost_row(cost: &Cost) -> Vec<String> {
    vec![
        cost.part.clone(),
        count(cost.parameters),
        fixed(cost.flops as f64 / 1e6, 2),
        decimal(cost.bytes),
        fixed(cost.micros, 0),
    ]
}
