//! `--against mlx-lm`: each part beside the reference, seen from inside and from outside.
//!
//! Both are started afresh for each measurement, in turns, on the same model, ids, BLAS, number of
//! threads and way of waiting; one process each goes before and does not count. Rates are those that
//! each says of itself, times are those of the process. No stop token ends an answer, and the tokens
//! of all answers are compared.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use console::interrupt::Interrupt;
use console::machine::{Machine, Versions};
use console::metrics::{Run, Summary};
use console::workspace::Workspace;
use serde::Serialize;

use crate::answer::{self, Answers};
use crate::ask::Ask;
use crate::measure::progress;
use crate::parts::Contestant;
use crate::process;

mod reference;
mod table;

pub use reference::{MlxLm, TheirVersions, model};
pub use table::print;

use reference::TheirAnswers;

/// A program that is no part and can be asked the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reference {
    /// Apple's mlx-lm, on the same version of MLX
    MlxLm,
}

/// Tokens of the process that does not count.
const WARM_UP: u32 = 8;

/// What both programs get besides the question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Threads of the BLAS.
    pub threads: usize,
    /// How they wait for work, `OMP_WAIT_POLICY`: actively they would keep the cores from each other.
    pub wait_policy: String,
    /// The library's file, where `cargo setup` brought one.
    pub blas: Option<String>,
    #[serde(skip)]
    blas_path: Option<PathBuf>,
}

impl Setting {
    /// So many threads, else as many as there are cores; the waiting is the user's own choice or
    /// passive.
    pub fn new(threads: Option<usize>, workspace: &Workspace) -> Self {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let wait_policy = env::var("OMP_WAIT_POLICY").unwrap_or_else(|_| "passive".to_owned());
        let blas_path = workspace.blas();
        let name = blas_path.as_deref().and_then(Path::file_name);
        Self {
            threads: threads.unwrap_or_else(cores),
            wait_policy,
            blas: name.map(|name| name.to_string_lossy().into_owned()),
            blas_path,
        }
    }

    fn apply(&self, command: &mut Command) {
        command.env("OMP_NUM_THREADS", self.threads.to_string());
        command.env("OMP_WAIT_POLICY", &self.wait_policy);
        if let Some(blas) = &self.blas_path {
            command.env("LD_PRELOAD", blas);
        }
    }
}

/// What is measured.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The reference.
    pub mlx_lm: &'a MlxLm,
    /// What both are asked.
    pub ask: &'a Ask,
    /// Tokens of each answer.
    pub max_tokens: u32,
    /// Measurements of each program.
    pub rounds: u32,
    /// What both get besides.
    pub setting: &'a Setting,
    /// Ends it early.
    pub interrupt: &'a Interrupt,
}

/// One answer, with the time of its process.
#[derive(Debug)]
struct Measured {
    run: Run,
    /// Seconds from the start of the process to the first byte of text.
    first: f64,
    /// Seconds from the start of the process to its end.
    whole: f64,
}

/// A part and mlx-lm on one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Beside {
    /// The part's package, and its variant as it calls it.
    pub part: String,
    /// See above.
    pub variant: String,
    /// The model's id, or the name of its directory.
    pub model: String,
    /// `f32`, `f16` or `bf16` if the checkpoint's own type was overridden.
    pub dtype: Option<String>,
    /// What both were asked.
    pub prompt: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of each answer.
    pub new_tokens: usize,
    /// Answers of each program.
    pub n: usize,
    /// What both got besides.
    pub setting: Setting,
    /// What ran them.
    pub machine: Machine,
    /// What the part is built on.
    pub versions: Versions,
    /// What mlx-lm is built on.
    pub their_versions: TheirVersions,
    /// The numbers.
    pub rows: Vec<Row>,
    /// None if all answers have the tokens of the part's first one; else where the earliest
    /// difference is, counted from 0.
    pub first_difference: Option<usize>,
}

/// One number of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which, with its unit.
    pub name: &'static str,
    /// The part's.
    pub ours: Summary,
    /// mlx-lm's.
    pub theirs: Summary,
    /// The part's ÷ mlx-lm's, of each round; where it is a time, below 1 is faster.
    pub ratio: Summary,
}

impl Bench<'_> {
    /// Runs one part and mlx-lm in turns.
    ///
    /// # Errors
    /// If one of them fails, or if they read the prompt as different numbers of tokens; or on Ctrl-C.
    pub fn run(&self, contestant: &Contestant) -> Result<Beside> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            let (tokens, doing) = match round {
                0 => (WARM_UP.min(self.max_tokens), "warm-up".to_owned()),
                _ => (self.max_tokens, format!("round {round} of {}", self.rounds)),
            };
            // The order changes from round to round, so that neither always finds the machine warm.
            let (our, their) = if round % 2 == 0 {
                let our = self.part(contestant, tokens, &doing)?;
                (our, self.reference(tokens, &doing)?)
            } else {
                let their = self.reference(tokens, &doing)?;
                (self.part(contestant, tokens, &doing)?, their)
            };
            if round > 0 {
                ours.push(our);
                theirs.push(their);
            }
        }
        self.beside(contestant, &ours, &theirs)
    }

    fn part(
        &self,
        contestant: &Contestant,
        tokens: u32,
        doing: &str,
    ) -> Result<(Answers, Measured)> {
        let command = self.ask.command(contestant, tokens);
        let name = contestant.name();
        let (output, first, whole) = self.watch(command, &name, tokens, doing)?;
        let answers = Answers::of(contestant, &output)?;
        let run = answers.run().clone();
        Ok((answers, Measured { run, first, whole }))
    }

    fn reference(&self, tokens: u32, doing: &str) -> Result<(TheirVersions, Measured)> {
        let mut command = self.mlx_lm.command();
        command.args(["--temperature", "0"]);
        self.ask.apply(&mut command, tokens);
        let (output, first, whole) = self.watch(command, "mlx-lm", tokens, doing)?;
        let said: TheirAnswers = answer::last_line("mlx-lm", &output)?;
        let answer = said
            .runs
            .into_iter()
            .next()
            .context("mlx-lm: no run in its JSON line")?;
        let run = answer.run;
        Ok((said.versions, Measured { run, first, whole }))
    }

    /// Runs to the end with the clock on; seconds to the first text and to the end.
    fn watch(
        &self,
        mut command: Command,
        name: &str,
        tokens: u32,
        doing: &str,
    ) -> Result<(process::Output, f64, f64)> {
        command.arg("--ignore-eos");
        self.setting.apply(&mut command);
        let bar = progress(tokens, &format!("{doing}: {name}"));
        let (start, mut first) = (Instant::now(), None);
        let output = process::run(&mut command, self.interrupt, || {
            first.get_or_insert_with(|| start.elapsed());
            bar.inc(1);
        });
        let whole = start.elapsed();
        bar.finish_and_clear();
        // Whoever printed nothing failed: its own error comes first.
        let first = first.unwrap_or(whole);
        Ok((output?, first.as_secs_f64(), whole.as_secs_f64()))
    }

    fn beside(
        &self,
        contestant: &Contestant,
        ours: &[(Answers, Measured)],
        theirs: &[(TheirVersions, Measured)],
    ) -> Result<Beside> {
        let first = ours.first().zip(theirs.first());
        let ((our, our_first), (their_versions, their_first)) =
            first.context("nothing was measured")?;
        let reference = &our_first.run;
        ensure!(
            their_first.run.prompt_tokens == reference.prompt_tokens,
            "{} reads the prompt as {} tokens, mlx-lm as {}: nothing to compare",
            contestant.name(),
            reference.prompt_tokens,
            their_first.run.prompt_tokens
        );
        let ours: Vec<&Measured> = ours.iter().map(|(_, measured)| measured).collect();
        let theirs: Vec<&Measured> = theirs.iter().map(|(_, measured)| measured).collect();
        let all = ours.iter().chain(&theirs);
        let differences = all.filter_map(|measured| reference.first_difference(&measured.run));
        Ok(Beside {
            part: contestant.part.package.clone(),
            variant: reference.variant.clone(),
            model: self.ask.model_name(),
            dtype: self.ask.dtype.clone(),
            prompt: self.ask.prompt_name(),
            prompt_tokens: reference.prompt_tokens,
            new_tokens: reference.tokens.len(),
            n: ours.len(),
            setting: self.setting.clone(),
            machine: our.machine.clone(),
            versions: our.versions.clone(),
            their_versions: their_versions.clone(),
            first_difference: differences.min(),
            rows: rows(&ours, &theirs)?,
        })
    }
}

/// A number of an answer.
type Number = fn(&Measured) -> Option<f64>;

fn rows(ours: &[&Measured], theirs: &[&Measured]) -> Result<Vec<Row>> {
    let numbers: [(&'static str, Number); 4] = [
        ("prefill tok/s", |measured| measured.run.prefill_tps),
        ("decode tok/s", |measured| measured.run.decode_tps),
        ("start to text s", |measured| Some(measured.first)),
        ("start to end s", |measured| Some(measured.whole)),
    ];
    let rows = numbers.into_iter().map(|(name, number)| {
        row(name, number, ours, theirs).with_context(|| format!("an answer has no {name}"))
    });
    rows.collect()
}

fn row(
    name: &'static str,
    number: Number,
    ours: &[&Measured],
    theirs: &[&Measured],
) -> Option<Row> {
    let of = |side: &[&Measured]| {
        side.iter()
            .map(|one| number(one))
            .collect::<Option<Vec<f64>>>()
    };
    let (ours, theirs) = of(ours).zip(of(theirs))?;
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
    let ratios: Vec<f64> = ratios.collect();
    Some(Row {
        name,
        ours: Summary::of(&ours)?,
        theirs: Summary::of(&theirs)?,
        ratio: Summary::of(&ratios)?,
    })
}

#[cfg(test)]
mod tests;
