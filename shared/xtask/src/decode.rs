//! `cargo xtask decode`: the decode speed of part 3 beside that of mlx-lm's `generate_step`.
//!
//! Both are started afresh for each measurement, alternately, on the same model, ids, BLAS and number
//! of threads; each warms up with one answer and then times the next one, from its first token to its
//! last. No stop token ends an answer, and the tokens of all runs are compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::exec;
use crate::fixtures::{blas, python, root};
use crate::versus::{Common, Spread, build, last_line, same_blas};

const PART: &str = "part3-kv-cache";

/// Compare the decode speed of part 3 with that of mlx-lm
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// New tokens
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(3..=100_000))]
    max_tokens: u32,
    /// Tokens of the prompt, repeatable
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [33, 512])]
    prompt_tokens: Vec<u32>,
    /// Type that both compute in [default: the checkpoint's own]
    #[arg(long, value_parser = ["f32", "f16", "bf16"])]
    dtype: Option<String>,
    /// Which cache part 3 takes
    #[arg(long, default_value = "prealloc")]
    cache: String,
}

/// Builds part 3, runs both programs in turn and prints one line for each model and prompt.
///
/// # Errors
/// When part 3 does not build, mlx-lm cannot be installed, or one of them fails on a model.
pub fn run(args: Args) -> Result<()> {
    let root = root();
    let folder = root.join(".mlx/decode");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let bench = Bench {
        ours: build(&root, PART)?,
        theirs: python(&root)?,
        script: root.join("shared/xtask/python/decode.py"),
        blas: blas(&root),
        file: folder.join("prompt.txt"),
        args: &args,
    };
    let mut results = Vec::new();
    for model in &args.common.models(&root) {
        for &tokens in &args.prompt_tokens {
            let result = bench.compare(model, tokens)?;
            anstream::println!("{}", result.line());
            results.push(result);
        }
    }
    args.common.save(&results)
}

struct Bench<'a> {
    ours: PathBuf,
    theirs: PathBuf,
    script: PathBuf,
    blas: Option<PathBuf>,
    /// Where the prompt is.
    file: PathBuf,
    args: &'a Args,
}

/// One run of one program.
#[derive(PartialEq)]
struct Run {
    prompt_tokens: u64,
    tokens: Vec<u64>,
    decode_tps: f64,
}

impl Bench<'_> {
    fn compare(&self, model: &Path, tokens: u32) -> Result<Comparison> {
        let mut script = self.theirs("prompt", model);
        let text = exec::stdout(script.arg(tokens.to_string()))?;
        fs::write(&self.file, text).with_context(|| format!("writing {}", self.file.display()))?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..self.args.common.rounds {
            anstream::eprintln!(
                "{}, {tokens} tokens: round {} of {}",
                model.display(),
                round + 1,
                self.args.common.rounds
            );
            // The order changes from round to round, so that neither always finds warm caches.
            if round % 2 == 0 {
                ours.push(self.ours(model)?);
                theirs.push(self.mlx_lm(model)?);
            } else {
                theirs.push(self.mlx_lm(model)?);
                ours.push(self.ours(model)?);
            }
        }
        Ok(Comparison::new(
            model,
            self.args.dtype.as_deref(),
            &ours,
            &theirs,
        ))
    }

    fn ours(&self, model: &Path) -> Result<Run> {
        let mut command = self.command(&self.ours);
        command
            .arg("--model")
            .arg(model)
            .arg("--prompt-file")
            .arg(&self.file);
        command.args(["--raw", "--ignore-eos", "--json", "--rounds", "1"]);
        command.args(["--cache", &self.args.cache]);
        command.args(["--max-tokens", &self.args.max_tokens.to_string()]);
        if let Some(dtype) = &self.args.dtype {
            command.args(["--dtype", dtype]);
        }
        let stdout = exec::stdout(&mut command)?;
        let report = last_line(&stdout, PART)?;
        Run::new(&report["runs"][0])
    }

    fn mlx_lm(&self, model: &Path) -> Result<Run> {
        let mut command = self.theirs("run", model);
        command
            .arg(&self.file)
            .arg(self.args.max_tokens.to_string());
        command.arg(self.args.dtype.as_deref().unwrap_or_default());
        Run::new(&serde_json::from_str(&exec::stdout(&mut command)?)?)
    }

    fn theirs(&self, what: &str, model: &Path) -> Command {
        let mut command = self.command(&self.theirs);
        command.arg(&self.script).arg(what).arg(model);
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let threads = self.args.common.threads();
        same_blas(&mut command, threads, self.blas.as_deref());
        command
    }
}

impl Run {
    fn new(report: &Value) -> Result<Self> {
        let tokens = report["tokens"]
            .as_array()
            .context("no tokens in a report")?;
        Ok(Self {
            prompt_tokens: report["prompt_tokens"]
                .as_u64()
                .context("no prompt_tokens")?,
            tokens: tokens.iter().filter_map(Value::as_u64).collect(),
            decode_tps: report["decode_tps"].as_f64().context("no decode_tps")?,
        })
    }
}

/// Both programs on one model and prompt; tokens per second after the first.
#[derive(Serialize)]
struct Comparison {
    model: String,
    prompt_tokens: u64,
    new_tokens: usize,
    n: usize,
    ours: Spread,
    theirs: Spread,
    ratio: f64,
    same_tokens: bool,
}

impl Comparison {
    fn new(model: &Path, dtype: Option<&str>, ours: &[Run], theirs: &[Run]) -> Self {
        let first = &ours[0];
        let same =
            |run: &Run| (run.prompt_tokens, &run.tokens) == (first.prompt_tokens, &first.tokens);
        let spread = |runs: &[Run]| Spread::of(runs, |run: &Run| run.decode_tps);
        let (our_spread, their_spread) = (spread(ours), spread(theirs));
        let name = model.file_name().unwrap_or(model.as_os_str());
        let dtype = dtype.map_or_else(String::new, |dtype| format!(" as {dtype}"));
        Self {
            model: format!("{}{dtype}", name.to_string_lossy()),
            prompt_tokens: first.prompt_tokens,
            new_tokens: first.tokens.len(),
            n: ours.len(),
            ratio: our_spread.median / their_spread.median,
            ours: our_spread,
            theirs: their_spread,
            same_tokens: ours.iter().chain(theirs).all(same),
        }
    }

    fn line(&self) -> String {
        format!(
            "{}, prompt {}, new {}, n = {}: tokens {}\n  part 3 {}, mlx-lm {} tok/s: {:.2}×",
            self.model,
            self.prompt_tokens,
            self.new_tokens,
            self.n,
            if self.same_tokens {
                "the same"
            } else {
                "DIFFERENT"
            },
            self.ours.text(),
            self.theirs.text(),
            self.ratio,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(decode_tps: f64, last: u64) -> Run {
        Run {
            prompt_tokens: 33,
            tokens: vec![1, 2, last],
            decode_tps,
        }
    }

    #[test]
    fn a_line_has_medians_and_says_when_tokens_differ() {
        let ours = [run(30.0, 3), run(10.0, 3), run(20.0, 3)];
        let same = Comparison::new(Path::new("models/tiny"), None, &ours, &[run(16.0, 3)]);
        assert_eq!(
            same.line(),
            "tiny, prompt 33, new 3, n = 3: tokens the same\n  \
             part 3 20.0 (10.0..30.0), mlx-lm 16.0 (16.0..16.0) tok/s: 1.25×"
        );
        let other = Comparison::new(Path::new("tiny"), Some("f32"), &ours, &[run(16.0, 4)]);
        assert!(other.line().starts_with("tiny as f32, "));
        assert!(other.line().contains("DIFFERENT"));
    }
}
