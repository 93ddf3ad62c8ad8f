//! `cargo xtask versus`: part 2 beside `mlx_lm.generate`, seen from outside.
//!
//! Both are started afresh for each measurement, alternately, on the same model, prompt, BLAS and
//! number of threads. Prefill speed is what each says of itself; times are those of the process.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use std::{env, fs, thread};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fixtures::{blas, python, root};

const PART: &str = "part2-first-inference";
/// What mlx-lm prints above and below the text.
const RULE: &str = "==========\n";

/// Compare part 2 with mlx_lm.generate: prefill speed and time of the whole process
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// New tokens
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    max_tokens: u32,
    /// What both are asked
    #[arg(long, default_value = "Explain black holes")]
    prompt: String,
}

/// What every comparison with mlx-lm can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Directory of a model, repeatable [default: the embedded one, and SmolLM2 in f32 if fetched]
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// Measurements of each program, after a warm-up that does not count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Threads of the BLAS [default: as many as there are cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Also write the measurements to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Common {
    pub(crate) fn models(&self, root: &Path) -> Vec<PathBuf> {
        match self.model.is_empty() {
            true => default_models(root),
            false => self.model.clone(),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(cores)
    }

    /// Writes the results to the file that was asked for, if any.
    pub(crate) fn save(&self, results: &impl Serialize) -> Result<()> {
        let Some(file) = &self.json else {
            return Ok(());
        };
        let text = serde_json::to_string_pretty(results)? + "\n";
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }
}

/// Builds part 2, runs both programs in turn and prints one table for each model.
///
/// # Errors
/// When part 2 does not build, mlx-lm cannot be installed, or one of them fails on a model.
pub fn run(args: Args) -> Result<()> {
    let root = root();
    let setting = Setting {
        ours: build(&root, PART)?,
        theirs: python(&root)?,
        blas: blas(&root),
        threads: args.common.threads(),
        prompt: args.prompt.clone(),
        max_tokens: args.max_tokens,
    };
    let mut results = Vec::new();
    for model in args.common.models(&root) {
        let result = setting.compare(&model, args.common.rounds)?;
        anstream::println!("{}", result.table(&setting));
        results.push(result);
    }
    args.common.save(&results)
}

fn default_models(root: &Path) -> Vec<PathBuf> {
    let smollm2 = root.join(".mlx/models/smollm2-f32");
    let mut models = vec![root.join("assets/models/tiny")];
    if smollm2.join("config.json").is_file() {
        models.push(smollm2);
    } else {
        anstream::eprintln!(
            "without SmolLM2: `cargo xtask fixtures tokenizer` makes its directory"
        );
    }
    models
}

/// The Cargo that runs us, else the one of the search path.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The release build of a part.
pub(crate) fn build(root: &Path, part: &str) -> Result<PathBuf> {
    build_as(root, part, "release")
}

/// The program of a part, built with a profile of Cargo; Cargo itself says where it lies.
///
/// # Errors
/// If it does not build; Cargo's own message is on stderr by then.
pub fn build_as(root: &Path, part: &str, profile: &str) -> Result<PathBuf> {
    let output = Command::new(cargo())
        .args(["build", "--profile", profile])
        .args(["--package", part, "--bin", part])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(
        output.status.success(),
        "{part} does not build; cargo's message is above"
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == part)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no program called {part}"))
}

/// Both programs compute with the same library on the same number of threads.
pub(crate) fn same_blas(command: &mut Command, threads: usize, blas: Option<&Path>) {
    command.env("OMP_NUM_THREADS", threads.to_string());
    if let Some(blas) = blas {
        command.env("LD_PRELOAD", blas);
    }
}

/// The report that a part prints last, under --json.
///
/// # Errors
/// If the last line of `stdout` is no JSON.
pub fn last_line(stdout: &str, part: &str) -> Result<Value> {
    let line = stdout.trim_end().lines().next_back().unwrap_or_default();
    serde_json::from_str(line)
        .with_context(|| format!("{part}: the last line of stdout is not JSON: {line:.60}"))
}

/// What both programs get.
struct Setting {
    ours: PathBuf,
    theirs: PathBuf,
    blas: Option<PathBuf>,
    threads: usize,
    prompt: String,
    max_tokens: u32,
}

/// One run of one program.
struct Run {
    prompt_tokens: f64,
    prefill_tps: f64,
    /// Seconds from the start of the process to the first byte of generated text.
    first: f64,
    /// Seconds from the start of the process to its end.
    whole: f64,
    text: String,
}

impl Setting {
    fn compare(&self, model: &Path, rounds: u32) -> Result<Comparison> {
        let there = model.join("config.json").is_file();
        ensure!(
            there,
            "{} is not a model directory: no config.json in it",
            model.display()
        );
        let mut runs = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            anstream::eprintln!("{}: round {round} of {rounds}", model.display());
            // The order changes from round to round, so that neither always finds warm caches.
            let pair = if round % 2 == 0 {
                let ours = self.ours(model)?;
                (ours, self.theirs(model)?)
            } else {
                let theirs = self.theirs(model)?;
                (self.ours(model)?, theirs)
            };
            if round > 0 {
                runs.0.push(pair.0);
                runs.1.push(pair.1);
            }
        }
        Ok(Comparison::new(model, &runs.0, &runs.1))
    }

    fn ours(&self, model: &Path) -> Result<Run> {
        let mut command = Command::new(&self.ours);
        command.args(["--temperature", "0", "--json"]);
        let seen = self.observe(command, model, 0)?;
        let json = last_line(&seen.stdout, PART)?;
        let run = &json["runs"][0];
        let number = |key: &str| {
            run[key]
                .as_f64()
                .with_context(|| format!("{PART}: no number runs[0].{key} in its JSON"))
        };
        Ok(Run {
            prompt_tokens: number("prompt_tokens")?,
            prefill_tps: number("prefill_tps")?,
            first: seen.first,
            whole: seen.whole,
            text: run["text"].as_str().unwrap_or_default().trim().to_owned(),
        })
    }

    fn theirs(&self, model: &Path) -> Result<Run> {
        let mut command = Command::new(&self.theirs);
        command.args(["-u", "-m", "mlx_lm", "generate", "--temp", "0"]);
        command
            .env("HF_HUB_OFFLINE", "1")
            .env("TRANSFORMERS_VERBOSITY", "error");
        let seen = self.observe(command, model, RULE.len())?;
        let report = seen
            .stdout
            .strip_prefix(RULE)
            .context("mlx-lm printed no line of =")?;
        let (text, numbers) = report
            .rsplit_once(RULE)
            .context("mlx-lm printed no numbers")?;
        let (tokens, speed) = prompt_line(numbers)
            .with_context(|| format!("mlx-lm: no prompt speed in {:.60}", numbers.trim()))?;
        Ok(Run {
            prompt_tokens: tokens,
            prefill_tps: speed,
            first: seen.first,
            whole: seen.whole,
            text: text.trim().to_owned(),
        })
    }

    /// Runs to the end with the clock on; `header` bytes of stdout are not yet text.
    fn observe(&self, mut command: Command, model: &Path, header: usize) -> Result<Seen> {
        let max_tokens = self.max_tokens.to_string();
        command
            .arg("--model")
            .arg(model)
            .args(["--prompt", &self.prompt]);
        command.args(["--max-tokens", &max_tokens]);
        same_blas(&mut command, self.threads, self.blas.as_deref());
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let start = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        watch(child, start, header)
            .with_context(|| format!("running {name} on {}", model.display()))
    }
}

/// `Prompt: 12 tokens, 345.678 tokens-per-sec` → tokens and speed.
fn prompt_line(numbers: &str) -> Option<(f64, f64)> {
    let line = numbers
        .lines()
        .find_map(|line| line.strip_prefix("Prompt: "))?;
    let (tokens, speed) = line.split_once(" tokens, ")?;
    Some((
        tokens.parse().ok()?,
        speed.strip_suffix(" tokens-per-sec")?.parse().ok()?,
    ))
}

/// A process as seen from outside.
struct Seen {
    stdout: String,
    first: f64,
    whole: f64,
}

fn watch(mut child: Child, start: Instant, header: usize) -> Result<Seen> {
    let mut stderr = child.stderr.take().context("no stderr")?;
    // Read beside stdout: a full pipe would stop the process.
    let complaints = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let (stdout, first) = read(&mut child, start, header)?;
    let status = child.wait()?;
    let whole = start.elapsed().as_secs_f64();
    let complaints = complaints.join().unwrap_or_default();
    if !status.success() {
        bail!(
            "it ended with {status}: {}",
            complaints.lines().next_back().unwrap_or_default()
        );
    }
    Ok(Seen {
        stdout,
        first: first.context("it printed nothing")?,
        whole,
    })
}

fn read(child: &mut Child, start: Instant, header: usize) -> Result<(String, Option<f64>)> {
    let mut stdout = child.stdout.take().context("no stdout")?;
    let (mut bytes, mut first, mut buffer) = (Vec::new(), None, [0; 4096]);
    loop {
        let count = stdout.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..count]);
        if bytes.len() > header {
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
        }
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), first))
}

/// Both programs on one model.
#[derive(Serialize)]
struct Comparison {
    model: String,
    prompt_tokens: f64,
    n: usize,
    /// What each column of a row is, and whether more is better.
    rows: Vec<Row>,
    same_text: bool,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    ours: Spread,
    theirs: Spread,
    ratio: f64,
}

/// One number of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one; the mean of the two middle ones if their number is even.
    pub median: f64,
    /// Half the distance between the quartiles, each interpolated between its neighbours.
    pub half_iqr: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Comparison {
    fn new(model: &Path, ours: &[Run], theirs: &[Run]) -> Self {
        let row = |name, of: fn(&Run) -> f64| {
            let (ours, theirs) = (Spread::of(ours, of), Spread::of(theirs, of));
            let ratio = ours.median / theirs.median;
            Row {
                name,
                ours,
                theirs,
                ratio,
            }
        };
        let same =
            |run: &Run| run.text == ours[0].text && run.prompt_tokens == ours[0].prompt_tokens;
        Self {
            model: model
                .file_name()
                .unwrap_or(model.as_os_str())
                .to_string_lossy()
                .into_owned(),
            prompt_tokens: ours[0].prompt_tokens,
            n: ours.len(),
            rows: vec![
                row("prefill (tok/s)", |run| run.prefill_tps),
                row("start to first text (s)", |run| run.first),
                row("start to end (s)", |run| run.whole),
            ],
            same_text: ours.iter().chain(theirs).all(same),
        }
    }

    /// At most 80 columns; a ratio is ours / theirs.
    fn table(&self, setting: &Setting) -> String {
        let mut text = format!(
            "{}: {} prompt tokens, at most {} new, {} threads, n = {}\n{:23} {:>22} {:>22} {:>8}\n",
            self.model,
            self.prompt_tokens,
            setting.max_tokens,
            setting.threads,
            self.n,
            "median (min..max)",
            "part 2",
            "mlx-lm",
            "ratio",
        );
        for row in &self.rows {
            let (ours, theirs) = (row.ours.text(), row.theirs.text());
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:23} {ours:>22} {theirs:>22} {:>7.2}×",
                row.name, row.ratio
            );
        }
        let same = if self.same_text {
            "the same"
        } else {
            "DIFFERENT"
        };
        let _ = writeln!(text, "{:23} {same}", "prompt and text");
        text
    }
}

impl Spread {
    /// Sums up one number of at least one run.
    pub fn of<R>(runs: &[R], value: impl Fn(&R) -> f64) -> Self {
        let mut values: Vec<f64> = runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = share * (values.len() - 1) as f64;
            let (below, above) = (values[rank.floor() as usize], values[rank.ceil() as usize]);
            below + (above - below) * rank.fract()
        };
        Self {
            median: at(0.5),
            half_iqr: (at(0.75) - at(0.25)) / 2.0,
            min: at(0.0),
            max: at(1.0),
        }
    }

    pub(crate) fn text(&self) -> String {
        let digits = if self.median < 10.0 {
            2
        } else {
            usize::from(self.median < 1000.0)
        };
        let Self {
            median, min, max, ..
        } = self;
        format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(prefill_tps: f64, text: &str) -> Run {
        Run {
            prompt_tokens: 12.0,
            prefill_tps,
            first: 0.5,
            whole: 1.5,
            text: text.into(),
        }
    }

    #[test]
    fn mlx_lms_prompt_line_is_read() {
        let numbers = "Prompt: 12 tokens, 345.678 tokens-per-sec\nGeneration: 32 tokens, 9.000 tokens-per-sec\n";
        assert_eq!(prompt_line(numbers), Some((12.0, 345.678)));
        assert_eq!(prompt_line("Peak memory: 1.0 GB"), None);
    }

    fn shell(script: &str, header: usize) -> Result<Seen> {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        watch(command.spawn().unwrap(), Instant::now(), header)
    }

    #[test]
    fn the_header_of_mlx_lm_is_not_the_first_text() {
        let error = shell("echo ==========", RULE.len()).err().unwrap();
        assert_eq!(error.to_string(), "it printed nothing");
        let seen = shell("echo ==========; echo text", RULE.len()).unwrap();
        assert_eq!(seen.stdout, format!("{RULE}text\n"));
    }

    #[test]
    fn a_failing_program_is_told_by_its_last_words() {
        let error = shell("echo one >&2; echo 'no such model' >&2; exit 3", 0)
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "it ended with exit status: 3: no such model"
        );
    }

    #[test]
    fn a_table_has_medians_and_at_most_80_columns() {
        let ours = [run(300.0, "a"), run(100.0, "a"), run(20_000.5, "a")];
        let theirs = [run(200.0, "a"), run(12_345.6, "a"), run(100.0, "b")];
        let comparison = Comparison::new(Path::new("models/tiny"), &ours, &theirs);
        let setting = Setting {
            ours: PathBuf::new(),
            theirs: PathBuf::new(),
            blas: None,
            threads: 2,
            prompt: String::new(),
            max_tokens: 32,
        };
        let table = comparison.table(&setting);
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
        assert!(table.contains("300.0 (100.0..20000.5)"), "{table}");
        assert!(
            table.contains("1.50×") && table.contains("DIFFERENT"),
            "{table}"
        );
    }
}
