//! One answer at one width: what `cargo compare` runs of this part.

use anyhow::Result;
use clap::Args;
use console::answered;
use console::cli::{ModelArgs, OutputArgs, PromptArgs, SamplingArgs};
use console::report::{Report, status, warn};
use console::results::JsonReport;
use shared::config::GroupQuantization;
use shared::machine::versions;
use shared::session::Session;

use crate::bench::Bench;
use crate::convert::{bits, group_size};
use crate::floats::Fit;
use crate::variants::Variant;

/// What an answer takes.
#[derive(Debug, Args)]
#[command(mut_arg("max_tokens", |arg| arg.default_value("64")))]
pub struct AnswerArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Bits of a weight: 2, 3, 4, 5, 6 or 8; without it the weights stay as they are
    #[arg(long, value_name = "N", value_parser = bits, help_heading = "Quantization")]
    bits: Option<usize>,

    /// Neighbours in a row that share a scale and a bias: 32, 64 or 128
    #[arg(long, value_name = "G", value_parser = group_size, help_heading = "Quantization")]
    #[arg(default_value = "64", requires = "bits")]
    group_size: usize,
}

/// Packs the weights, answers, and prints the numbers.
///
/// # Errors
/// If the model, the prompt or the output fails: one line that says what to try next.
pub fn run(args: &AnswerArgs) -> Result<()> {
    let session = Session::open(&args.model)?.with_roof();
    let (request, tokenize_time) = session.request(&args.prompt, &args.sampling)?;
    let variant = variant(&session, args);
    let bench = Bench {
        session: &session,
        request: &request,
        tokenize_time,
        windows: &[],
        rounds: 1,
    };
    status(&format!("loading {}", session.checkpoint.name));
    let run = bench.shown(&bench.load(&variant)?)?;
    let versions = versions()?;
    let mut report = Report::stdout();
    report.blank()?;
    let mut card = session.card(&run, &versions);
    card.retain(|(label, _)| label != "ceiling"); // it is that of the weights as they are
    report.card(&card)?;
    report.blank()?;
    answered::one(&mut report, &run)?;
    if args.output.json {
        report.json_line(&JsonReport {
            part: env!("CARGO_PKG_NAME"),
            model: &args.model.model,
            machine: &session.machine,
            versions: &versions,
            runs: &[run],
        })?;
    }
    Ok(())
}

/// A model that is quantized already keeps its weights, as in the table.
fn variant(session: &Session, args: &AnswerArgs) -> Variant {
    let checkpoint = &session.checkpoint;
    match args.bits {
        Some(_) if checkpoint.config.quantization.is_some() => {
            warn(&format!(
                "{} is quantized already: its weights stay as they are",
                checkpoint.name
            ));
            Variant::base(checkpoint)
        }
        Some(bits) => {
            let group = GroupQuantization::affine(args.group_size, bits);
            Variant {
                name: format!("{bits}-bit"),
                ..Variant::packed(group, Fit::Mlx)
            }
        }
        None => Variant::base(checkpoint),
    }
}
