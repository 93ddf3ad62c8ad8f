//! The measured comparison: one process at a time.
//!
//! Each measurement is the first answer of a fresh process, so that every part pays the same: what
//! MLX prepares at first use is in it, loading and tokenizing are not. One process per contestant
//! goes before and does not count; it brings the files into memory. Then the order changes from
//! round to round, so that nobody always finds the machine warm. No stop token ends an answer: all
//! do the same work.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use console::exec;
use console::interrupt::Interrupt;
use console::metrics::{Run, Summary};
use console::progress::style;
use console::report::warn;
use console::results::{Results, SCHEMA, Step};
use indicatif::ProgressBar;

use crate::answer::{Answer, Answers};
use crate::ask::Ask;
use crate::judge::Judge;
use crate::parts::Contestant;
use crate::process;

/// Tokens of the process that does not count.
const WARM_UP: u32 = 8;

/// What is measured.
#[derive(Debug)]
pub struct Bench<'a> {
    /// What all are asked.
    pub ask: &'a Ask,
    /// Who is asked, in the order of the ladder.
    pub contestants: &'a [Contestant],
    /// Tokens of each answer.
    pub max_tokens: u32,
    /// Measurements of each contestant.
    pub rounds: u32,
    /// Who says how much a difference weighs, if anybody can.
    pub judge: Option<Judge<'a>>,
    /// Ends it early.
    pub interrupt: &'a Interrupt,
}

impl Bench<'_> {
    /// Runs all rounds.
    ///
    /// # Errors
    /// If a part fails, or if the answers cannot be compared; or on Ctrl-C.
    pub fn run(&self, day: &str, commit: Option<String>) -> Result<Results> {
        for contestant in self.contestants {
            self.answer(contestant, WARM_UP.min(self.max_tokens), "warm-up")?;
        }
        let mut reports: Vec<Vec<Answers>> = vec![Vec::new(); self.contestants.len()];
        for round in 0..self.rounds {
            let doing = format!("round {} of {}", round + 1, self.rounds);
            for index in order(self.contestants.len(), round) {
                let report = self.answer(&self.contestants[index], self.max_tokens, &doing)?;
                reports[index].push(report);
            }
        }
        let mut results = self.results(&reports, day, commit)?;
        self.weigh(&mut results.steps, &reports)?;
        Ok(results)
    }

    /// Adds to each difference how much it weighs. Whoever cannot say so loses no measurement.
    fn weigh(&self, steps: &mut [Step], reports: &[Vec<Answers>]) -> Result<()> {
        let (Some(judge), Some(reference)) = (&self.judge, reports.first().and_then(|r| r.first()))
        else {
            return Ok(());
        };
        let reference = reference.run();
        for (step, rounds) in steps.iter_mut().zip(reports) {
            let answers = rounds.iter().map(Answers::answer);
            let differences = answers.filter_map(|answer| answer.difference(reference));
            let Some((_, theirs)) = differences.min_by_key(|(at, _)| *at) else {
                continue;
            };
            let nats = judge.nats(self.ask, (&reference.tokens, theirs), self.interrupt);
            self.interrupt.check()?;
            step.margin_nats = nats.unwrap_or_else(|error| {
                warn(&format!("no margin for {}: {error:#}", step.part));
                None
            });
        }
        Ok(())
    }

    fn answer(&self, contestant: &Contestant, max_tokens: u32, doing: &str) -> Result<Answers> {
        let mut command = self.ask.command(contestant, max_tokens);
        command.arg("--ignore-eos");
        let doing = format!("{doing}: {}", contestant.name());
        let bar = progress(max_tokens, &doing);
        let output = process::run(&mut command, self.interrupt, || bar.inc(1));
        bar.finish_and_clear();
        Answers::of(contestant, &output?)
    }

    pub(crate) fn results(
        &self,
        reports: &[Vec<Answers>],
        day: &str,
        commit: Option<String>,
    ) -> Result<Results> {
        let first = reports.first().and_then(|rounds| rounds.first());
        let reference = first.context("nothing was measured")?;
        let steps = self.contestants.iter().zip(reports);
        let steps = steps.map(|(contestant, rounds)| step(contestant, rounds, reference.run()));
        Ok(Results {
            schema: SCHEMA,
            date: day.to_owned(),
            commit,
            machine: reference.machine.clone(),
            versions: reference.versions.clone(),
            model: self.ask.model_name(),
            dtype: self.ask.dtype.clone(),
            prompt: self.ask.prompt_name(),
            prompt_tokens: reference.run().prompt_tokens,
            new_tokens: reference.run().tokens.len(),
            n: self.rounds as usize,
            steps: beside_part_2(steps.collect::<Result<_>>()?),
        })
    }
}

/// Forwards in even rounds, backwards in odd ones.
fn order(count: usize, round: u32) -> Vec<usize> {
    match round % 2 {
        0 => (0..count).collect(),
        _ => (0..count).rev().collect(),
    }
}

/// A bar on a terminal, which moves with every token; elsewhere a line.
pub(crate) fn progress(max_tokens: u32, doing: &str) -> ProgressBar {
    let template = "{spinner} {msg}  {bar:24} {pos:>4}/{len} tokens {elapsed:>4}";
    let bar = ProgressBar::new(max_tokens.into())
        .with_style(style(template))
        .with_message(doing.to_owned());
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    if bar.is_hidden() {
        anstream::eprintln!("{doing}");
    }
    bar
}

/// The rounds of one contestant as one step of the ladder.
fn step(contestant: &Contestant, rounds: &[Answers], reference: &Run) -> Result<Step> {
    let answers: Vec<&Answer> = rounds.iter().map(Answers::answer).collect();
    let first = rounds
        .first()
        .map(Answers::run)
        .context("nothing was measured")?;
    let name = contestant.name();
    ensure!(
        first.prompt_tokens == reference.prompt_tokens,
        "{name} reads the prompt as {} tokens, the part before it as {}: nothing to compare",
        first.prompt_tokens,
        reference.prompt_tokens
    );
    let spread = |what: &str, number: fn(&Answer) -> Option<f64>| {
        let numbers: Option<Vec<f64>> = answers.iter().map(|answer| number(answer)).collect();
        let summary = numbers.and_then(|numbers| Summary::of(&numbers));
        summary.with_context(|| {
            format!(
                "{name}: no {what} in an answer of {} tokens",
                first.tokens.len()
            )
        })
    };
    let differences = answers
        .iter()
        .filter_map(|answer| answer.difference(reference));
    Ok(Step {
        part: contestant.part.package.clone(),
        number: contestant.part.number,
        variant: first.variant.clone(),
        adds: contestant.part.adds.clone(),
        rung: contestant.rung,
        rows: contestant.rows() as usize,
        ttft_ms: spread("ttft_ms", |answer| answer.run.ttft_ms)?,
        tpot_ms: spread("tpot_ms", |answer| answer.run.tpot_ms)?,
        decode_tps: spread("decode_tps", |answer| answer.run.decode_tps)?,
        throughput_tps: spread("throughput_tps", Answer::throughput)?,
        peak_bytes: answers
            .iter()
            .filter_map(|answer| answer.run.peak_bytes)
            .max(),
        weight_bytes: first.weight_bytes,
        kv_bytes: first.kv_bytes,
        ratio_to_part2: None,
        first_difference: differences.map(|(at, _)| at).min(),
        margin_nats: None,
    })
}

/// Adds how many times as fast as part 2 each step decodes, all of its rows together.
fn beside_part_2(mut steps: Vec<Step>) -> Vec<Step> {
    let part2 = steps.iter().find(|step| step.number == 2 && step.rung);
    if let Some(base) = part2.map(|step| step.decode_tps.median) {
        for step in &mut steps {
            step.ratio_to_part2 = Some(step.decode_of_all() / base);
        }
    }
    steps
}

/// The commit that is checked out, marked if files differ from it; None outside git.
pub fn commit(root: &Path) -> Option<String> {
    let mut git = std::process::Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude", "*"]);
    exec::stdout(git.current_dir(root)).ok()
}

#[cfg(test)]
mod tests;
