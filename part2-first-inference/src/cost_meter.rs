//! What naive decode costs, drawn: the lesson of this part in two lines and a sum.

use std::io::{self, Write};

use console::numbers::{count, fixed, plural};
use console::report::Report;

/// Per token, the positions that were computed although they had been before, and the milliseconds;
/// then the total, and what it means.
///
/// Both slices have a value per generated token, the first one for prefill (nothing computed
/// again). The total is split into prompt and answer only if the positions are exactly those of
/// naive decode, so the sentence cannot contradict the data.
///
/// # Errors
/// If it cannot be written.
pub fn draw<W: Write>(
    report: &mut Report<W>,
    prompt_tokens: usize,
    recomputed: &[u64],
    token_ms: &[f64],
) -> io::Result<()> {
    let again: Vec<f64> = recomputed
        .iter()
        .map(|&positions| positions as f64)
        .collect();
    report.sparklines("again", 0, &[("positions", &again)])?;
    report.sparklines("taken", 1, &[("time (ms)", token_ms)])?;
    redundancy(recomputed)
        .iter()
        .try_for_each(|sentence| report.note(sentence))?;
    let Some(sentence) = in_one_sentence(prompt_tokens, recomputed) else {
        return Ok(());
    };
    report.blank()?;
    report.note(&sentence)
}

/// What the numbers say. None where nothing was computed twice.
///
/// Each position is needed once, that of the last token not at all: nobody asked what follows it.
fn in_one_sentence(prompt_tokens: usize, recomputed: &[u64]) -> Option<String> {
    let again: u64 = recomputed.iter().sum();
    let needed = (prompt_tokens + recomputed.len().checked_sub(1)?) as u64;
    let share = 100.0 * again as f64 / (again + needed) as f64;
    (again > 0).then(|| {
        format!(
            "{} % of the work had been done before: {} positions computed, {} needed.",
            fixed(share, 0),
            count(again + needed),
            count(needed)
        )
    })
}

/// The total of positions computed again and, if they are those of naive decode, their sum.
///
/// Token i of a naive decode is computed from prompt and i tokens, of which only the last is new:
/// prompt + i − 1 positions again, summed over i = 1 … n − 1.
fn redundancy(recomputed: &[u64]) -> Vec<String> {
    let (total, n) = (recomputed.iter().sum::<u64>(), recomputed.len() as u64);
    let mut lines = vec![format!(
        "{} positions computed again for {} {}",
        count(total),
        count(n),
        plural(recomputed.len(), "token"),
    )];
    let prompt = recomputed.get(1).copied().unwrap_or(0);
    // Step i has p + i positions, and all but the newest are old: (p − 1) + i.
    let naive = |i: usize| if i == 0 { 0 } else { prompt + i as u64 - 1 };
    if prompt > 0 && (0..recomputed.len()).all(|i| recomputed[i] == naive(i)) {
        let (steps, prompt, n) = (count(n - 1), count(prompt - 1), count(n));
        lines.push(format!(
            "= {steps} × {prompt} of the prompt + {n} × {steps} / 2 of the answer"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What 128 tokens of naive decode after a prompt of 18 compute again.
    fn naive_decode() -> Vec<u64> {
        (0..128).map(|i| if i == 0 { 0 } else { 17 + i }).collect()
    }

    #[test]
    fn the_cost_meter_shows_growth_and_total() {
        let ms: Vec<f64> = (0..128).map(|i| 8.0 + 0.25 * f64::from(i)).collect();
        let mut out = Vec::new();
        draw(&mut Report::plain(&mut out), 18, &naive_decode(), &ms).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }

    #[test]
    fn no_token_is_drawn_without_a_fault() {
        draw(&mut Report::plain(Vec::new()), 18, &[], &[]).unwrap();
    }

    #[test]
    fn the_result_is_one_sentence() {
        // A prompt of 12 and an answer of 115 tokens.
        let recomputed: Vec<u64> = (0..115).map(|i| if i == 0 { 0 } else { 11 + i }).collect();
        assert_eq!(
            in_one_sentence(12, &recomputed).unwrap(),
            "98 % of the work had been done before: 7,935 positions computed, 126 needed."
        );
        assert_eq!(in_one_sentence(12, &[0]), None);
        assert_eq!(in_one_sentence(12, &[]), None);
    }

    #[test]
    fn the_total_is_split_only_if_the_positions_are_those_of_naive_decode() {
        let recomputed = naive_decode();
        assert_eq!(recomputed.iter().sum::<u64>(), 127 * 18 + 127 * 126 / 2);
        let lines = redundancy(&recomputed);
        assert_eq!(lines[0], "10,287 positions computed again for 128 tokens");
        assert_eq!(
            lines[1],
            "= 127 × 17 of the prompt + 128 × 127 / 2 of the answer"
        );
        assert_eq!(
            redundancy(&[0, 0, 0]),
            ["0 positions computed again for 3 tokens"]
        );
        assert_eq!(
            redundancy(&[0, 18, 20]),
            ["38 positions computed again for 3 tokens"]
        );
        assert_eq!(redundancy(&[0]), ["0 positions computed again for 1 token"]);
        assert_eq!(redundancy(&[]), ["0 positions computed again for 0 tokens"]);
    }
}
