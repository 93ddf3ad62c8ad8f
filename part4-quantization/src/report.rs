//! What the table says, in cells and in sentences.

use std::path::Path;

use anyhow::Result;
use console::metrics::Rounds;
use console::numbers::{count, difference, fixed, megabytes, or_dash, plural, with_error};
use console::report::{Column, Report, Rows, Stdout};
use console::results::JsonReport;
use console::text::{clip, one_line};
use serde::Serialize;
use shared::config::{GroupQuantization, Mode};
use shared::machine::versions;
use shared::session::Session;

use crate::bench::Bench;
use crate::estimates::{Estimate, Quality};
use crate::kinds::CacheKind;
use crate::plot::{self, Point};
use crate::quality::Scored;
use crate::quantized_cache::group_size;
use crate::table::{Measure, Row};
use crate::variants::Variant;

/// The columns of the table that streams: 80 in all.
pub const HEAD: [Column<'_>; 8] = [
    ("", 9),
    ("bits", 5),
    ("MB", 5),
    ("PPL ± se", 13),
    ("ΔPPL ± se", 16),
    ("KLD", 6),
    ("flips", 5),
    ("tok/s", 5),
];

/// The card above the table: the model, the machine, and what is measured on.
///
/// # Errors
/// If it cannot be written.
pub fn begin(session: &Session, measure: &Measure) -> Result<()> {
    let mut rows = session.about(&versions()?);
    let Measure {
        windows,
        window,
        positions,
        ..
    } = measure;
    let scored = match measure.scored {
        Scored::All => "all but the first token of each",
        Scored::SecondHalf => "those after the middle of each",
    };
    let bos = match measure.bos {
        Some(_) => ", which begins with the id that starts a text",
        None => "",
    };
    rows.push(("text".to_owned(), format!(
        "{}, {} tokens; the first {windows} {} of {window}, not overlapping; scored: {scored}{bos}: {} tokens",
        measure.text,
        count(measure.text_tokens as u64),
        plural(*windows, "window"),
        count(*positions as u64),
    )));
    let packed = |bits: &String| format!("{bits} in all rows but the first");
    rows.extend(
        measure
            .cache
            .as_ref()
            .map(|bits| ("cache".to_owned(), packed(bits))),
    );
    let mut report = Report::stdout();
    report.card(&rows)?;
    Ok(report.blank()?)
}

/// Bits per weight and bytes of a row.
///
/// # Errors
/// If they cannot be written.
pub fn size_cells(
    cells: &mut Rows<'_, Stdout>,
    variant: &Variant,
    bits_per_weight: f64,
    weight_bytes: u64,
) -> Result<()> {
    let same = variant.plan.is_none() && matches!(variant.cache, CacheKind::Quantized(_));
    let megabytes = weight_bytes as f64 / 1e6;
    let decimals = match megabytes {
        size if size < 100.0 => 2,
        size if size < 1000.0 => 1,
        _ => 0,
    };
    for text in [fixed(bits_per_weight, 2), fixed(megabytes, decimals)] {
        cells.cell(if same { "\"" } else { &text })?;
    }
    Ok(())
}

/// The four cells of the quality.
///
/// # Errors
/// If they cannot be written.
pub fn quality_cells(cells: &mut Rows<'_, Stdout>, quality: &Quality) -> Result<()> {
    let Estimate { value, error, .. } = quality.perplexity;
    cells.cell(&with_error(value, error))?;
    let Estimate { value, error, .. } = quality.delta;
    cells.cell(&difference(value, error))?;
    cells.cell(&nats(quality.divergence.value))?;
    Ok(cells.cell(&percent(quality.flips.value))?)
}

/// The last cell.
///
/// # Errors
/// If it cannot be written.
pub fn speed_cell(cells: &mut Rows<'_, Stdout>, rounds: &Rounds) -> Result<()> {
    let decimals = usize::from(rounds.run.decode_tps.is_none_or(|tps| tps < 1000.0));
    Ok(cells.cell(&or_dash(rounds.run.decode_tps, decimals))?)
}

/// What stands below the table: its tails and errors, the speed, the cache, and the texts.
///
/// # Errors
/// If it cannot be written.
pub fn finish(bench: &Bench<'_>, rows: &[Row]) -> Result<()> {
    let mut report = Report::stdout();
    report.note(
        "PPL: perplexity. ΔPPL: minus the first row's, on the same windows. KLD: mean divergence from it, in \
         nats. flips: tokens at which another one is the most likely. ±: windows drawn again, 1,000 times.",
    )?;
    report.blank()?;
    tails(&mut report, rows)?;
    report.blank()?;
    speeds(&mut report, bench, rows)?;
    caches(&mut report, bench, rows)?;
    report.blank()?;
    texts(&mut report, bench, rows)
}

const TAILS: [Column<'_>; 8] = [
    ("", 9),
    ("KLD ± se", 15),
    ("naive ±", 7),
    ("median", 6),
    ("90 %", 6),
    ("99 %", 6),
    ("99.9 %", 6),
    ("RMS Δp", 6),
];

/// How the divergence is spread, and what the customary errors would be.
fn tails(report: &mut Report<Stdout>, rows: &[Row]) -> Result<()> {
    let mut cells = report.rows(&TAILS)?;
    for Row {
        variant, quality, ..
    } in rows.iter().skip(1)
    {
        let Estimate {
            value,
            error,
            naive,
        } = quality.divergence;
        let all = [
            variant.name.clone(),
            nats_with_error(value, error),
            nats(naive.unwrap_or(f64::NAN)),
        ];
        let spread = quality.divergence_percentiles.map(nats);
        let shift = percent(quality.rms_shift);
        for cell in all.iter().chain(&spread).chain([&shift]) {
            cells.cell(cell)?;
        }
    }
    report.note(
        "KLD below which so many of the tokens are. RMS Δp: how far the probability of the text's token moves. \
         naive: as if the tokens of a window were independent.",
    )?;
    let Some(row) = rows.iter().skip(1).max_by_key(|row| is_usual(row)) else {
        return Ok(());
    };
    let Estimate {
        value,
        error,
        naive,
    } = row.quality.delta;
    Ok(report.note(&format!(
        "ΔPPL of {}: {} by window and paired; ± {} as if neither were: two perplexities whose errors add up.",
        row.variant.name,
        difference(value, error),
        or_dash(naive, 3),
    ))?)
}

/// The width that most people take.
fn is_usual(row: &Row) -> bool {
    let plan = row.variant.plan.as_ref();
    plan.is_some_and(|plan| plan.default == GroupQuantization::affine(64, 4))
}

const SPEED: [Column<'_>; 7] = [
    ("tok/s", 9),
    ("prefill", 8),
    ("decode", 15),
    ("×", 5),
    ("of roof", 7),
    ("peak MB", 8),
    ("KV B/pos", 8),
];

fn speeds(report: &mut Report<Stdout>, bench: &Bench<'_>, rows: &[Row]) -> Result<()> {
    let mut cells = report.rows(&SPEED)?;
    for row in rows {
        for cell in speed(row, &rows[0]) {
            cells.cell(&cell)?;
        }
    }
    Ok(report.note(&speed_note(bench))?)
}

fn speed(row: &Row, first: &Row) -> [String; 7] {
    let Rounds { run, n, .. } = &row.rounds;
    let ratio = run.decode_tps.zip(first.rounds.run.decode_tps);
    let decode = or_dash(run.decode_tps, 1);
    [
        row.variant.name.clone(),
        or_dash(run.prefill_tps, 1),
        match row.rounds.decode_tps_half_iqr {
            Some(spread) if *n > 1 => format!("{decode} ± {}", fixed(spread, 1)),
            _ => decode,
        },
        or_dash(ratio.map(|(a, b)| a / b), 2),
        run.mbu.map_or_else(|| or_dash(None, 0), percent),
        megabytes(run.peak_bytes, 1),
        count(row.kv_bytes_per_position),
    ]
}

fn speed_note(bench: &Bench<'_>) -> String {
    let known = match bench.session.machine.bandwidth_text() {
        Some(bandwidth) => format!(
            "of roof: what a step reads, beside the memory's {bandwidth}; above 100 % the caches of the \
             processor hold it"
        ),
        None => "the bandwidth of this machine's memory is not known, and so no roof".to_owned(),
    };
    format!(
        "{} of {} prompt tokens and at most {}, one row after the other: medians, ± half the IQR; {known}.",
        match bench.rounds {
            1 => "1 answer".to_owned(),
            n => format!("{n} answers"),
        },
        bench.request.ids.len(),
        bench.request.max_tokens
    )
}

/// What a position costs, measured in the first column of the table above, beside the formula.
fn caches(report: &mut Report<Stdout>, bench: &Bench<'_>, rows: &[Row]) -> Result<()> {
    let config = &bench.session.checkpoint.config;
    let (layers, heads, d) = (
        config.num_hidden_layers,
        config.num_key_value_heads,
        config.head_dim,
    );
    let bytes = bench.session.checkpoint.activation_bytes();
    let Ok(group) = group_size(d as i32) else {
        return Ok(report.note(&format!(
            "Heads of {d} numbers cannot be packed in groups of 64 or 32, so the caches are dense."
        ))?);
    };
    let packed = rows.iter().find_map(|row| match row.variant.cache {
        CacheKind::Quantized(bits) => Some((row, bits)),
        _ => None,
    });
    let Some((row, bits)) = packed else {
        return Ok(());
    };
    let scales = 2 * d / group as usize * bytes;
    let of = |bits: i32| d * bits as usize / 8 + scales;
    let formula = layers * heads * (of(bits.keys) + of(bits.values));
    let dense = config.kv_bytes_per_token(bytes);
    Ok(report.note(&format!(
        "Bytes per position of {}: {layers} layers × {heads} heads × (({d} × {} + {d} × {}) bits + 2 × {scales} \
         bytes of scales and biases) = {}, measured {}; dense: {}.",
        row.variant.name,
        bits.keys,
        bits.values,
        count(formula as u64),
        count(row.kv_bytes_per_position),
        count(dense),
    ))?)
}

/// The answers: the first one whole, the others from where they leave it.
fn texts(report: &mut Report<Stdout>, bench: &Bench<'_>, rows: &[Row]) -> Result<()> {
    let Some((first, others)) = rows.split_first() else {
        return Ok(());
    };
    report.card(&[(&first.variant.name, &first.rounds.run.text)])?;
    report.blank()?;
    let row = |row: &Row| leaves(bench, first, row);
    let rows: Vec<_> = others.iter().map(row).collect::<Result<_>>()?;
    report.text_table(&ANSWERS, &rows, &[0, 3, 4])?;
    Ok(report.note(
        "The same prompt for all. equal: tokens before the first difference. margin: by how many nats the \
         first row preferred its own token there.",
    )?)
}

const ANSWERS: [&str; 5] = ["answer", "equal", "margin", "instead of", "goes on with"];
/// Columns of the rest of an answer, so that it stays on its line.
const REST: usize = 32;

fn leaves(bench: &Bench<'_>, first: &Row, row: &Row) -> Result<Vec<String>> {
    let name = row.variant.name.clone();
    let tokens = &row.rounds.run.tokens;
    let Some(difference) = &row.first_difference else {
        let all = format!("all {}", tokens.len());
        return Ok(vec![name, all, String::new(), String::new(), String::new()]);
    };
    let decode = |tokens: &[u32]| bench.session.tokenizer.decode(tokens, true);
    let at = difference.index;
    let quoted = |text: &str, width| format!("\"{}\"", clip(&one_line(text), width));
    let expected = first.rounds.run.tokens.get(at);
    Ok(vec![
        name,
        count(at as u64),
        or_dash(difference.margin, 2),
        match expected {
            Some(id) => quoted(&decode(&[*id])?, 12),
            None => "its end".to_owned(),
        },
        match &tokens[at.min(tokens.len())..] {
            [] => "its end".to_owned(),
            rest => quoted(&decode(rest)?, REST),
        },
    ])
}

/// The line of JSON with all numbers.
///
/// # Errors
/// If it cannot be written.
pub fn json(bench: &Bench<'_>, measure: &Measure, rows: &[Row], model: &str) -> Result<()> {
    #[derive(Serialize)]
    struct WithText<'a> {
        #[serde(flatten)]
        report: JsonReport<'a, Row>,
        quality: &'a Measure,
    }
    let report = JsonReport {
        part: env!("CARGO_PKG_NAME"),
        model,
        machine: &bench.session.machine,
        versions: &versions()?,
        runs: rows,
    };
    let quality = measure;
    Ok(Report::stdout().json_line(&WithText { report, quality })?)
}

/// Divergence over bits per weight as a chart.
///
/// # Errors
/// If the file cannot be written.
pub fn plot(bench: &Bench<'_>, measure: &Measure, rows: &[Row], path: &Path) -> Result<()> {
    let Session {
        checkpoint,
        machine,
        ..
    } = bench.session;
    let title = format!("{}, {}; {}", checkpoint.name, measure.text, machine.name);
    let weights = rows.iter().filter(|row| row.variant.plan.is_some());
    let points = weights.map(|row| Point {
        label: &row.variant.name,
        group: row.variant.plan.as_ref().and_then(|plan| {
            let group = plan.default;
            (group.mode == Mode::Affine).then_some(group.group_size)
        }),
        bits_per_weight: row.bits_per_weight,
        divergence: row.quality.divergence.value,
        error: row.quality.divergence.error.unwrap_or(0.0),
    });
    plot::save(path, &title, &points.collect::<Vec<_>>())
}

/// A divergence in at most six characters.
fn nats(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.001 => format!("{value:.0e}"),
        size if size < 0.1 => fixed(value, 4),
        size if size < 10.0 => fixed(value, 3),
        _ => fixed(value, 1),
    }
}

fn nats_with_error(value: f64, error: Option<f64>) -> String {
    if value < 0.001 {
        format!(
            "{} ± {}",
            nats(value),
            error.map_or_else(|| or_dash(None, 0), nats)
        )
    } else {
        with_error(value, error)
    }
}

fn percent(share: f64) -> String {
    format!("{}%", fixed(100.0 * share, if share < 0.1 { 2 } else { 1 }))
}
