//! The highest rate that a machine can hold: searched for in the simulator, tried in one real run.

use anyhow::{Context, Result, ensure};
use clap::Args;
use console::numbers::fixed;
use console::report::{Report, status};

use crate::experiment::{Loaded, ServeArgs};
use crate::load::Load;
use crate::report;
use crate::simulate::Calibration;
use crate::simulator::find_capacity;

/// What must be held.
#[derive(Debug, Args)]
pub struct CapacityArgs {
    #[command(flatten)]
    serve: ServeArgs,

    /// Share of the requests that must be good
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.9,
        help_heading = "Output"
    )]
    share: f64,
}

/// The rate at which the search begins where no rate is given.
const FIRST: f64 = 1.0;

/// Finds the rate, then serves the load at it.
///
/// # Errors
/// If there is no --slo, if no rate or any rate is good, or if a run fails.
pub fn run(args: &CapacityArgs) -> Result<()> {
    let serve = &args.serve;
    let slo = serve.slo.as_ref();
    let slo =
        slo.context("a capacity is for a promise: give one, such as --slo ttft=500,tpot=50")?;
    ensure!(
        serve.load.concurrency.is_none(),
        "with --concurrency the load waits for the machine, and every rate can be held: leave it out"
    );
    let load = Load::new(&serve.load, serve.seed)?;
    let load = if load.offered.request_rate.is_finite() {
        load
    } else {
        let mut finite = serve.load.clone();
        finite.rate = FIRST;
        Load::new(&finite, serve.seed)?
    };
    let limits = serve.limits.limits()?;
    let loaded = Loaded::open(&serve.model)?;
    loaded.check(&load, &serve.limits)?;
    let server = loaded.server(serve.limits.kind());
    let mut report = Report::stdout();
    report::card(&mut report, &loaded.session)?;
    let calibration = Calibration::measure(&server, &limits, &load)?;
    calibration.print(&mut report)?;
    let found = find_capacity(&load, &limits, &calibration.times, slo, args.share)?;
    report.note(&format!(
        "Simulated: {} requests a second can be held ({} % of them good), {} cannot; {} runs.",
        fixed(found.rate, 2),
        fixed(100.0 * found.good, 1),
        fixed(found.too_high, 2),
        found.runs
    ))?;
    status("serving the load at that rate");
    let load = load.at_rate(found.rate)?;
    let run = server.serve(&load, &limits)?;
    report::told(&run);
    report.note(&format!(
        "Served at that rate: {} % were good.",
        fixed(100.0 * slo.share(&run.served), 1)
    ))?;
    if serve.output.json {
        let serving = run.serving(&load, &limits, Some(slo));
        let (session, model) = (&loaded.session, &serve.model.model);
        report::serving_json(&mut report, session, model, "capacity", serving.json())?;
    }
    Ok(())
}
