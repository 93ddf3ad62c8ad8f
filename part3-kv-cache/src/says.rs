//! What the numbers say, in sentences.

use console::metrics::{Line, Rounds, Run};
use console::numbers::{count, decimal, fixed, plural};

use crate::bench::{Bench, Variant};
use crate::report::kv_bytes_per_token;

/// The answer whose prompt came out of a file, beside the one that computed it.
pub const FROM_FILE: &str = "from file";

/// How many times as fast a run decodes as another one.
pub fn ratio(run: &Run, other: &Run) -> Option<f64> {
    Some(run.decode_tps? / other.decode_tps?)
}

/// Times are worth comparing only if the tokens are the same. None where there is nothing to compare.
pub fn same_tokens(rounds: &[Rounds]) -> Option<String> {
    let (first, others) = rounds.split_first()?;
    let first = &first.run;
    let (same, different): (Vec<&Run>, Vec<&Run>) = others
        .iter()
        .map(|other| &other.run)
        .partition(|other| first.first_difference(other).is_none());
    let mut told = Vec::new();
    if !same.is_empty() {
        let names: Vec<&str> = same.iter().map(|run| run.variant.as_str()).collect();
        let verb = if names.len() == 1 { "gives" } else { "give" };
        told.push(format!(
            "{} {verb} the same tokens as {}",
            and(&names),
            first.variant
        ));
    }
    for run in different {
        let at = first.first_difference(run).unwrap_or(0) + 1;
        told.push(format!(
            "{} differs from {} from token {at} on",
            run.variant, first.variant
        ));
    }
    (!told.is_empty()).then(|| format!("{}.", told.join("; ")))
}

fn and(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The lesson of what was run, in one sentence. None where one cache alone was looked at.
pub fn result(bench: &Bench<'_>, variants: &[Variant], rounds: &[Rounds]) -> Option<String> {
    let prompt = bench.request.ids.len();
    let run = |name: &str| {
        rounds
            .iter()
            .map(|r| &r.run)
            .find(|run| run.variant == name)
    };
    if let Some(loaded) = run(FROM_FILE) {
        let computed = rounds
            .first()
            .map(|r| &r.run)
            .filter(|run| run.variant != FROM_FILE);
        let stored = variants.last()?.stored;
        return from_file(prompt, stored, computed, loaded);
    }
    let (off, cached) = (run("off")?, run("prealloc")?);
    let offset = variants
        .iter()
        .find(|v| v.label == "prealloc")?
        .measured
        .last()?
        .offset;
    let bytes = kv_bytes_per_token(bench) * u64::try_from(offset).ok()?;
    with_a_cache(off, cached, bytes)
}

fn with_a_cache(off: &Run, cached: &Run, bytes: u64) -> Option<String> {
    let n = off.tokens.len();
    let faster = ratio(cached, off)?;
    let faster = fixed(faster, usize::from(faster < 10.0));
    let memory = decimal(bytes).replace(".00 ", " ");
    Some(match off.first_difference(cached) {
        None => format!(
            "The same {} {}, {faster} times as fast, for {memory} of keys and values.",
            count(n as u64),
            plural(n, "token")
        ),
        Some(at) => format!(
            "{faster} times as fast, for {memory} of keys and values, but other tokens from the {}. on.",
            at + 1
        ),
    })
}

fn from_file(prompt: usize, stored: i32, computed: Option<&Run>, loaded: &Run) -> Option<String> {
    let after = time(loaded.ttft_ms?);
    let (prompt, stored) = (count(prompt as u64), count(u64::try_from(stored).ok()?));
    Some(match computed {
        Some(computed) => format!(
            "First token after {} with the prompt of {prompt} tokens computed, after {after} with \
             {stored} of them from the file.",
            time(computed.ttft_ms?)
        ),
        None => format!(
            "First token after {after}: {stored} of the prompt's {prompt} tokens came from the file."
        ),
    })
}

/// Milliseconds as a person would say them.
fn time(ms: f64) -> String {
    if ms >= 999.5 {
        format!("{} s", fixed(ms / 1e3, 1))
    } else {
        format!("{} ms", fixed(ms, usize::from(ms < 10.0)))
    }
}

/// Tokens that a line is fitted through at least: fewer have a slope by chance.
const ENOUGH: usize = 8;

/// What a line through the times of the first round says, the same that the curves show: with a cache
/// it should be flat. The first gap is left out, too: there the host is not yet a step ahead.
pub fn lines(variants: &[Variant]) -> Vec<String> {
    let sentence = |variant: &Variant| {
        let times = variant.measured.first()?.steady_ms().get(1..)?;
        (times.len() >= ENOUGH).then(|| slope(variant.label, times))?
    };
    variants.iter().filter_map(sentence).collect()
}

/// A slope is told only if the times rise along the line by more than four times what they are away from
/// it. No cache makes later tokens cheaper: if they fall, another program has ended.
fn slope(label: &str, times: &[f64]) -> Option<String> {
    let line = Line::fit(times)?;
    let noise = fixed(line.residual, 2);
    let rise = line.slope * (times.len() - 1) as f64;
    if rise <= 4.0 * line.residual {
        let mean = fixed(line.intercept + rise / 2.0, 2);
        return Some(format!(
            "{label}: {mean} ms a token, flat within the noise (± {noise} ms)"
        ));
    }
    Some(format!(
        "{label}: {} ms + {} ms for each further token (± {noise} ms)",
        fixed(line.intercept, 2),
        fixed(line.slope, 3),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use console::metrics::Timeline;

    fn run(variant: &str, tokens: &[u32], tps: f64, ttft_ms: f64) -> Run {
        let mut run = Run::from_timeline(variant, 609, &Timeline::start());
        run.tokens = tokens.to_vec();
        run.decode_tps = Some(tps);
        run.ttft_ms = Some(ttft_ms);
        run
    }

    #[test]
    fn the_result_is_one_sentence() {
        let tokens: Vec<u32> = (0..64).collect();
        let off = run("off", &tokens, 46.9, 6.8);
        let cached = run("prealloc", &tokens, 470.8, 10.8);
        assert_eq!(
            with_a_cache(&off, &cached, 4096 * 75).unwrap(),
            "The same 64 tokens, 10 times as fast, for 307.20 kB of keys and values."
        );
        let other = run("prealloc", &[0, 1, 7], 93.8, 10.8);
        assert_eq!(
            with_a_cache(&off, &other, 4000).unwrap(),
            "2.0 times as fast, for 4 kB of keys and values, but other tokens from the 3. on."
        );
    }

    #[test]
    fn a_prompt_from_a_file_is_told_in_one_line() {
        let computed = run("computed", &[1], 1.0, 3779.2);
        let loaded = run(FROM_FILE, &[1], 1.0, 38.1);
        assert_eq!(
            from_file(609, 608, Some(&computed), &loaded).unwrap(),
            "First token after 3.8 s with the prompt of 609 tokens computed, after 38 ms with 608 of \
             them from the file."
        );
        assert_eq!(
            from_file(609, 608, None, &loaded).unwrap(),
            "First token after 38 ms: 608 of the prompt's 609 tokens came from the file."
        );
    }

    #[test]
    fn tokens_are_compared_with_the_first_run() {
        let rounds = |runs: &[(&str, &[u32])]| -> Vec<Rounds> {
            let runs = runs
                .iter()
                .map(|(name, tokens)| run(name, tokens, 1.0, 1.0));
            runs.filter_map(|run| Rounds::of(&[run])).collect()
        };
        let told = same_tokens(&rounds(&[
            ("off", &[1, 2, 3]),
            ("concat", &[1, 2, 3]),
            ("prealloc", &[1, 2, 3]),
            ("rotating", &[1, 2, 4]),
        ]));
        assert_eq!(
            told.unwrap(),
            "concat and prealloc give the same tokens as off; rotating differs from off from token 3 on."
        );
        let told = same_tokens(&rounds(&[("computed", &[1]), (FROM_FILE, &[1])]));
        assert_eq!(
            told.unwrap(),
            "from file gives the same tokens as computed."
        );
        assert_eq!(same_tokens(&rounds(&[("prealloc", &[1])])), None);
    }

    #[test]
    fn no_slope_is_told_that_the_noise_explains() {
        let noisy: Vec<f64> = (0..60).map(|i| 30.0 + f64::from(i * 7 % 5)).collect();
        assert_eq!(
            slope("concat", &noisy).unwrap(),
            "concat: 32.00 ms a token, flat within the noise (± 1.41 ms)"
        );
        let drifting: Vec<f64> = (0..60).map(|i| 3.0 - 0.02 * f64::from(i)).collect();
        assert!(
            slope("rotating", &drifting)
                .unwrap()
                .contains("2.41 ms a token, flat")
        );
        // Two slow tokens at the beginning of a short answer.
        let slow = [170.0, 190.0, 30.0, 31.0, 30.0, 29.0, 31.0, 30.0, 30.0, 31.0];
        assert!(
            slope("off", &slow)
                .unwrap()
                .contains("flat within the noise")
        );
        let rising: Vec<f64> = (0..60)
            .map(|i| 8.0 + 0.4 * f64::from(i) + f64::from(i % 2))
            .collect();
        assert_eq!(
            slope("off", &rising).unwrap(),
            "off: 8.48 ms + 0.401 ms for each further token (± 0.50 ms)"
        );
    }
}
