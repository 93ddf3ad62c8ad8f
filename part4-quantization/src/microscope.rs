//! One word under the microscope: a group of real weights on its way to codes, words and back, and how
//! far its error comes: to the output of its layer, to the logits, to the first token that changes.
//!
//! - [`parse`]: `layers.0.self_attn.q_proj[3,64..128]`, and what that names in a checkpoint
//! - [`specimen`]: those weights, packed and unpacked
//! - [`picture`]: all of it in a terminal
//! - [`follow`]: the same error in outputs, logits and tokens
//! - [`page`]: all of it as one HTML file, with sliders

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use console::cli::SamplingArgs;
use console::files;
use console::numbers::decimal;
use console::report::{Report, status, warn};
use shared::session::Session;

use crate::table::TableArgs;

use self::follow::Subject;
use self::parse::Place;
use self::specimen::Specimen;

pub mod follow;
pub mod page;
pub mod parse;
pub mod picture;
pub mod specimen;

/// What to look at; how it is quantized, `--bits` and `--group-size` say.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Microscope")]
pub struct MicroscopeArgs {
    /// Show how a few weights are packed, and how far their error comes:
    /// layers.0.self_attn.q_proj[3,64..128] is row 3, columns 64 to 127
    #[arg(long, value_name = "MODULE[ROW,FROM..TO]")]
    pub show: Option<Place>,

    /// Write the same as one HTML page, with sliders for bits and groups
    #[arg(long, value_name = "FILE", requires = "show")]
    pub page: Option<PathBuf>,
}

/// A token changes where another one is the likeliest: nothing is drawn.
const GREEDY: SamplingArgs = SamplingArgs {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    seed: 0,
};

/// Everything that `--show` asks for.
///
/// # Errors
/// If there is no such matrix, row or group, or if the page cannot be written.
pub fn run(place: &Place, page: Option<&Path>, args: &TableArgs) -> Result<()> {
    if let Some(path) = page {
        files::directory(path).with_context(|| format!("--page {}", path.display()))?;
    }
    let group = args.only_packing()?;
    let session = Session::open(&args.model)?;
    let module = place.module_of(&session.checkpoint)?;
    let (request, _) = session.request(&args.prompt, &GREEDY)?;
    status(&format!("loading {}", session.checkpoint.name));
    let subject = Subject::load(&session)?;
    if let Some(remark) = &subject.remark {
        warn(remark);
    }
    let mut specimen = Specimen::take(&subject, &module, place, group)?;
    let mut report = Report::stdout();
    picture::specimen(&mut report, &specimen)?;
    status("following the error through the model");
    let followed = follow::follow(&session, &subject, &request, &specimen)?;
    picture::followed(&mut report, &followed)?;
    specimen.followed = Some(followed);
    if let Some(path) = page {
        let size = page::save(path, &specimen)?;
        report.note(&format!("{}: {}", path.display(), decimal(size)))?;
    }
    if args.output.json {
        report.json_line(&specimen)?;
    }
    Ok(())
}
