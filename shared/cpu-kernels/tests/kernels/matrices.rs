//! Matrices of every kind that the crate multiplies with.

use std::ops::Range;

use cpu_kernels::{Float, Floats, Matrix, Packed, SmallFloats};
use half::{bf16, f16};

use crate::chance::Chance;
use crate::packing::pack;

/// Numbers of one type.
pub(crate) enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

impl Stored {
    pub(crate) fn new(values: &[f32], float: Float) -> Self {
        let values = values.iter().copied();
        match float {
            Float::F32 => Self::F32(values.collect()),
            Float::Bf16 => Self::Bf16(values.map(bf16::from_f32).collect()),
            Float::F16 => Self::F16(values.map(f16::from_f32).collect()),
        }
    }

    pub(crate) fn view(&self, range: Range<usize>) -> Floats<'_> {
        match self {
            Self::F32(numbers) => Floats::F32(&numbers[range]),
            Self::Bf16(numbers) => Floats::Bf16(&numbers[range]),
            Self::F16(numbers) => Floats::F16(&numbers[range]),
        }
    }

    /// By the crate `half`.
    pub(crate) fn at(&self, index: usize) -> f32 {
        match self {
            Self::F32(numbers) => numbers[index],
            Self::Bf16(numbers) => numbers[index].to_f32(),
            Self::F16(numbers) => numbers[index].to_f32(),
        }
    }
}

pub(crate) const FLOATS: [Float; 3] = [Float::F32, Float::Bf16, Float::F16];

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Dense(Float),
    Packed {
        bits: usize,
        group_size: usize,
        float: Float,
    },
    SmallFloats {
        group_size: usize,
    },
}

impl Kind {
    /// All that there are loops for.
    pub(crate) fn all() -> Vec<Self> {
        let small = [16, 32].map(|group_size| Self::SmallFloats { group_size });
        let dense = FLOATS.map(Self::Dense).into_iter();
        dense.chain(Self::packed()).chain(small).collect()
    }

    pub(crate) fn packed() -> Vec<Self> {
        let mut all = Vec::new();
        for bits in [2, 3, 4, 5, 6, 8] {
            for group_size in [32, 64, 128] {
                all.extend(FLOATS.map(|float| Self::Packed {
                    bits,
                    group_size,
                    float,
                }));
            }
        }
        all
    }

    /// Columns that a matrix of this kind can have: `n`, or up to seven groups.
    pub(crate) fn columns(self, n: usize) -> usize {
        match self {
            Self::Dense(_) => n,
            Self::Packed { group_size, .. } | Self::SmallFloats { group_size } => {
                group_size * (1 + n % 7)
            }
        }
    }
}

fn codes(chance: &mut Chance, count: usize, bits: usize) -> Vec<u32> {
    let mut code = || (chance.bits() >> 32) as u32 & ((1 << bits) - 1);
    (0..count).map(|_| code()).collect()
}

/// A matrix `[N, K]`, and what it was made of.
pub(crate) struct Example {
    weight: Weight,
    columns: usize,
    /// Each number as a sum of two.
    parts: Vec<[f64; 2]>,
}

enum Weight {
    Dense(Stored),
    Packed(Codes),
    SmallFloats {
        codes: Vec<u32>,
        words: Vec<u32>,
        scales: Vec<u8>,
        half_scales: Box<[f32; 256]>,
        group_size: usize,
    },
}

/// Each code of four bits, doubled: E2M1 as the specification of MX lists it.
const DOUBLED: [f64; 16] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, -0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
];

struct Codes {
    /// One by one.
    codes: Vec<u32>,
    words: Vec<u32>,
    scales: Stored,
    biases: Stored,
    bits: usize,
    group_size: usize,
}

impl Example {
    /// The numbers that are drawn: `draw` is given how many.
    pub(crate) fn new(
        kind: Kind,
        rows: usize,
        columns: usize,
        chance: &mut Chance,
        draw: fn(&mut Chance, usize) -> Vec<f32>,
    ) -> Self {
        let weight = match kind {
            Kind::Dense(float) => Weight::Dense(Stored::new(&draw(chance, rows * columns), float)),
            Kind::Packed {
                bits,
                group_size,
                float,
            } => {
                let codes = codes(chance, rows * columns, bits);
                let groups = rows * columns / group_size;
                Weight::Packed(Codes {
                    words: pack(&codes, columns, bits),
                    codes,
                    scales: Stored::new(&draw(chance, groups), float),
                    biases: Stored::new(&draw(chance, groups), float),
                    bits,
                    group_size,
                })
            }
            Kind::SmallFloats { group_size } => {
                let codes = codes(chance, rows * columns, 4);
                let bytes = self::codes(chance, rows * columns / group_size, 8);
                Weight::SmallFloats {
                    words: pack(&codes, columns, 4),
                    codes,
                    scales: bytes.into_iter().map(|byte| byte as u8).collect(),
                    half_scales: draw(chance, 256).try_into().expect("256 numbers"),
                    group_size,
                }
            }
        };
        Self {
            parts: (0..rows * columns).map(|at| weight.parts(at)).collect(),
            weight,
            columns,
        }
    }

    /// Some rows of it.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Matrix<'_> {
        let columns = self.columns;
        let part = |width: usize| rows.start * width..rows.end * width;
        match &self.weight {
            Weight::Dense(weight) => Matrix::Dense {
                weight: weight.view(part(columns)),
                columns,
            },
            Weight::Packed(packed) => Matrix::Packed(Packed {
                codes: &packed.words[part(columns * packed.bits / 32)],
                scales: packed.scales.view(part(columns / packed.group_size)),
                biases: packed.biases.view(part(columns / packed.group_size)),
                bits: packed.bits,
                group_size: packed.group_size,
                columns,
            }),
            Weight::SmallFloats {
                words,
                scales,
                half_scales,
                group_size,
                ..
            } => Matrix::SmallFloats(SmallFloats {
                codes: &words[part(columns / 8)],
                scales: &scales[part(columns / group_size)],
                half_scales,
                group_size: *group_size,
                columns,
            }),
        }
    }

    /// `Σ w · x` of a row in f64, and the size of the terms that are added up for it.
    pub(crate) fn dot(&self, row: usize, x: &[f32]) -> (f64, f64) {
        let parts = self.parts[row * self.columns..].iter().zip(x);
        parts.fold((0.0, 0.0), |(sum, size), ([scaled, bias], x)| {
            let (a, b) = (scaled * f64::from(*x), bias * f64::from(*x));
            (sum + a + b, size + a.abs() + b.abs())
        })
    }
}

impl Weight {
    /// A number as a sum of two, in f64: `scale · code` and the bias.
    fn parts(&self, at: usize) -> [f64; 2] {
        match self {
            Self::Dense(weight) => [f64::from(weight.at(at)), 0.0],
            Self::Packed(packed) => {
                let group = at / packed.group_size;
                let scale = f64::from(packed.scales.at(group));
                let bias = f64::from(packed.biases.at(group));
                [scale * f64::from(packed.codes[at]), bias]
            }
            Self::SmallFloats {
                codes,
                scales,
                half_scales,
                group_size,
                ..
            } => {
                let scale = half_scales[usize::from(scales[at / group_size])];
                [f64::from(scale) * DOUBLED[codes[at] as usize], 0.0]
            }
        }
    }
}
