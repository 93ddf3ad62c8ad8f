//! What the steps of a run were, and what prompts cost the answers beside them.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::{decimal, heading, row};
use crate::metrics::median;
use crate::report::Report;
use crate::statistics::mean;

/// One step of an engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServedStep {
    /// How long it took.
    pub seconds: f64,
    /// Rows that got a token of their answer.
    pub rows: usize,
    /// Tokens of prompts that were computed beside.
    pub prompt_tokens: usize,
    /// Positions that were in memory at its end.
    pub kv_tokens: usize,
}

/// The steps of a run, summed up.
///
/// A *stall* is a step with answers and pieces of prompts in it. It costs the answers what it takes longer than
/// a step without prompts, with as many answers: the median of those, or of those with the nearest number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Steps {
    /// How many there were.
    pub count: usize,
    /// Answers in a step that had any, on average.
    pub mean_rows: Option<f64>,
    /// Most answers in a step.
    pub max_rows: usize,
    /// Share of the budget of positions that was used, on average over time.
    pub mean_kv_use: Option<f64>,
    /// The same at its highest.
    pub max_kv_use: Option<f64>,
    /// Steps in which answers waited for prompts.
    pub stalls: usize,
    /// The longest such wait. None without stalls, or without a step to compare with.
    pub max_stall_ms: Option<f64>,
    /// The mean.
    pub mean_stall_ms: Option<f64>,
    /// Share of the time of all steps with answers.
    pub stalled_share: Option<f64>,
}

impl Steps {
    pub(super) fn of(steps: &[ServedStep], kv_budget: usize) -> Self {
        let rows: Vec<f64> = steps
            .iter()
            .filter(|step| step.rows > 0)
            .map(|step| step.rows as f64)
            .collect();
        let time: f64 = steps.iter().map(|step| step.seconds).sum();
        let budget = (kv_budget > 0).then_some(kv_budget as f64);
        let kv_time: f64 = steps
            .iter()
            .map(|step| step.seconds * step.kv_tokens as f64)
            .sum();
        let kv_most = steps.iter().map(|step| step.kv_tokens).max();
        let (count, stalls) = stalls(steps);
        let answering: f64 = steps
            .iter()
            .filter(|step| step.rows > 0)
            .map(|step| step.seconds)
            .sum();
        Self {
            count: steps.len(),
            mean_rows: (!rows.is_empty()).then(|| mean(&rows)),
            max_rows: steps.iter().map(|step| step.rows).max().unwrap_or(0),
            mean_kv_use: budget
                .filter(|_| time > 0.0)
                .map(|budget| kv_time / time / budget),
            max_kv_use: budget.and_then(|budget| Some(kv_most? as f64 / budget)),
            stalls: count,
            max_stall_ms: stalls
                .iter()
                .copied()
                .reduce(f64::max)
                .map(|stall| stall * 1e3),
            mean_stall_ms: (!stalls.is_empty()).then(|| mean(&stalls) * 1e3),
            stalled_share: (!stalls.is_empty()).then(|| stalls.iter().sum::<f64>() / answering),
        }
    }

    pub(super) fn print<W: Write>(&self, report: &mut Report<W>) -> io::Result<()> {
        let percent = |share: Option<f64>| share.map(|share| share * 100.0);
        heading(report, "Steps", '-')?;
        row(report, "Steps:", &self.count.to_string())?;
        decimal(report, "Mean rows per step:", self.mean_rows)?;
        row(report, "Peak rows per step:", &self.max_rows.to_string())?;
        decimal(report, "Mean KV use (%):", percent(self.mean_kv_use))?;
        decimal(report, "Peak KV use (%):", percent(self.max_kv_use))?;
        row(
            report,
            "Stalls caused by prefill:",
            &self.stalls.to_string(),
        )?;
        decimal(report, "Mean stall (ms):", self.mean_stall_ms)?;
        decimal(report, "Longest stall (ms):", self.max_stall_ms)?;
        decimal(
            report,
            "Answer time in stalls (%):",
            percent(self.stalled_share),
        )
    }
}

/// How many, and their costs in seconds where there is something to compare with.
fn stalls(steps: &[ServedStep]) -> (usize, Vec<f64>) {
    let mut alone: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for step in steps
        .iter()
        .filter(|step| step.rows > 0 && step.prompt_tokens == 0)
    {
        alone.entry(step.rows).or_default().push(step.seconds);
    }
    let alone: BTreeMap<usize, f64> = alone
        .into_iter()
        .filter_map(|(rows, seconds)| Some((rows, median(&seconds)?)))
        .collect();
    let stalled = || {
        steps
            .iter()
            .filter(|step| step.rows > 0 && step.prompt_tokens > 0)
    };
    let cost = |step: &ServedStep| {
        let below = alone.range(..=step.rows).next_back();
        let above = alone.range(step.rows..).next();
        let near = below.into_iter().chain(above);
        let (_, usual) = near.min_by_key(|(rows, _)| rows.abs_diff(step.rows))?;
        Some((step.seconds - usual).max(0.0))
    };
    (stalled().count(), stalled().filter_map(cost).collect())
}
