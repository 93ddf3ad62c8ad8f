//! What the tests share: a loaded model, a walk, and a comparison of texts that lets numbers be rounded.

#![allow(clippy::unwrap_used, dead_code)] // each test file uses its own part of this

use clap::Parser;
use console::cli::{ModelArgs, SamplingArgs};
use console::report::Report;
use part1_walkthrough::show::{Pace, Stop, journey};
use part1_walkthrough::subject::{Plan, Subject};
use part1_walkthrough::trace::Trace;
use part1_walkthrough::walk::walk;
use shared::sampling::Sampling;

/// The sentence that the program shows by itself.
pub(crate) const SENTENCE: &str = "Penguins are birds that";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// The model and the sampling flags of a command line.
pub(crate) fn flags(args: &[&str]) -> (ModelArgs, Sampling) {
    let flags = Flags::parse_from([&["part1"], args].concat());
    (flags.model, (&flags.sampling).into())
}

/// The embedded model.
pub(crate) fn tiny() -> Subject {
    Subject::open(&flags(&[]).0).unwrap()
}

/// The plan of a walk without flags, for another text.
pub(crate) fn plan(text: &str) -> Plan {
    Plan {
        text: text.to_owned(),
        raw: true,
        max_tokens: 8,
        stops: true,
        sampling: Sampling::default(),
        layer: None,
        head: None,
        what_if: None,
    }
}

/// A walk without its measured times.
pub(crate) fn walked(subject: &Subject, plan: &Plan) -> Trace {
    untimed(walk(subject, plan).unwrap())
}

/// Times are never the same in two runs.
pub(crate) fn untimed(mut trace: Trace) -> Trace {
    trace
        .budget
        .iter_mut()
        .for_each(|cost| cost.micros = f64::NAN);
    trace
        .decode
        .rounds
        .iter_mut()
        .for_each(|round| round.micros = f64::NAN);
    trace
}

/// What the terminal shows of one stop.
pub(crate) fn shown(trace: &Trace, stop: Stop) -> String {
    let mut out = Vec::new();
    journey(
        &mut Report::plain(&mut out),
        Pace::new(None),
        trace,
        &[stop],
    )
    .unwrap();
    String::from_utf8(out).unwrap()
}

/// Whether two texts are the same but for the last digit of their numbers and for the lengths of bars:
/// another BLAS or a GPU adds in another order, and 0.4999 may become 0.5001.
pub(crate) fn agree(a: &str, b: &str) -> bool {
    let (a, b): (Vec<&str>, Vec<&str>) = (words(a).collect(), words(b).collect());
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same_word(a, b))
}

/// Words without the blocks of bars and shades around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let block = |c: char| ('\u{2580}'..='\u{259F}').contains(&c);
    text.split(move |c: char| c.is_whitespace() || block(c))
        .filter(|word| !word.is_empty())
}

fn same_word(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    // A difference of rounding errors: any power of ten may stand there.
    if a.contains("e-") && b.contains("e-")
        || [a, b].contains(&"0") && (a.contains("e-") || b.contains("e-"))
    {
        return true;
    }
    let number = |text: &str| {
        let text = text.trim_end_matches([';', '.', ',']).replace(',', "");
        let decimals = text.split_once('.').map_or(0, |(_, digits)| digits.len());
        Some((text.parse::<f64>().ok()?, decimals))
    };
    match (number(a), number(b)) {
        (Some((a, decimals)), Some((b, other))) if decimals == other => {
            (a - b).abs() <= 1.01 * 10_f64.powi(-(decimals as i32))
        }
        _ => false,
    }
}

/// `insta::assert_snapshot!`, for texts with numbers from floating point: see [`agree`].
#[macro_export]
macro_rules! assert_settled {
    ($name:expr, $text:expr) => {{
        let text: String = $text;
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/snapshots")
            .join(format!(
                "{}__{}.snap",
                module_path!().split("::").next().unwrap(),
                $name
            ));
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        // The head of the file ends with the second line of dashes.
        let stored = stored
            .splitn(3, "---\n")
            .nth(2)
            .unwrap_or_default()
            .to_owned();
        let settled = if common::agree(&stored, &text) {
            stored
        } else {
            text
        };
        insta::assert_snapshot!($name, settled);
    }};
}
