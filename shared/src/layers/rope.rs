//! Rotary position embedding, and the wavelengths of its pairs.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, fast};

use super::{Offsets, exactly};
use crate::config::{ModelConfig, RopeConfig, RopeScaling};
use crate::ffi;
use crate::kernels::cpu;
use crate::machine::on_gpu;

/// Rotary position embedding: each pair of a head's dimensions is rotated by `position · θᵢ`.
///
/// Su et al. 2021 (arXiv 2104.09864); scaling: linear (arXiv 2306.15595), YaRN (arXiv 2309.00071),
/// `llama3` (the Llama 3.1 release).
#[derive(Debug)]
pub struct Rope {
    angles: Angles,
    /// `angles.wavelengths` as MLX takes them.
    wavelengths: Option<Array>,
    /// Radians from one position to the next, one per pair.
    frequencies: Vec<f32>,
    /// YaRN makes queries and keys a little longer, which sharpens the attention.
    magnitude: f32,
    /// Whether x is copied first: MLX's CUDA kernel reads a view of several positions or rows wrongly that was
    /// cut out of a joined product. With rows it also reads beyond its end.
    copies: bool,
}

/// What the angles depend on, beside the position.
#[derive(Debug, Clone, PartialEq)]
struct Angles {
    dims: i32,
    /// Pairs are neighbours, not half a head apart.
    traditional: bool,
    base: Option<f32>,
    scale: f32,
    /// One per pair (positions per radian) where scaling changes each by its own factor.
    wavelengths: Option<Vec<f32>>,
}

impl Angles {
    fn of(config: &ModelConfig) -> Self {
        let RopeConfig {
            theta,
            traditional,
            scaling,
        } = &config.rope;
        let dims = config.head_dim;
        let (base, scale, wavelengths) = match scaling {
            RopeScaling::None => (Some(*theta), 1.0, None),
            RopeScaling::Linear { factor } => (Some(*theta), 1.0 / factor, None),
            scaling => (
                None,
                1.0,
                Some(wavelengths(dims, f64::from(*theta), scaling)),
            ),
        };
        Self {
            dims: dims as i32,
            traditional: *traditional,
            base,
            scale,
            wavelengths,
        }
    }

    /// `scale · base^(−2i/D)`, or one over the wavelengths.
    fn frequencies(&self) -> Vec<f32> {
        if let Some(wavelengths) = &self.wavelengths {
            return wavelengths
                .iter()
                .map(|wavelength| self.scale / wavelength)
                .collect();
        }
        let (pairs, base) = (self.dims / 2, f64::from(self.base.unwrap_or(1.0)));
        let plain = |pair| base.powf(-2.0 * f64::from(pair) / f64::from(self.dims));
        let scaled = |pair| (f64::from(self.scale) * plain(pair)) as f32;
        (0..pairs).map(scaled).collect()
    }
}

thread_local! {
    /// The last offset as an array: all layers of a step share it, and a GPU gets it once.
    static LAST_OFFSET: RefCell<Option<(i32, Array)>> = const { RefCell::new(None) };
}

impl Rope {
    /// The rotation that `config` asks for, over heads of width `config.head_dim`.
    pub fn new(config: &ModelConfig) -> Self {
        Self {
            copies: on_gpu() && ffi::cuda_is_available(),
            ..Self::by(Angles::of(config), yarn_magnitude(&config.rope.scaling))
        }
    }

    fn by(angles: Angles, magnitude: f32) -> Self {
        let array = |table: &Vec<f32>| Array::from_slice(table, &[angles.dims / 2]);
        Self {
            wavelengths: angles.wavelengths.as_ref().map(array),
            frequencies: angles.frequencies(),
            angles,
            magnitude,
            copies: false,
        }
    }

    /// Each x `[B, H, L, D]`, whose first position is that of `offsets` → the same shape, rotated.
    ///
    /// # Cost
    /// One operation each on a GPU. On the CPU MLX makes some twenty of it; there cosines and sines are
    /// found on the host, once for all layers.
    ///
    /// # Errors
    /// If the last axis of an x is narrower than the rotation.
    pub fn forward<const N: usize>(
        &self,
        xs: [&Array; N],
        offsets: &Offsets,
    ) -> Result<[Array; N]> {
        let rotated = xs.iter().map(|x| match offsets {
            offsets if !cpu::is_on() => self.rotate(&self.prepare(x)?, offsets),
            Offsets::All(first) => self.rotate_on_host(x, &[*first]),
            Offsets::Rows(firsts) => self.rotate_on_host(x, firsts.try_as_slice()?),
        });
        exactly(rotated.collect::<Result<_>>()?)
    }

    /// The same numbers, found on the host.
    fn rotate_on_host(&self, x: &Array, firsts: &[i32]) -> Result<Array> {
        let (width, dims) = (x.dim(3), self.angles.dims);
        ensure!(
            width >= dims,
            "heads of {width} are narrower than the rotation of {dims}"
        );
        let turns = cpu::turns(&self.frequencies, self.magnitude, firsts, x.dim(2) as usize);
        let rotated = cpu::rotate(x, &turns, self.angles.traditional)?;
        rotated.with_context(|| format!("heads of {:?} cannot be rotated", x.dtype()))
    }

    /// x as MLX may rotate it.
    fn prepare(&self, x: &Array) -> Result<Array> {
        let mut x = x.clone();
        if self.magnitude != 1.0 {
            x = x.multiply(Array::from_f32(self.magnitude).as_dtype(x.dtype())?)?;
        }
        if self.copies && (x.dim(2) > 1 || x.dim(0) > 1) {
            x = x.contiguous()?;
        }
        Ok(x)
    }

    /// MLX's own operation.
    fn rotate(&self, x: &Array, offsets: &Offsets) -> Result<Array> {
        let Angles {
            dims,
            traditional,
            base,
            scale,
            ..
        } = self.angles;
        let freqs = self.wavelengths.as_ref();
        Ok(match offsets {
            Offsets::All(offset) => {
                let offset = offset_array(*offset);
                fast::rope_dynamic(x, dims, traditional, base, scale, &offset, freqs)?
            }
            Offsets::Rows(rows) => {
                fast::rope_dynamic(x, dims, traditional, base, scale, rows, freqs)?
            }
        })
    }
}

/// `offset` as MLX's operation takes it; with a number it would make such an array at each call.
fn offset_array(offset: i32) -> Array {
    LAST_OFFSET.with_borrow_mut(|last| {
        let (_, array) = match last.take() {
            Some((at, array)) if at == offset => last.insert((at, array)),
            _ => last.insert((offset, Array::from_int(offset))),
        };
        array.clone()
    })
}

/// How far each of the D/2 pairs turns from one position to the next, in radians: what [`Rope`] does,
/// as numbers.
pub fn rope_frequencies(config: &ModelConfig) -> Vec<f32> {
    Angles::of(config).frequencies()
}

/// The factor by which [`Rope`] makes queries and keys longer; 1 without YaRN.
pub fn rope_magnitude(config: &ModelConfig) -> f32 {
    yarn_magnitude(&config.rope.scaling)
}

/// The unscaled wavelength of pair `i`, in positions per radian, is `base^(2i/D)`; each scheme
/// stretches long ones and leaves short ones alone, with a ramp in between.
fn wavelengths(dims: usize, base: f64, scaling: &RopeScaling) -> Vec<f32> {
    (0..dims / 2)
        .map(|pair| {
            let plain = base.powf(2.0 * pair as f64 / dims as f64);
            (plain * stretch(pair, plain, dims, base, scaling)) as f32
        })
        .collect()
}

/// The factor by which the wavelength of one pair grows.
fn stretch(pair: usize, plain: f64, dims: usize, base: f64, scaling: &RopeScaling) -> f64 {
    match scaling {
        RopeScaling::None => 1.0,
        RopeScaling::Linear { factor } => f64::from(*factor),
        RopeScaling::Factors(factors) => factors.get(pair).map_or(1.0, |f| f64::from(*f)),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let turns = *original_max_position_embeddings as f64 / (std::f64::consts::TAU * plain);
            let (low, high) = (f64::from(*low_freq_factor), f64::from(*high_freq_factor));
            // Share of the plain frequency: 1 for fast pairs, 0 for those that turn seldom.
            let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            1.0 / ((1.0 - keep) / f64::from(*factor) + keep)
        }
        RopeScaling::Yarn { factor, .. } => {
            let keep = 1.0 - yarn_ramp(pair, dims, base, scaling);
            1.0 / ((1.0 - keep) / f64::from(*factor) + keep)
        }
    }
}

/// YaRN's ramp (§3.2 of the paper): 0 where a pair turns `beta_fast` times or more within the
/// original context, 1 where it turns `beta_slow` times or fewer.
fn yarn_ramp(pair: usize, dims: usize, base: f64, scaling: &RopeScaling) -> f64 {
    let RopeScaling::Yarn {
        original_max_position_embeddings,
        beta_fast,
        beta_slow,
        ..
    } = scaling
    else {
        return 0.0;
    };
    let pair_with_turns = |turns: f32| {
        let context = *original_max_position_embeddings as f64;
        let wavelength = context / (f64::from(turns) * std::f64::consts::TAU);
        dims as f64 * wavelength.ln() / (2.0 * base.ln())
    };
    let low = pair_with_turns(*beta_fast).floor().max(0.0);
    let high = pair_with_turns(*beta_slow).ceil().min(dims as f64 - 1.0);
    let width = if high == low { 0.001 } else { high - low };
    ((pair as f64 - low) / width).clamp(0.0, 1.0)
}

/// YaRN's length correction, `0.1 · mscale · ln(factor) + 1` (equation 22 of the paper); some
/// checkpoints divide by the same term of another `mscale`.
fn yarn_magnitude(scaling: &RopeScaling) -> f32 {
    let RopeScaling::Yarn {
        factor,
        mscale,
        mscale_all_dim,
        ..
    } = scaling
    else {
        return 1.0;
    };
    let term = |mscale: f32| {
        if *factor <= 1.0 {
            1.0
        } else {
            0.1 * mscale * factor.ln() + 1.0
        }
    };
    term(*mscale) / term(*mscale_all_dim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{split, to_f32};
    use mlx_rs::{Dtype, random};

    fn rope(base: Option<f32>, scale: f32, wavelengths: Option<Vec<f32>>) -> Rope {
        let angles = Angles {
            dims: 8,
            traditional: false,
            base,
            scale,
            wavelengths,
        };
        Rope::by(angles, 1.0)
    }

    #[test]
    fn positions_are_rotated_as_mlx_does() {
        let ropes = [
            rope(Some(10_000.0), 1.0, None),
            rope(Some(500_000.0), 0.25, None),
            rope(None, 1.0, Some(vec![1.0, 7.5, 80.0, 3000.0])),
            rope(None, 1.0, Some(vec![1.0, 7.5, 80.0, 9000.0])),
        ];
        let key = random::key(5).unwrap();
        for (l, dtype) in [1, 3]
            .into_iter()
            .flat_map(|l| [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16].map(|dtype| (l, dtype)))
        {
            let x = random::normal::<f32>(&[2, 3, l, 8], None, None, &key).unwrap();
            let x = x.as_dtype(dtype).unwrap();
            // Each offset twice and with every rotation in between: none may get another one's turns.
            for offset in [0, 1, 1, 2, 1000, 30_000, 1] {
                for rope in ropes.iter().chain(&ropes) {
                    let [turned] = rope.forward([&x], &Offsets::All(offset)).unwrap();
                    let by_mlx = rope.rotate(&x, &Offsets::All(offset)).unwrap();
                    assert_near(&turned, &by_mlx, offset);
                }
            }
        }
    }

    /// An angle has the digits of an f32: a large one is off by some units of its last digit.
    fn assert_near(a: &Array, b: &Array, offset: i32) {
        let rounding = match a.dtype() {
            Dtype::Bfloat16 => 1.0 / 64.0,
            Dtype::Float16 => 1.0 / 512.0,
            _ => 0.0,
        };
        let (a, b) = (to_f32(a).unwrap(), to_f32(b).unwrap());
        for (a, b) in a.iter().zip(&b) {
            let allowed = 1e-5 + rounding * (1.0 + b.abs()) + offset as f32 * 1e-6;
            assert!((a - b).abs() <= allowed, "at {offset}: {a} and {b}");
        }
    }

    #[test]
    fn a_width_that_is_not_the_rotations_is_an_error() {
        let narrow = Array::ones::<f32>(&[1, 1, 1, 6]).unwrap();
        let rope = rope(Some(10_000.0), 1.0, None);
        assert!(rope.forward([&narrow], &Offsets::All(0)).is_err());
    }

    #[test]
    fn arrays_that_are_rotated_together_are_rotated_as_each_alone() {
        let rope = rope(Some(10_000.0), 1.0, None);
        let key = random::key(4).unwrap();
        for l in [1, 5] {
            let q = random::normal::<f32>(&[2, 6, l, 8], None, None, &key).unwrap();
            let [k, _] = split(&q.square().unwrap(), &[2], 1).unwrap(); // [2, 2, L, 8]
            let both = rope.forward([&q, &k], &Offsets::All(7)).unwrap();
            for (together, x) in both.iter().zip([&q, &k]) {
                assert_eq!(together.shape(), x.shape());
                let [alone] = rope.forward([x], &Offsets::All(7)).unwrap();
                assert_eq!(to_f32(together).unwrap(), to_f32(&alone).unwrap());
            }
        }
    }

    #[test]
    fn rows_with_offsets_of_their_own_are_rotated_as_each_row_alone() {
        let ropes = [
            rope(Some(10_000.0), 1.0, None),
            rope(None, 1.0, Some(vec![1.0, 7.5, 80.0, 3000.0])),
        ];
        let key = random::key(6).unwrap();
        for (rope, l) in ropes.iter().flat_map(|rope| [1, 4].map(|l| (rope, l))) {
            let x = random::normal::<f32>(&[3, 3, l, 8], None, None, &key).unwrap();
            let firsts = [5, 90, 5];
            let offsets = Offsets::Rows(Array::from_slice(&firsts, &[3]));
            let [together] = rope.forward([&x], &offsets).unwrap();
            let by_mlx = rope.rotate(&x, &offsets).unwrap();
            assert_near(&together, &by_mlx, 90);
            let rows: [Array; 3] = split(&x, &[1, 2], 0).unwrap();
            let alone = rows.iter().zip(firsts).flat_map(|(row, first)| {
                let [row] = rope.forward([row], &Offsets::All(first)).unwrap();
                to_f32(&row).unwrap()
            });
            let together = to_f32(&together).unwrap();
            if cpu::is_on() {
                assert_eq!(together, alone.collect::<Vec<_>>());
            } else {
                assert!(
                    together
                        .iter()
                        .zip(alone)
                        .all(|(a, b)| (a - b).abs() < 1e-5)
                );
            }
        }
    }

    #[test]
    fn offsets_of_more_rows_than_there_are_is_an_error() {
        let x = Array::ones::<f32>(&[3, 1, 1, 8]).unwrap();
        let rope = rope(Some(10_000.0), 1.0, None);
        let offsets = Offsets::Rows(Array::from_slice(&[5_i32, 90], &[2]));
        assert!(rope.forward([&x], &offsets).is_err());
    }
}
