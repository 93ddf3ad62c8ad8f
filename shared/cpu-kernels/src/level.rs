//! Which instructions are used, chosen when the program runs.

use crate::vector::{Arrays, Vector};

/// A set of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What every CPU of the architecture has: SSE2, or NEON.
    Portable,
    /// x86-64 with 256 bits and fused multiply-add.
    Avx2,
    /// The same with 512 bits where there are many rows. One row is no faster with them: a core waits for memory
    /// before that.
    Avx512,
}

/// A loop that is translated for each [`Level`].
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// Must be inlined, and all that it calls, else it is translated for the portable level only.
    fn run<V: Vector>(self, v: V) -> Self::Output;
}

/// Every 64-bit ARM CPU has a fused multiply-add; of the others nothing is known.
const PORTABLE: Arrays<{ cfg!(target_arch = "aarch64") }> = Arrays;

impl Level {
    /// The best one of this machine.
    pub fn best() -> Self {
        [Self::Avx512, Self::Avx2]
            .into_iter()
            .find(|level| level.is_available())
            .unwrap_or(Self::Portable)
    }

    /// All that this machine has.
    pub fn all() -> impl Iterator<Item = Self> {
        let levels = [Self::Portable, Self::Avx2, Self::Avx512];
        levels.into_iter().filter(|level| level.is_available())
    }

    /// What a report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable if cfg!(target_arch = "aarch64") => "NEON",
            Self::Portable if cfg!(target_arch = "x86_64") => "SSE2",
            Self::Portable => "plain loops",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// Runs the loop with these instructions, or with the portable ones if the machine lacks them.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match (self, pulp::x86::V3::try_new()) {
            (Self::Avx2 | Self::Avx512, Some(v3)) => v3.vectorize(With(v3, kernel)),
            _ => kernel.run(PORTABLE),
        }
    }

    /// The same for a loop that has many rows, and is translated for 512 bits, too.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn run_wide<K: Kernel>(self, kernel: K) -> K::Output {
        match (self, pulp::x86::V4::try_new()) {
            (Self::Avx512, Some(v4)) => v4.vectorize(With(v4, kernel)),
            _ => self.run(kernel),
        }
    }

    /// Runs the loop.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(PORTABLE)
    }

    /// The same.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    pub(crate) fn run_wide<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(PORTABLE)
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) struct With<V, K>(pub(crate) V, pub(crate) K);

#[cfg(target_arch = "x86_64")]
impl<V: Vector, K: Kernel> pulp::NullaryFnOnce for With<V, K> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.1.run(self.0)
    }
}
