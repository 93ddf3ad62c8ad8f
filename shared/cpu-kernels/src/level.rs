//! Which instructions are used, chosen when the program runs.

use crate::vector::{Arrays, Vector};

/// A set of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What every CPU of the architecture has: SSE2, or NEON.
    Portable,
    /// x86-64 with 256 bits and fused multiply-add. 512 bits were tried: no faster, since a core
    /// waits for memory before that.
    Avx2,
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
        if Self::Avx2.is_available() {
            Self::Avx2
        } else {
            Self::Portable
        }
    }

    /// All that this machine has.
    pub fn all() -> impl Iterator<Item = Self> {
        let levels = [Self::Portable, Self::Avx2];
        levels.into_iter().filter(|level| level.is_available())
    }

    /// What a report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable if cfg!(target_arch = "aarch64") => "NEON",
            Self::Portable if cfg!(target_arch = "x86_64") => "SSE2",
            Self::Portable => "plain loops",
            Self::Avx2 => "AVX2",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
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
            (Self::Avx2, Some(v3)) => v3.vectorize(With(v3, kernel)),
            _ => kernel.run(PORTABLE),
        }
    }

    /// Runs the loop.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
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
