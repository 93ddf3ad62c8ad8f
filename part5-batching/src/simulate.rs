//! A prediction made before the run: steps are measured, a model of their times is fitted, and the load is simulated
//! on the same scheduler. Then the load is served, and both stand side by side.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use console::interrupt::check_interrupted;
use console::numbers::{fixed, or_dash};
use console::report::{Report, status};

use crate::experiment::{Loaded, ServeArgs};
use crate::gantt::Recording;
use crate::limits::{Limits, Policy};
use crate::load::{Lengths, Load, LoadArgs, Planned};
use crate::machines::{Chip, Shape};
use crate::report;
use crate::serve::Server;
use crate::simulator::{Predicted, predict, simulate};
use crate::step_times::{Sample, StepTimes, Unseen};
use crate::{gantt, tour};

/// A load to predict.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,

    /// Simulate a machine from its data sheet instead: m1, m2, m3-max, m3-ultra, m4, m4-pro, m4-max, h100, or
    /// bandwidth=GB/s,tflops=TFLOP/s
    #[arg(long, value_name = "MACHINE", help_heading = "Simulation")]
    machine: Option<String>,

    /// With --machine: a model by the name of its shape, such as qwen3-4b-4bit, instead of --model's
    #[arg(
        long,
        value_name = "SHAPE",
        requires = "machine",
        help_heading = "Simulation"
    )]
    shape: Option<String>,

    /// Print the prediction alone
    #[arg(long, help_heading = "Simulation")]
    only: bool,
}

/// The longest answer that steps are measured with. Beyond it the positions of the context count as they did before.
const LONGEST_ANSWER: usize = 128;

/// How often each number of rows is measured, unless that takes longer than [`ENOUGH`]: not all at once, so that a
/// moment in which the machine is slow is not taken for what these rows cost.
const PASSES: u64 = 4;
const ENOUGH: Duration = Duration::from_secs(20);

/// Repetitions from which the bars are taken.
const REPETITIONS: u64 = 100;

/// Predicts a load, then serves it.
///
/// # Errors
/// If the flags make no sense, or if a run fails.
pub fn run(args: &SimulateArgs) -> Result<()> {
    let load = Load::new(&args.serve.load, args.serve.seed)?;
    let limits = args.serve.limits.limits()?;
    match &args.machine {
        Some(machine) => on_paper(args, machine, &load, &limits),
        None => beside(args, &load, &limits),
    }
}

/// A machine that nobody has here.
fn on_paper(args: &SimulateArgs, machine: &str, load: &Load, limits: &Limits) -> Result<()> {
    let chip = Chip::named(machine)?;
    let shape = match &args.shape {
        Some(name) => Shape::named(name)?,
        None => {
            let model = &args.serve.model;
            let checkpoint = shared::session::open_checkpoint(model)?;
            Shape::of(&checkpoint.config)
        }
    };
    let times = chip.step_times(&shape);
    let mut recording = Recording::default();
    let run = simulate(load, limits, &times, |from, to, plan| {
        recording.add(from, to, plan)
    })?;
    let serving = run.serving(load, limits, args.serve.slo.as_ref());
    let model = args.shape.as_deref().unwrap_or(&args.serve.model.model);
    let title = format!("simulated: {model} on {}", chip.name);
    let mut report = Report::stdout();
    report.note(&format!(
        "{title}: from {} GB/s and {} TFLOP/s ({}) alone. No machine reaches its data sheet: a bound, no measurement.",
        fixed(chip.bandwidth / 1e9, 0),
        fixed(chip.flops / 1e12, 1),
        chip.flops_source
    ))?;
    report.blank()?;
    let rows = report::PREDICTED.iter().zip(report::predicted(&serving));
    let rows: Vec<_> = rows
        .map(|(name, value)| vec![format!("simulated {name}"), or_dash(value, 1)])
        .collect();
    report.table(&["", chip.name.as_str()], &rows)?;
    report.blank()?;
    let gantt = recording.finish(&title, &run.served);
    gantt::terminal::draw(&mut report, &gantt)?;
    if let Some(path) = &args.serve.gantt {
        gantt::page::save(path, &gantt)?;
    }
    Ok(())
}

/// Measured steps, a prediction, and the run.
fn beside(args: &SimulateArgs, load: &Load, limits: &Limits) -> Result<()> {
    let loaded = Loaded::open(&args.serve.model)?;
    loaded.check(load, &args.serve.limits)?;
    let server = loaded.server(args.serve.limits.kind());
    let mut report = Report::stdout();
    report::card(&mut report, &loaded.session)?;
    let calibration = Calibration::measure(&server, limits, load)?;
    calibration.print(&mut report)?;
    let predicted = calibration.predict(load, limits)?;
    if args.only {
        return side_by_side(&mut report, &predicted, &[None; 6]);
    }
    status("serving the load");
    let run = server.serve(load, limits)?;
    report::told(&run);
    let serving = run.serving(load, limits, args.serve.slo.as_ref());
    side_by_side(&mut report, &predicted, &report::predicted(&serving))?;
    if args.serve.output.json {
        let (session, model) = (&loaded.session, &args.serve.model.model);
        report::serving_json(&mut report, session, model, "served", serving.json())?;
    }
    Ok(())
}

/// A model of step times, and the steps that it was judged by.
pub(crate) struct Calibration {
    pub(crate) times: StepTimes,
    /// Steps that were measured.
    steps: usize,
    unseen: Unseen,
}

impl Calibration {
    /// Serves a few short loads of its own: batches of each size, and prompts in pieces among answers. None of
    /// them is the load that is predicted.
    pub(crate) fn measure(server: &Server<'_>, limits: &Limits, load: &Load) -> Result<Self> {
        let most = |of: fn(&Planned) -> usize| load.requests.iter().map(of).max().unwrap_or(64);
        let longest = most(|request| request.prompt_tokens);
        let answer = most(|request| request.output_tokens).clamp(40, LONGEST_ANSWER);
        tour::warm_up(server, 1)?;
        let open = Limits {
            policy: Policy::Continuous,
            ..limits.clone()
        };
        let lengths = (longest.max(2), answer);
        let (mut samples, begun) = (Vec::new(), Instant::now());
        for pass in 0..PASSES {
            samples.extend(one_pass(server, &open, lengths, pass)?);
            if begun.elapsed() > ENOUGH {
                break;
            }
        }
        let (times, unseen) = StepTimes::calibrate(&samples).context("fitting step times")?;
        let steps = samples.len();
        Ok(Self {
            times,
            steps,
            unseen,
        })
    }

    /// The error of steps that the model had not seen, before anything is claimed.
    pub(crate) fn print<W: std::io::Write>(&self, report: &mut Report<W>) -> Result<()> {
        let errors = &self.unseen.errors;
        report.note(&format!(
            "{} steps were measured. A model of three in four of them is off by {} % (median; mean {}, nine in ten \
             below {}) from the other {}, all together by {} %.",
            self.steps,
            fixed(100.0 * errors.median, 1),
            fixed(100.0 * errors.mean, 1),
            fixed(100.0 * errors.p90, 1),
            errors.n,
            fixed(100.0 * errors.bias, 1),
        ))?;
        Ok(report.blank()?)
    }

    fn predict(&self, load: &Load, limits: &Limits) -> Result<[Option<Predicted>; 6]> {
        let (times, unseen) = (&self.times, &self.unseen.ratios);
        predict(
            (load, limits),
            times,
            unseen,
            REPETITIONS,
            report::predicted,
        )
    }
}

/// Each number of rows once, the last of them all that there are.
fn one_pass(
    server: &Server<'_>,
    limits: &Limits,
    (longest, answer): (usize, usize),
    pass: u64,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for (at, rows) in [1, 2, 4, 8, 16, 32, 64, 128].into_iter().enumerate() {
        let rows = rows.min(limits.rows);
        status(&format!("measuring steps: {rows} rows"));
        let own = Load::new(
            &LoadArgs {
                rate: f64::INFINITY,
                burstiness: 1.0,
                concurrency: Some(rows),
                requests: 2 * rows + 2,
                prompt_tokens: Lengths::Uniform(1, longest),
                output_tokens: Lengths::Uniform(8, answer),
                trace: None,
            },
            1_000 + 100 * pass + at as u64,
        )?;
        samples.extend(server.serve(&own, limits)?.samples);
        check_interrupted()?;
        if rows == limits.rows {
            break;
        }
    }
    Ok(samples)
}

fn side_by_side<W: std::io::Write>(
    report: &mut Report<W>,
    predicted: &[Option<Predicted>; 6],
    served: &[Option<f64>; 6],
) -> Result<()> {
    let rows = report::PREDICTED.iter().zip(predicted).zip(served);
    let rows: Vec<_> = rows
        .map(|((name, predicted), served)| {
            let part = |of: fn(&Predicted) -> f64| or_dash(predicted.as_ref().map(of), 1);
            let off = predicted.as_ref().zip(*served);
            vec![
                (*name).to_owned(),
                part(|p| p.median),
                format!("{} … {}", part(|p| p.low), part(|p| p.high)),
                or_dash(*served, 1),
                or_dash(off.map(|(p, served)| 100.0 * (p.median / served - 1.0)), 1),
            ]
        })
        .collect();
    report.table(
        &["", "simulated", "nine in ten", "served", "off by %"],
        &rows,
    )?;
    Ok(report.blank()?)
}
