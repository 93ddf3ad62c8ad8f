//! Rows of 128 weights as MLX packs them, from `assets/fixtures/ops/groups.json`.

#![allow(dead_code)] // each test file uses its own part of this

use std::collections::BTreeMap;
use std::ops::Range;

use mlx_rs::{Array, Dtype};
use part4_quantization::microscope::specimen::{Specimen, Window, groups};
use serde::Deserialize;
use shared::config::GroupQuantization;
use shared::layers::to_f32;
use shared::testing::fixtures;

#[derive(Debug, Deserialize)]
pub(crate) struct Rows {
    pub(crate) rows: BTreeMap<String, Vec<f32>>,
    pub(crate) cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) row: String,
    pub(crate) dtype: String,
    pub(crate) group_size: usize,
    pub(crate) bits: usize,
    pub(crate) words: String,
    pub(crate) scales: Vec<f32>,
    pub(crate) biases: Vec<f32>,
    #[serde(default)]
    pub(crate) unpacked: Option<Vec<f32>>,
}

impl Rows {
    pub(crate) fn read() -> Self {
        fixtures::json("ops/groups.json").unwrap()
    }
}

pub(crate) fn as_dtype(values: &[f32], dtype: &str) -> Array {
    let dtype = match dtype {
        "f32" => Dtype::Float32,
        "f16" => Dtype::Float16,
        "bf16" => Dtype::Bfloat16,
        other => panic!("{other}"),
    };
    let row = Array::from_slice(values, &[values.len() as i32]);
    row.as_dtype(dtype).unwrap()
}

/// A specimen of a row that is no model's.
pub(crate) fn specimen_of(
    row: &Array,
    group: GroupQuantization,
    columns: Range<usize>,
) -> Specimen {
    let values = to_f32(row).unwrap();
    Specimen {
        model: "a test".to_owned(),
        module: "made.up".to_owned(),
        row: 0,
        columns: columns.clone(),
        dtype: "f32",
        bits: group.bits,
        group_size: group.group_size,
        groups: groups(row, group, columns).unwrap(),
        window: Window {
            start: 0,
            width: values.len(),
            values,
        },
        followed: None,
    }
}
