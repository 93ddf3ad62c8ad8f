//! Many durations of one kind, summed up.

use serde_json::{Map, Value, json};

use crate::metrics::percentile;
use crate::statistics::mean;

/// In milliseconds; None where there are no values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    /// How many values there are.
    pub n: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// The middle one.
    pub median: Option<f64>,
    /// Their deviation, with n as the divisor, as NumPy has it.
    pub std: Option<f64>,
    /// Nine in ten are below.
    pub p90: Option<f64>,
    /// 99 in 100 are below.
    pub p99: Option<f64>,
}

impl Latency {
    /// Sums up values in milliseconds.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let mean = (!values.is_empty()).then(|| mean(&values));
        let deviation = |mean: f64| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            (squares / values.len() as f64).sqrt()
        };
        Self {
            n: values.len(),
            mean,
            median: percentile(&values, 50.0),
            std: mean.map(deviation),
            p90: percentile(&values, 90.0),
            p99: percentile(&values, 99.0),
        }
    }

    /// Name and value of what is printed, in order.
    pub(super) fn statistics(&self) -> [(&'static str, Option<f64>); 4] {
        let Self {
            mean,
            median,
            p90,
            p99,
            ..
        } = *self;
        [
            ("Mean", mean),
            ("Median", median),
            ("P90", p90),
            ("P99", p99),
        ]
    }

    /// Adds its keys: `mean_ttft_ms` for `ttft`.
    pub(super) fn json(&self, key: &str, all: &mut Map<String, Value>) {
        let Self {
            mean,
            median,
            std,
            p90,
            p99,
            ..
        } = *self;
        let values = [
            ("mean", mean),
            ("median", median),
            ("std", std),
            ("p90", p90),
            ("p99", p99),
        ];
        for (statistic, value) in values {
            all.insert(format!("{statistic}_{key}_ms"), json!(value));
        }
    }
}
