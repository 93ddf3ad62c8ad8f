//! Eight numbers side by side, and what is done with them.

use std::fmt::Debug;

use crate::level::Kernel;

/// How many: what a register of 256 bits holds.
pub(crate) const LANES: usize = 8;

/// Twice as many: a register of 512 bits, or two.
pub(crate) const SIXTEEN: usize = 16;

/// 0, ½, 1, 1½, 2, 3, 4 and 6, doubled, as the digits of a number: a shift is cheaper than a table in memory.
const DOUBLED: u32 = 0xC864_3210;

/// The instructions of one [`Level`](crate::Level).
///
/// Written out for AVX2, because compilers find the vectors of such loops on some days only; elsewhere
/// they have to.
pub(crate) trait Vector: Copy + Send + Sync {
    /// Eight f32.
    type Floats: Copy + Debug;

    /// Sixteen f32.
    type Sixteen: Copy + Debug;

    fn floats(self, numbers: [f32; LANES]) -> Self::Floats;

    fn numbers(self, floats: Self::Floats) -> [f32; LANES];

    /// `a · b + c`
    fn multiply_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;

    fn sixteen(self, numbers: [f32; SIXTEEN]) -> Self::Sixteen;

    fn sixteen_numbers(self, floats: Self::Sixteen) -> [f32; SIXTEEN];

    /// `a · b + c`
    fn multiply_add_16(self, a: Self::Sixteen, b: Self::Sixteen, c: Self::Sixteen)
    -> Self::Sixteen;

    fn add_16(self, a: Self::Sixteen, b: Self::Sixteen) -> Self::Sixteen;

    /// Rows become columns.
    fn turn(self, rows: [Self::Floats; LANES]) -> [Self::Floats; LANES];

    /// `(word >> shift) & mask` as a number, for each lane.
    fn codes(self, words: [u32; LANES], shifts: [u32; LANES], mask: u32) -> Self::Floats;

    /// Twice the float of 4 bits (E2M1) that stands in each word from bit `shift` on: a sign above three bits, which
    /// are the numbers of [`DOUBLED`].
    #[inline(always)]
    fn small_floats(self, words: [u32; LANES], shift: u32) -> Self::Floats {
        let digits = std::array::from_fn(|lane| ((words[lane] >> shift) & 7) << 2);
        let sizes = self.numbers(self.codes([DOUBLED; LANES], digits, 15));
        self.floats(std::array::from_fn(|lane| {
            let sign = (words[lane] << (28 - shift)) & (1 << 31);
            f32::from_bits(sizes[lane].to_bits() | sign)
        }))
    }

    /// Runs a loop as a function of its own: inlined, its sums would compete with all others around it for
    /// registers, and lie in memory.
    fn apart<K: Kernel>(self, kernel: K) -> K::Output;

    #[inline(always)]
    fn zero(self) -> Self::Floats {
        self.splat(0.0)
    }

    #[inline(always)]
    fn splat(self, number: f32) -> Self::Floats {
        self.floats([number; LANES])
    }

    #[inline(always)]
    fn splat_16(self, number: f32) -> Self::Sixteen {
        self.sixteen([number; SIXTEEN])
    }

    /// Halves added to halves.
    #[inline(always)]
    fn sum(self, floats: Self::Floats) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.numbers(floats);
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// Arrays, for the compiler to make vectors of. `FMA`: whether `a · b + c` is one instruction; where it
/// is none, asking for it is slow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrays<const FMA: bool>;

impl<const FMA: bool> Vector for Arrays<FMA> {
    type Floats = [f32; LANES];

    #[inline(always)]
    fn floats(self, numbers: [f32; LANES]) -> [f32; LANES] {
        numbers
    }

    #[inline(always)]
    fn numbers(self, floats: [f32; LANES]) -> [f32; LANES] {
        floats
    }

    #[inline(always)]
    fn multiply_add(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| {
            if FMA {
                a[lane].mul_add(b[lane], c[lane])
            } else {
                a[lane] * b[lane] + c[lane]
            }
        })
    }

    #[inline(always)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    type Sixteen = [f32; SIXTEEN];

    #[inline(always)]
    fn sixteen(self, numbers: [f32; SIXTEEN]) -> [f32; SIXTEEN] {
        numbers
    }

    #[inline(always)]
    fn sixteen_numbers(self, floats: [f32; SIXTEEN]) -> [f32; SIXTEEN] {
        floats
    }

    #[inline(always)]
    fn multiply_add_16(
        self,
        a: [f32; SIXTEEN],
        b: [f32; SIXTEEN],
        c: [f32; SIXTEEN],
    ) -> [f32; SIXTEEN] {
        std::array::from_fn(|lane| {
            if FMA {
                a[lane].mul_add(b[lane], c[lane])
            } else {
                a[lane] * b[lane] + c[lane]
            }
        })
    }

    #[inline(always)]
    fn add_16(self, a: [f32; SIXTEEN], b: [f32; SIXTEEN]) -> [f32; SIXTEEN] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(never)]
    fn apart<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn turn(self, rows: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
        std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
    }

    #[inline(always)]
    fn codes(self, words: [u32; LANES], shifts: [u32; LANES], mask: u32) -> [f32; LANES] {
        // Through i32, which more CPUs can turn into floats.
        std::array::from_fn(|lane| ((words[lane] >> shifts[lane]) & mask) as i32 as f32)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::__m256;

    use pulp::x86::V3;
    use pulp::{cast, f32x8, u32x8};

    use super::{LANES, SIXTEEN, Vector};
    use crate::level::{Kernel, With};

    impl Vector for V3 {
        type Floats = f32x8;
        type Sixteen = [f32x8; 2];

        #[inline(always)]
        fn floats(self, numbers: [f32; LANES]) -> f32x8 {
            cast(numbers)
        }

        #[inline(always)]
        fn numbers(self, floats: f32x8) -> [f32; LANES] {
            cast(floats)
        }

        #[inline(always)]
        fn multiply_add(self, a: f32x8, b: f32x8, c: f32x8) -> f32x8 {
            self.mul_add_f32x8(a, b, c)
        }

        #[inline(always)]
        fn add(self, a: f32x8, b: f32x8) -> f32x8 {
            self.add_f32x8(a, b)
        }

        #[inline(always)]
        fn sixteen(self, numbers: [f32; SIXTEEN]) -> [f32x8; 2] {
            cast(numbers)
        }

        #[inline(always)]
        fn sixteen_numbers(self, floats: [f32x8; 2]) -> [f32; SIXTEEN] {
            cast(floats)
        }

        #[inline(always)]
        fn multiply_add_16(self, a: [f32x8; 2], b: [f32x8; 2], c: [f32x8; 2]) -> [f32x8; 2] {
            [
                self.mul_add_f32x8(a[0], b[0], c[0]),
                self.mul_add_f32x8(a[1], b[1], c[1]),
            ]
        }

        #[inline(always)]
        fn add_16(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
            [self.add_f32x8(a[0], b[0]), self.add_f32x8(a[1], b[1])]
        }

        /// Pairs of numbers, pairs of pairs, halves: what one instruction each can put together.
        #[inline(always)]
        fn turn(self, rows: [f32x8; LANES]) -> [f32x8; LANES] {
            let avx = self.avx;
            let rows: [__m256; LANES] = cast(rows);
            let mut pairs = rows;
            // Loops instead of closures: what is not inlined is not translated for the level.
            for at in (0..LANES).step_by(2) {
                pairs[at] = avx._mm256_unpacklo_ps(rows[at], rows[at + 1]);
                pairs[at + 1] = avx._mm256_unpackhi_ps(rows[at], rows[at + 1]);
            }
            let mut fours = pairs;
            for at in [0, 4] {
                for half in 0..2 {
                    let (x, y) = (pairs[at + half], pairs[at + half + 2]);
                    fours[at + 2 * half] = avx._mm256_shuffle_ps::<0b01_00_01_00>(x, y);
                    fours[at + 2 * half + 1] = avx._mm256_shuffle_ps::<0b11_10_11_10>(x, y);
                }
            }
            let mut columns = fours;
            for at in 0..4 {
                let (x, y) = (fours[at], fours[at + 4]);
                columns[at] = avx._mm256_permute2f128_ps::<0b0010_0000>(x, y);
                columns[at + 4] = avx._mm256_permute2f128_ps::<0b0011_0001>(x, y);
            }
            cast(columns)
        }

        #[inline(never)]
        fn apart<K: Kernel>(self, kernel: K) -> K::Output {
            self.vectorize(With(self, kernel))
        }

        #[inline(always)]
        fn codes(self, words: [u32; LANES], shifts: [u32; LANES], mask: u32) -> f32x8 {
            let words: u32x8 = self.shr_dyn_u32x8(cast(words), cast(shifts));
            let codes = self.and_u32x8(words, self.splat_u32x8(mask));
            self.convert_i32x8_to_f32x8(self.convert_u32x8_to_i32x8(codes))
        }
    }
}

/// Eight lanes are those of AVX2: only what has sixteen is wider.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use pulp::x86::V4;
    use pulp::{cast, f32x8, f32x16};

    use super::{LANES, SIXTEEN, Vector};
    use crate::level::{Kernel, With};

    impl Vector for V4 {
        type Floats = f32x8;
        type Sixteen = f32x16;

        #[inline(always)]
        fn floats(self, numbers: [f32; LANES]) -> f32x8 {
            Vector::floats(*self, numbers)
        }

        #[inline(always)]
        fn numbers(self, floats: f32x8) -> [f32; LANES] {
            Vector::numbers(*self, floats)
        }

        #[inline(always)]
        fn multiply_add(self, a: f32x8, b: f32x8, c: f32x8) -> f32x8 {
            Vector::multiply_add(*self, a, b, c)
        }

        #[inline(always)]
        fn add(self, a: f32x8, b: f32x8) -> f32x8 {
            Vector::add(*self, a, b)
        }

        #[inline(always)]
        fn sixteen(self, numbers: [f32; SIXTEEN]) -> f32x16 {
            cast(numbers)
        }

        #[inline(always)]
        fn sixteen_numbers(self, floats: f32x16) -> [f32; SIXTEEN] {
            cast(floats)
        }

        #[inline(always)]
        fn multiply_add_16(self, a: f32x16, b: f32x16, c: f32x16) -> f32x16 {
            self.mul_add_f32x16(a, b, c)
        }

        #[inline(always)]
        fn add_16(self, a: f32x16, b: f32x16) -> f32x16 {
            self.add_f32x16(a, b)
        }

        #[inline(always)]
        fn turn(self, rows: [f32x8; LANES]) -> [f32x8; LANES] {
            Vector::turn(*self, rows)
        }

        #[inline(never)]
        fn apart<K: Kernel>(self, kernel: K) -> K::Output {
            self.vectorize(With(self, kernel))
        }

        #[inline(always)]
        fn codes(self, words: [u32; LANES], shifts: [u32; LANES], mask: u32) -> f32x8 {
            Vector::codes(*self, words, shifts, mask)
        }
    }
}
