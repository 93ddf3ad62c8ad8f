//! Eight numbers side by side, and what is done with them.

use std::fmt::Debug;

use crate::level::Kernel;

/// How many: what a register of 256 bits holds.
pub(crate) const LANES: usize = 8;

/// The instructions of one [`Level`](crate::Level).
///
/// Written out for AVX2, because compilers find the vectors of such loops on some days only; elsewhere
/// they have to.
pub(crate) trait Vector: Copy + Send + Sync {
    /// Eight f32.
    type Floats: Copy + Debug;

    fn floats(self, numbers: [f32; LANES]) -> Self::Floats;

    fn numbers(self, floats: Self::Floats) -> [f32; LANES];

    /// `a · b + c`
    fn multiply_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;

    /// `(word >> shift) & mask` as a number, for each lane.
    fn codes(self, words: [u32; LANES], shifts: [u32; LANES], mask: u32) -> Self::Floats;

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

    #[inline(never)]
    fn apart<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn codes(self, words: [u32; LANES], shifts: [u32; LANES], mask: u32) -> [f32; LANES] {
        // Through i32, which more CPUs can turn into floats.
        std::array::from_fn(|lane| ((words[lane] >> shifts[lane]) & mask) as i32 as f32)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use pulp::x86::V3;
    use pulp::{cast, f32x8, u32x8};

    use super::{LANES, Vector};
    use crate::level::{Kernel, With};

    impl Vector for V3 {
        type Floats = f32x8;

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
