//! The report below one answer, or below several that were made at the same time.

use std::io::{self, Write};

use crate::metrics::{Run, Together};
use crate::numbers::{megabytes, or_dash, plural};
use crate::report::Report;

/// One answer as a table.
///
/// # Errors
/// If it cannot be written.
pub fn one<W: Write>(report: &mut Report<W>, run: &Run) -> io::Result<()> {
    let head = [
        "weights",
        "TTFT ms",
        "TPOT ms",
        "decode tok/s",
        "MBU %",
        "peak MB",
        "weights MB",
    ];
    let row = vec![
        run.variant.clone(),
        or_dash(run.ttft_ms, 1),
        or_dash(run.tpot_ms, 2),
        or_dash(run.decode_tps, 1),
        or_dash(run.mbu.map(|share| 100.0 * share), 1),
        megabytes(run.peak_bytes, 1),
        megabytes(run.weight_bytes, 1),
    ];
    report.table(&head, &[row])
}

/// Several answers as a table, and whether all have the same tokens.
///
/// # Errors
/// If it cannot be written.
pub fn rows<W: Write>(report: &mut Report<W>, all: &Together) -> io::Result<()> {
    let head = [
        "at once",
        "TTFT ms",
        "TPOT ms",
        "tok/s per row",
        "tok/s in all",
        "peak MB",
        "KV MB",
    ];
    let Together { run, .. } = all;
    let row = vec![
        run.variant.clone(),
        or_dash(run.ttft_ms, 1),
        or_dash(run.tpot_ms, 2),
        or_dash(run.decode_tps, 1),
        or_dash(all.throughput_tps, 1),
        megabytes(run.peak_bytes, 1),
        megabytes(run.kv_bytes, 1),
    ];
    report.table(&head, &[row])?;
    report.blank()?;
    report.note(&same(all))?;
    report.note("Per row: the median, after the first token. In all: all tokens ÷ all time.")
}

fn same(all: &Together) -> String {
    let tokens = all.run.tokens.len();
    let tokens = format!("{tokens} {}", plural(tokens, "token"));
    match (all.rows, all.odd_row()) {
        (1, _) => format!("{tokens}."),
        (rows, None) => format!("All {rows} rows have the same {tokens}."),
        (_, Some((row, at))) => {
            format!(
                "Row {} differs from row 1 at token {} of {tokens}.",
                row + 1,
                at + 1
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::metrics::{FinishReason, Timeline};

    fn row(tokens: &[u32]) -> Run {
        let start = Instant::now();
        let at = |i: usize| start + Duration::from_millis(40 + 10 * i as u64);
        let timeline = Timeline::from_instants(start, (0..tokens.len()).map(at).collect());
        Run::from_timeline("2 rows", 12, &timeline)
            .output(tokens.to_vec(), "x".into(), FinishReason::Length)
            .peak_bytes(15_000_000)
            .weight_bytes(14_000_000)
            .kv_bytes(1_000_000)
    }

    fn printed(rows: &[Run]) -> String {
        let all = Together::of(rows, Duration::from_millis(60)).unwrap();
        let mut text = Vec::new();
        let mut report = Report::plain(&mut text);
        super::rows(&mut report, &all).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn rows_have_a_speed_each_and_one_together() {
        let text = printed(&[row(&[1, 2, 3]), row(&[1, 2, 3])]);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        let numbers: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(
            numbers,
            [
                "2", "rows", "40.0", "10.00", "100.0", "100.0", "15.0", "1.0"
            ]
        );
        assert!(text.contains("All 2 rows have the same 3 tokens."));
    }

    #[test]
    fn a_row_with_other_tokens_is_told() {
        let text = printed(&[row(&[1, 2, 3]), row(&[1, 7, 3])]);
        assert!(text.contains("Row 2 differs from row 1 at token 2 of 3 tokens."));
    }
}
