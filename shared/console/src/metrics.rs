//! Instants → the numbers of the report, each with one meaning in every part.
//!
//! A rate or a mean that cannot be computed (one token has no gap) is `None`, `null` in the JSON:
//! never a zero, which would read as a measurement.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::numbers::fixed;

/// When a request started, and when each of its tokens was evaluated.
///
/// MLX is lazy: mark a token only after its id has reached the host, or the mark says when the work
/// was *described*, not when it was done.
#[derive(Debug, Clone)]
pub struct Timeline {
    start: Instant,
    tokens: Vec<Instant>,
}

impl Timeline {
    /// Starts the clock: the token ids are about to be handed to the model.
    pub fn start() -> Self {
        Self::from_instants(Instant::now(), Vec::new())
    }

    /// A timeline that was recorded elsewhere; `tokens` in the order in which they came.
    pub fn from_instants(start: Instant, tokens: Vec<Instant>) -> Self {
        Self { start, tokens }
    }

    /// One more token has been evaluated, just now.
    pub fn mark(&mut self) {
        self.tokens.push(Instant::now());
    }

    /// How many tokens were marked.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no token has come yet.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Time to first token: ids handed over → first token evaluated. Loading and tokenizing are not
    /// in it.
    pub fn ttft(&self) -> Option<Duration> {
        let first = self.tokens.first()?;
        Some(first.saturating_duration_since(self.start))
    }

    /// Inter-token latencies: `itl[i]` is the gap between tokens i and i+1, so n tokens have n − 1.
    pub fn itl(&self) -> Vec<Duration> {
        let gap = |pair: &[Instant]| pair[1].saturating_duration_since(pair[0]);
        self.tokens.windows(2).map(gap).collect()
    }

    /// What each token cost, the first one included: `[ttft, itl…]` in milliseconds, n values.
    pub fn token_ms(&self) -> Vec<f64> {
        self.ttft().into_iter().chain(self.itl()).map(ms).collect()
    }

    /// Time per output token after the first: `(end − first)/(n − 1)`. None for n < 2.
    pub fn tpot(&self) -> Option<Duration> {
        let gaps = u32::try_from(self.tokens.len().checked_sub(1)?).ok()?;
        (gaps > 0).then(|| self.decode_time() / gaps)
    }

    /// Prompt tokens per second up to the first token: `prompt_tokens / ttft`.
    pub fn prefill_tps(&self, prompt_tokens: usize) -> Option<f64> {
        rate(prompt_tokens, self.ttft()?)
    }

    /// Tokens per second of one request after the first: `(n − 1)/(end − first)`. None for n < 2.
    pub fn decode_tps(&self) -> Option<f64> {
        rate(self.tokens.len().checked_sub(1)?, self.decode_time())
    }

    /// First token → last token.
    fn decode_time(&self) -> Duration {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => last.saturating_duration_since(*first),
            _ => Duration::ZERO,
        }
    }
}

/// Notes each token of a request when it is told of it; it knows nothing of models.
#[derive(Debug)]
pub struct Recorder {
    timeline: Timeline,
    tokens: Vec<u32>,
    positions_recomputed: Vec<u64>,
}

impl Recorder {
    /// Starts the clock: the token ids are about to be handed to the model.
    pub fn start() -> Self {
        Self {
            timeline: Timeline::start(),
            tokens: Vec::new(),
            positions_recomputed: Vec::new(),
        }
    }

    /// `id` has reached the host, just now, from a step that ran `positions`. One of them was new;
    /// the keys and values of the others had been computed before, except in the first step.
    pub fn token(&mut self, id: u32, positions: usize) {
        self.timeline.mark();
        let first = self.tokens.is_empty();
        let again = if first {
            0
        } else {
            positions.saturating_sub(1)
        };
        self.positions_recomputed.push(again as u64);
        self.tokens.push(id);
    }

    /// No more tokens will come.
    pub fn finish(self, finish_reason: FinishReason) -> Generation {
        Generation {
            tokens: self.tokens,
            finish_reason,
            timeline: self.timeline,
            positions_recomputed: self.positions_recomputed,
        }
    }
}

/// What came out of one request, and when.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The generated ids, without the stop token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The instant of each token.
    pub timeline: Timeline,
    /// Per token: positions whose keys and values an earlier step had already computed.
    pub positions_recomputed: Vec<u64>,
}

/// A duration in milliseconds, the unit of every latency here.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// `count` per second; None where nothing was counted or no time passed.
fn rate(count: usize, time: Duration) -> Option<f64> {
    (count > 0 && !time.is_zero()).then(|| count as f64 / time.as_secs_f64())
}

/// The value below which `p` percent of `values` lie, interpolated between neighbours (as NumPy and
/// spreadsheets do by default). None if there are no values or one is not a number.
pub fn percentile(values: &[f64], p: f64) -> Option<f64> {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = p.clamp(0.0, 100.0) / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    Some(below + (above - below) * rank.fract())
}

/// The middle value; the mean of the two middle ones if their number is even.
pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50.0)
}

/// Several rounds of one number. Median and quartiles rather than mean and deviation: one round in
/// which the machine was busy elsewhere must not move the result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The middle one.
    pub median: f64,
    /// Half the distance between the quartiles: the `±` beside the median.
    pub half_iqr: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Sums up `values`; None if there are none, or one is not a number.
    pub fn of(values: &[f64]) -> Option<Self> {
        let at = |p| percentile(values, p);
        Some(Self {
            median: at(50.0)?,
            half_iqr: (at(75.0)? - at(25.0)?) / 2.0,
            min: at(0.0)?,
            max: at(100.0)?,
        })
    }

    /// The median with its spread, `117.1 ± 7.2`; a single measurement has none.
    pub fn text(&self, decimals: usize) -> String {
        let median = fixed(self.median, decimals);
        if self.min == self.max {
            return median;
        }
        format!("{median} ± {}", fixed(self.half_iqr, decimals))
    }
}

/// A straight line through `values[i]` at i = 0, 1, 2 …, by least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Line {
    /// At i = 0.
    pub intercept: f64,
    /// Per step of i.
    pub slope: f64,
    /// Root of the mean squared distance of the values from the line.
    pub residual: f64,
}

impl Line {
    /// None for fewer than three values: two always lie on a line.
    pub fn fit(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        if values.len() < 3 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let (x_mean, y_mean) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
        let x = |i: usize| i as f64 - x_mean;
        let xy = values.iter().enumerate();
        let covariance: f64 = xy.map(|(i, y)| x(i) * (y - y_mean)).sum();
        let variance: f64 = (0..values.len()).map(|i| x(i) * x(i)).sum();
        let slope = covariance / variance;
        let line = |i: usize| y_mean + slope * x(i);
        let squares = values
            .iter()
            .enumerate()
            .map(|(i, y)| (y - line(i)).powi(2));
        Some(Self {
            intercept: line(0),
            slope,
            residual: (squares.sum::<f64>() / n).sqrt(),
        })
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model gave one of its stop tokens.
    Stop,
    /// The number of tokens that was asked for, or the context is full.
    Length,
    /// Ctrl-C: the text so far is intact.
    Interrupted,
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Interrupted => "interrupted",
        })
    }
}

/// One generation: an entry of `"runs"` in the JSON line, with the same keys in every part.
///
/// A part that has more to say wraps it (`#[serde(flatten)] run: Run`) and adds keys beside these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What distinguishes this run from the others of the same part: `naive`, `cached`, `4-bit`.
    pub variant: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The ids that were generated.
    pub tokens: Vec<u32>,
    /// The same as text.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Files → weights in memory.
    pub load_ms: Option<f64>,
    /// Prompt text → ids.
    pub tokenize_ms: Option<f64>,
    /// [`Timeline::ttft`].
    pub ttft_ms: Option<f64>,
    /// [`Timeline::tpot`].
    pub tpot_ms: Option<f64>,
    /// 95th percentile of [`Timeline::itl`].
    pub itl_p95_ms: Option<f64>,
    /// [`Timeline::prefill_tps`].
    pub prefill_tps: Option<f64>,
    /// [`Timeline::decode_tps`].
    pub decode_tps: Option<f64>,
    /// Most memory that MLX held at once.
    pub peak_bytes: Option<u64>,
    /// Weights as they lie in memory.
    pub weight_bytes: Option<u64>,
    /// Keys and values kept at the end; 0 without a cache.
    pub kv_bytes: Option<u64>,
    /// Positions that were computed although they had been computed before.
    pub positions_recomputed: Option<u64>,
    /// Bytes that a decode step must read: the weights, and the keys and values that it sees.
    #[serde(default)]
    pub step_bytes: Option<u64>,
    /// [`Machine::mbu`], a share between 0 and 1; more where caches hold the weights.
    #[serde(default)]
    pub mbu: Option<f64>,
}

impl Run {
    /// The times of a finished timeline; text, memory and the other times are added by the methods
    /// below.
    pub fn from_timeline(variant: &str, prompt_tokens: usize, timeline: &Timeline) -> Self {
        let itl: Vec<f64> = timeline.itl().into_iter().map(ms).collect();
        Self {
            variant: variant.to_owned(),
            prompt_tokens,
            tokens: Vec::new(),
            text: String::new(),
            finish_reason: FinishReason::Length,
            load_ms: None,
            tokenize_ms: None,
            ttft_ms: timeline.ttft().map(ms),
            tpot_ms: timeline.tpot().map(ms),
            itl_p95_ms: percentile(&itl, 95.0),
            prefill_tps: timeline.prefill_tps(prompt_tokens),
            decode_tps: timeline.decode_tps(),
            peak_bytes: None,
            weight_bytes: None,
            kv_bytes: None,
            positions_recomputed: None,
            step_bytes: None,
            mbu: None,
        }
    }

    /// What was generated, and why it ended.
    pub fn output(mut self, tokens: Vec<u32>, text: String, finish_reason: FinishReason) -> Self {
        self.tokens = tokens;
        self.text = text;
        self.finish_reason = finish_reason;
        self
    }

    /// All that a finished generation says of itself, and its text.
    pub fn from_generation(
        variant: &str,
        prompt_tokens: usize,
        generation: &Generation,
        text: String,
    ) -> Self {
        let Generation {
            tokens,
            finish_reason,
            timeline,
            positions_recomputed,
        } = generation;
        Self::from_timeline(variant, prompt_tokens, timeline)
            .output(tokens.clone(), text, *finish_reason)
            .positions_recomputed(positions_recomputed.iter().sum())
    }

    /// What was done with the prompt before the timeline began is part of the time to first token.
    pub fn begun_before(mut self, time: Duration) -> Self {
        self.ttft_ms = self.ttft_ms.map(|ttft| ttft + ms(time));
        self.prefill_tps = self
            .ttft_ms
            .map(|ttft| 1e3 * self.prompt_tokens as f64 / ttft);
        self
    }

    /// How long the weights took to load.
    pub fn load(mut self, time: Duration) -> Self {
        self.load_ms = Some(ms(time));
        self
    }

    /// How long the prompt took to become ids.
    pub fn tokenize(mut self, time: Duration) -> Self {
        self.tokenize_ms = Some(ms(time));
        self
    }

    /// Peak memory of MLX, in bytes.
    pub fn peak_bytes(mut self, bytes: u64) -> Self {
        self.peak_bytes = Some(bytes);
        self
    }

    /// Weights in memory, in bytes.
    pub fn weight_bytes(mut self, bytes: u64) -> Self {
        self.weight_bytes = Some(bytes);
        self
    }

    /// Keys and values kept, in bytes.
    pub fn kv_bytes(mut self, bytes: u64) -> Self {
        self.kv_bytes = Some(bytes);
        self
    }

    /// What a decode step must read, in bytes, and so which share of the machine's bandwidth was reached.
    pub fn step_bytes(mut self, bytes: u64, machine: &Machine) -> Self {
        self.step_bytes = Some(bytes);
        self.mbu = self.decode_tps.and_then(|tps| machine.mbu(bytes, tps));
        self
    }

    /// [`first_difference`] of the tokens.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        first_difference(&self.tokens, &other.tokens)
    }

    /// Positions computed again, over the whole run.
    pub fn positions_recomputed(mut self, positions: u64) -> Self {
        self.positions_recomputed = Some(positions);
        self
    }
}

/// Where the first token is that differs, counted from 0; an answer that ends early differs there.
pub fn first_difference(tokens: &[u32], others: &[u32]) -> Option<usize> {
    let mut pairs = tokens.iter().zip(others);
    let shorter = tokens.len().min(others.len());
    let unequal = tokens.len() != others.len();
    let at = pairs.position(|(one, other)| one != other);
    at.or(unequal.then_some(shorter))
}

/// Answers to one prompt that were made at the same time: an entry of `"runs"` with the medians of all rows under the
/// keys of [`Run`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Together {
    /// Tokens and text of the first row; times and rates are those of one row, memory is that of all.
    #[serde(flatten)]
    pub run: Run,
    /// How many answers.
    pub rows: usize,
    /// Tokens of all rows per second, from the ids handed over to the last token.
    pub throughput_tps: Option<f64>,
    /// The ids of each row.
    pub row_tokens: Vec<Vec<u32>>,
}

impl Together {
    /// Sums up the rows, which took `time` all in all; None if there are none.
    pub fn of(rows: &[Run], time: Duration) -> Option<Self> {
        let tokens = rows.iter().map(|run| run.tokens.len()).sum();
        Some(Self {
            run: Rounds::of(rows)?.run,
            rows: rows.len(),
            throughput_tps: rate(tokens, time),
            row_tokens: rows.iter().map(|run| run.tokens.clone()).collect(),
        })
    }

    /// The first row whose tokens are not those of row 0, and where.
    pub fn odd_row(&self) -> Option<(usize, usize)> {
        let others = self.row_tokens.iter().enumerate();
        let differs = |(row, tokens): (usize, &Vec<u32>)| {
            first_difference(&self.run.tokens, tokens).map(|at| (row, at))
        };
        others.filter_map(differs).next()
    }
}

/// Several rounds of one variant: an entry of `"runs"` with medians under the keys of [`Run`], and
/// their number and spread beside them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rounds {
    /// Tokens and text of the first round; every time and rate is the median of all rounds.
    #[serde(flatten)]
    pub run: Run,
    /// How many rounds.
    pub n: usize,
    /// Half the distance between the quartiles of [`Run::load_ms`].
    pub load_ms_half_iqr: Option<f64>,
    /// The same of [`Run::ttft_ms`].
    pub ttft_ms_half_iqr: Option<f64>,
    /// The same of [`Run::tpot_ms`].
    pub tpot_ms_half_iqr: Option<f64>,
    /// The same of [`Run::prefill_tps`].
    pub prefill_tps_half_iqr: Option<f64>,
    /// The same of [`Run::decode_tps`].
    pub decode_tps_half_iqr: Option<f64>,
}

impl Rounds {
    /// Sums up `rounds` of one variant; None if there are none.
    ///
    /// A number that any round lacks is None: a median over some rounds would hide that.
    pub fn of(rounds: &[Run]) -> Option<Self> {
        let mut run = rounds.first()?.clone();
        let load = over(rounds, |run| run.load_ms);
        let ttft = over(rounds, |run| run.ttft_ms);
        let tpot = over(rounds, |run| run.tpot_ms);
        let prefill = over(rounds, |run| run.prefill_tps);
        let decode = over(rounds, |run| run.decode_tps);
        let (median, spread) = (|s: Summary| s.median, |s: Summary| s.half_iqr);
        run.load_ms = load.map(median);
        run.tokenize_ms = over(rounds, |run| run.tokenize_ms).map(median);
        run.ttft_ms = ttft.map(median);
        run.tpot_ms = tpot.map(median);
        run.itl_p95_ms = over(rounds, |run| run.itl_p95_ms).map(median);
        run.prefill_tps = prefill.map(median);
        run.decode_tps = decode.map(median);
        run.mbu = over(rounds, |run| run.mbu).map(median);
        run.peak_bytes = rounds.iter().map(|run| run.peak_bytes).max().flatten();
        Some(Self {
            run,
            n: rounds.len(),
            load_ms_half_iqr: load.map(spread),
            ttft_ms_half_iqr: ttft.map(spread),
            tpot_ms_half_iqr: tpot.map(spread),
            prefill_tps_half_iqr: prefill.map(spread),
            decode_tps_half_iqr: decode.map(spread),
        })
    }
}

/// The summary of one number of all rounds.
fn over(rounds: &[Run], number: impl Fn(&Run) -> Option<f64>) -> Option<Summary> {
    let values: Option<Vec<f64>> = rounds.iter().map(number).collect();
    Summary::of(&values?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A timeline whose tokens came `at` milliseconds after its start.
    fn timeline(at: &[u64]) -> Timeline {
        let start = Instant::now();
        let token = |&ms| start + Duration::from_millis(ms);
        Timeline::from_instants(start, at.iter().map(token).collect())
    }

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_token_belongs_to_prefill_and_the_others_to_decode() {
        let t = timeline(&[200, 210, 230, 260]);
        assert_eq!(t.ttft(), Some(millis(200)));
        assert_eq!(t.itl(), [millis(10), millis(20), millis(30)]);
        assert_eq!(t.tpot(), Some(millis(20)));
        assert_eq!(t.prefill_tps(50), Some(250.0));
        assert_eq!(t.decode_tps(), Some(50.0));
        assert_eq!(t.token_ms(), [200.0, 10.0, 20.0, 30.0]);
    }

    #[test]
    fn one_token_has_a_first_token_time_and_no_decode_rate() {
        let t = timeline(&[125]);
        assert_eq!(t.ttft(), Some(millis(125)));
        assert!(t.itl().is_empty());
        assert_eq!((t.tpot(), t.decode_tps()), (None, None));
        assert_eq!(t.prefill_tps(10), Some(80.0));
        let run = Run::from_timeline("naive", 10, &t);
        assert_eq!(
            (run.tpot_ms, run.itl_p95_ms, run.decode_tps),
            (None, None, None)
        );
    }

    #[test]
    fn two_tokens_have_one_gap_that_is_mean_and_percentile_at_once() {
        let t = timeline(&[100, 140]);
        assert_eq!(t.itl(), [millis(40)]);
        assert_eq!((t.tpot(), t.decode_tps()), (Some(millis(40)), Some(25.0)));
        let run = Run::from_timeline("naive", 7, &t);
        assert_eq!((run.tpot_ms, run.itl_p95_ms), (Some(40.0), Some(40.0)));
    }

    #[test]
    fn no_token_gives_no_number_at_all() {
        let t = timeline(&[]);
        assert!(t.is_empty() && t.itl().is_empty() && t.token_ms().is_empty());
        assert_eq!((t.ttft(), t.tpot()), (None, None));
        assert_eq!((t.prefill_tps(5), t.decode_tps()), (None, None));
    }

    #[test]
    fn a_rate_over_no_time_is_undefined_rather_than_infinite() {
        let t = timeline(&[0, 0]);
        assert_eq!((t.prefill_tps(5), t.decode_tps()), (None, None));
        assert_eq!(timeline(&[5, 9]).prefill_tps(0), None);
    }

    #[test]
    fn marks_come_in_order_and_are_counted() {
        let mut t = Timeline::start();
        (0..3).for_each(|_| t.mark());
        assert_eq!((t.len(), t.itl().len(), t.token_ms().len()), (3, 2, 3));
    }

    #[test]
    fn the_recorder_counts_the_positions_that_were_computed_before() {
        let mut recorder = Recorder::start();
        for (id, positions) in [(7, 5), (8, 6), (9, 7)] {
            recorder.token(id, positions);
        }
        let generation = recorder.finish(FinishReason::Length);
        assert_eq!(generation.tokens, [7, 8, 9]);
        assert_eq!(generation.positions_recomputed, [0, 5, 6]);
        assert_eq!(generation.timeline.len(), 3);
        let run = Run::from_generation("naive", 5, &generation, "abc".into());
        assert_eq!(run.positions_recomputed, Some(11));
        assert_eq!((run.tokens.len(), run.text.as_str()), (3, "abc"));
    }

    #[test]
    fn percentiles_interpolate_between_neighbours() {
        let values = [40.0, 10.0, 30.0, 20.0];
        assert_eq!(percentile(&values, 0.0), Some(10.0));
        assert_eq!(median(&values), Some(25.0));
        assert_eq!(percentile(&values, 75.0), Some(32.5));
        assert_eq!(percentile(&values, 100.0), Some(40.0));
        assert_eq!(percentile(&[7.0], 95.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(percentile(&[1.0, f64::NAN], 50.0), None);
    }

    #[test]
    fn a_line_is_fitted_with_what_it_leaves_over() {
        let line = Line::fit(&[3.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((line.intercept, line.slope, line.residual), (3.0, 2.0, 0.0));
        let bent = Line::fit(&[0.0, 3.0, 0.0]).unwrap();
        assert_eq!((bent.intercept, bent.slope), (1.0, 0.0));
        assert!((bent.residual - 2.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(Line::fit(&[1.0, 2.0]), None);
        assert_eq!(Line::fit(&[1.0, 2.0, f64::NAN]), None);
    }

    #[test]
    fn a_summary_gives_median_and_half_the_distance_of_the_quartiles() {
        let mut values: Vec<f64> = (0..=20).map(f64::from).collect();
        values[20] = 1000.0;
        values.reverse();
        let summary = Summary::of(&values).unwrap();
        let expected = Summary {
            median: 10.0,
            half_iqr: 5.0,
            min: 0.0,
            max: 1000.0,
        };
        assert_eq!(summary, expected);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(
            Summary::of(&[1_000.0, 1_200.0, 2_000.0]).unwrap().text(1),
            "1,200.0 ± 250.0"
        );
        assert_eq!(Summary::of(&[2.0]).unwrap().text(2), "2.00");
    }

    #[test]
    fn a_run_has_exactly_the_keys_of_the_json_line() {
        let machine = Machine {
            name: "chip".into(),
            device: "cpu".into(),
            backend: "cpu".into(),
            ram_bytes: 1,
            os: "Linux".into(),
            cores: 2,
            bandwidth_bytes_per_s: Some(250_000.0 / 0.03),
            bandwidth_is_measured: true,
            products: String::new(),
        };
        let run = Run::from_timeline("naive", 50, &timeline(&[200, 210, 230]))
            .output(vec![1, 2, 3], "abc".into(), FinishReason::Stop)
            .load(millis(1500))
            .tokenize(millis(2))
            .peak_bytes(3_000)
            .weight_bytes(2_000)
            .kv_bytes(0)
            .positions_recomputed(101)
            .step_bytes(2_500, &machine);
        let expected = json!({
            "variant": "naive", "prompt_tokens": 50, "tokens": [1, 2, 3], "text": "abc",
            "finish_reason": "stop", "load_ms": 1500.0, "tokenize_ms": 2.0, "ttft_ms": 200.0,
            "tpot_ms": 15.0, "itl_p95_ms": 19.5, "prefill_tps": 250.0,
            "decode_tps": 2.0 / 0.03, "peak_bytes": 3000, "weight_bytes": 2000, "kv_bytes": 0,
            "positions_recomputed": 101, "step_bytes": 2500, "mbu": 0.02,
        });
        assert_eq!(serde_json::to_value(&run).unwrap(), expected);
    }

    #[test]
    fn what_was_not_measured_is_null_in_the_json() {
        let run = Run::from_timeline("naive", 3, &timeline(&[5])).output(
            vec![9],
            "x".into(),
            FinishReason::Interrupted,
        );
        let json = serde_json::to_value(&run).unwrap();
        assert_eq!(json["tpot_ms"], serde_json::Value::Null);
        assert_eq!(json["peak_bytes"], serde_json::Value::Null);
        assert_eq!(json["finish_reason"], "interrupted");
        assert_eq!(json["finish_reason"], FinishReason::Interrupted.to_string());
    }

    #[test]
    fn several_rounds_give_medians_under_the_same_keys_and_their_spread_beside_them() {
        let round = |first, second| Run::from_timeline("naive", 10, &timeline(&[first, second]));
        let rounds = [round(100, 120), round(300, 310), round(200, 240)];
        let json = serde_json::to_value(Rounds::of(&rounds).unwrap()).unwrap();
        assert_eq!((&json["n"], &json["variant"]), (&json!(3), &json!("naive")));
        assert_eq!(
            (&json["ttft_ms"], &json["ttft_ms_half_iqr"]),
            (&json!(200.0), &json!(50.0))
        );
        assert_eq!(
            (&json["tpot_ms"], &json["tpot_ms_half_iqr"]),
            (&json!(20.0), &json!(7.5))
        );
        assert_eq!(
            (&json["decode_tps"], &json["prefill_tps"]),
            (&json!(50.0), &json!(50.0))
        );
        assert_eq!(Rounds::of(&[]), None);
    }

    #[test]
    fn rows_give_the_medians_of_one_and_the_throughput_of_all() {
        let row = |first, second, tokens| {
            Run::from_timeline("2 rows", 10, &timeline(&[first, second])).output(
                tokens,
                "x".into(),
                FinishReason::Length,
            )
        };
        let rows = [row(100, 120, vec![1, 2]), row(100, 140, vec![1, 3])];
        let together = Together::of(&rows, millis(200)).unwrap();
        assert_eq!((together.rows, together.run.tpot_ms), (2, Some(30.0)));
        assert_eq!(together.throughput_tps, Some(20.0));
        assert_eq!(together.odd_row(), Some((1, 1)));
        let json = serde_json::to_value(&together).unwrap();
        assert_eq!(json["row_tokens"], json!([[1, 2], [1, 3]]));
        assert_eq!(json["tokens"], json!([1, 2]));
        assert_eq!(Together::of(&rows[..1], millis(0)).unwrap().odd_row(), None);
        assert_eq!(Together::of(&[], millis(200)), None);
    }

    #[test]
    fn a_number_that_one_round_lacks_has_no_median() {
        let rounds = [&[100, 120][..], &[100]].map(|at| Run::from_timeline("x", 1, &timeline(at)));
        let rounds = Rounds::of(&rounds).unwrap();
        assert_eq!((rounds.run.tpot_ms, rounds.tpot_ms_half_iqr), (None, None));
        assert_eq!(rounds.run.ttft_ms, Some(100.0));
    }
}
