//! The two roofs of a machine, and where batches and pieces of prompts lie under them.
//!
//! A run of the model needs operations and bytes, and both take time. What it reaches can be no more than the bytes
//! per second times its operations per byte, and no more than the operations per second (Williams, Waterman and
//! Patterson 2009).

use std::time::Instant;

use anyhow::{Context, Result};
use console::machine::Machine;
use mlx_rs::{Dtype, random};
use shared::checkpoint::Checkpoint;

use crate::tour::{Point, Prompt, SWEEP};

/// What a run of the model needs and what it reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Dot {
    /// Its rows or its tokens.
    pub label: String,
    /// Operations per byte.
    pub intensity: f64,
    /// Operations per second.
    pub flops: f64,
}

/// A machine and what a model does on it.
#[derive(Debug, Clone)]
pub struct Roofline {
    /// Steps in which so many rows decode.
    pub rows: Vec<Dot>,
    /// Pieces of so many tokens of a prompt.
    pub pieces: Vec<Dot>,
    /// Bytes per second; None where that is unknown.
    pub bandwidth: Option<f64>,
    /// Operations per second of a large product.
    pub flops: f64,
}

impl Roofline {
    /// Of what was measured; the roof of the arithmetic is measured now.
    ///
    /// # Errors
    /// If a product fails.
    pub fn measure(
        machine: &Machine,
        checkpoint: &Checkpoint,
        points: &[Point],
        prompts: &[Prompt],
    ) -> Result<Self> {
        Ok(Self {
            rows: points.iter().map(|p| decode(checkpoint, p)).collect(),
            pieces: prompts.iter().map(|p| prefill(checkpoint, p)).collect(),
            bandwidth: machine.bandwidth_bytes_per_s,
            flops: arithmetic(machine)?,
        })
    }
}

/// A step of rows that decode: two operations for each weight and row. Attention's own products are left out.
pub fn decode(checkpoint: &Checkpoint, point: &Point) -> Dot {
    let (prompt, answer) = SWEEP;
    let rows = point.rows as u64;
    let (layers, head) = weights(checkpoint);
    let kv = rows * kv_bytes(checkpoint) * (prompt + answer / 2) as u64;
    dot(
        point.rows,
        2.0 * (rows * (layers + head)) as f64,
        checkpoint.read_bytes() + kv,
        point.step,
    )
}

/// A piece of a prompt from its first token on. Only its last token goes through the head.
fn prefill(checkpoint: &Checkpoint, prompt: &Prompt) -> Dot {
    let tokens = prompt.tokens as u64;
    let (layers, head) = weights(checkpoint);
    dot(
        prompt.tokens,
        2.0 * (tokens * layers + head) as f64,
        checkpoint.read_bytes() + tokens * kv_bytes(checkpoint),
        prompt.seconds,
    )
}

fn dot(label: usize, operations: f64, bytes: u64, seconds: f64) -> Dot {
    Dot {
        label: label.to_string(),
        intensity: operations / bytes as f64,
        flops: operations / seconds,
    }
}

/// Weights that multiply each token, and those of the head. Rows of an embedding are only looked up.
fn weights(checkpoint: &Checkpoint) -> (u64, u64) {
    let config = &checkpoint.config;
    let head = (config.vocab_size * config.hidden_size) as u64;
    let tables = if checkpoint.tied() { head } else { 2 * head };
    (checkpoint.parameters().saturating_sub(tables), head)
}

fn kv_bytes(checkpoint: &Checkpoint) -> u64 {
    let config = &checkpoint.config;
    config.kv_bytes_per_token(checkpoint.activation_bytes())
}

/// How often a large product is measured: the best one counts, since other programs only make it slower.
const TRIES: usize = 5;

/// Operations per second of a square product, in the numbers that the device multiplies fastest.
fn arithmetic(machine: &Machine) -> Result<f64> {
    let (n, dtype) = if machine.device == "cpu" {
        (1024, Dtype::Float32)
    } else {
        (4096, Dtype::Bfloat16)
    };
    let matrix = || random::uniform::<_, f32>(-1.0, 1.0, &[n, n], None)?.as_dtype(dtype);
    let (a, b) = (matrix()?, matrix()?);
    let mut best = f64::INFINITY;
    for _ in 0..TRIES + 1 {
        let start = Instant::now();
        a.matmul(&b)?.eval().context("measuring the arithmetic")?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * f64::from(n).powi(3) / best)
}
