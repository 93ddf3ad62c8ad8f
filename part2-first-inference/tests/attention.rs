//! The fused attention against the formula, in single steps.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use anyhow::Result;
use mlx_rs::{Array, ops, random};
use part2_first_inference::model::attention;
use shared::layers::{Mask, to_f32};

/// `softmax(q kᵀ / √D + mask) v`, as the paper writes it: every key/value head is repeated for the
/// query heads that share it, and the scores `[B, H, L, S]` exist.
fn written_out(q: &Array, k: &Array, v: &Array, window: i32) -> Result<Array> {
    let (shared_by, l, s) = (q.dim(1) / k.dim(1), q.dim(2), k.dim(2));
    let k = ops::repeat_axis::<f32>(k.clone(), shared_by, 1)?; // [B, H, S, D]
    let v = ops::repeat_axis::<f32>(v.clone(), shared_by, 1)?; // [B, H, S, D]
    let scores = ops::matmul(q, k.transpose_axes(&[0, 1, 3, 2])?)?; // [B, H, L, S]
    let scaled = scores.divide(Array::from_f32((q.dim(3) as f32).sqrt()))?;
    let mask: Vec<f32> = (s - l..s)
        .flat_map(|query| {
            (0..s).map(move |position| {
                let visible = position <= query && position > query - window;
                if visible { 0.0 } else { f32::NEG_INFINITY }
            })
        })
        .collect();
    let masked = scaled.add(Array::from_slice(&mask, &[l, s]))?;
    let weights = ops::softmax_axis(masked, -1, None)?; // rows sum to 1
    Ok(ops::matmul(weights, v)?)
}

fn random(shape: &[i32], seed: u64) -> Array {
    random::normal::<f32>(shape, None, None, &random::key(seed).unwrap()).unwrap()
}

fn compare(l: i32, s: i32, window: Option<i32>) {
    let (q, k, v) = (
        random(&[2, 6, l, 16], 1),
        random(&[2, 2, s, 16], 2),
        random(&[2, 2, s, 16], 3),
    );
    let mask = Mask::causal(l, s, window).unwrap();
    let fused = to_f32(&attention(&q, &k, &v, &mask).unwrap()).unwrap();
    let plain = to_f32(&written_out(&q, &k, &v, window.unwrap_or(i32::MAX / 2)).unwrap()).unwrap();
    for (a, b) in fused.iter().zip(&plain) {
        assert!(
            (a - b).abs() < 1e-5,
            "L {l}, S {s}, window {window:?}: {a} against {b}"
        );
    }
}

#[test]
fn fused_attention_equals_the_formula() {
    compare(9, 9, None);
    compare(3, 9, None);
    compare(1, 9, None);
}

#[test]
fn a_sliding_window_hides_what_is_too_far_away() {
    compare(9, 9, Some(4));
    compare(9, 9, Some(9));
    compare(9, 9, Some(100));
    compare(3, 9, Some(4));
    compare(1, 9, Some(4));
}
