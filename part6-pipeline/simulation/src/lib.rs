//! Part 6's engine among clients of all kinds, in a world without a model, a clock or a network.
//!
//! The engine, the scheduler, the tree of prefixes, the batch and the caches are part 6's own files, compiled once more
//! over arrays and a model that are a few lines each ([`mod@array`], [`model`]). Clients ([`client`]) are drawn from a seed:
//! they read at once, slowly or never, leave at any moment, ask what cannot be answered, and begin alike. Time is a
//! count of steps. So a schedule takes a fraction of a millisecond, the same seed gives the same one, and what happens
//! once in a hundred thousand times is seen once a run.
//!
//! After each step [`checks`] looks at everything, and each answer is compared with what the model gives alone
//! ([`alone`]). Whether it would see a fault is tried with faults that other engines had ([`PLANTS`]).

// What the files know as MLX, as `shared` and as tokio is this crate.
extern crate self as mlx_rs;
extern crate self as shared;
extern crate self as tokio;
extern crate shared as real_shared;
extern crate tokio as real_tokio;

use std::cell::Cell;

pub mod alone;
pub mod array;
pub mod channel;
pub mod checks;
pub mod client;
pub mod constraint;
pub mod layers;
pub mod model;
pub mod ops;
pub mod random;
pub mod sampling;
pub mod speculate;
mod unwatched;
pub mod world;

mod plants;
pub use array::{Array, Dtype};
pub use plants::PLANTS;
pub use real_shared::{config, request, tokenizer};
pub use unwatched::{likely, live, replay};
pub use world::run;

thread_local! {
    static PLANTED: Cell<&'static str> = const { Cell::new("") };
    static IN_FLIGHT: Cell<usize> = const { Cell::new(1) };
    static GUESSES: Cell<bool> = const { Cell::new(false) };
}

/// From now on, on this thread, this fault is in the code; "" for none.
pub fn plant(name: &'static str) {
    PLANTED.set(name);
}

pub(crate) fn is_planted(name: &str) -> bool {
    PLANTED.get() == name
}

/// Where `shared` says how a machine works.
pub mod kernels {
    /// Steps that may be on their way: 1 on a CPU, 2 on a GPU.
    pub fn steps_in_flight() -> usize {
        crate::IN_FLIGHT.get()
    }
}

/// Everything is computed at once.
pub mod transforms {
    use anyhow::Result;

    use crate::Array;

    pub(crate) fn eval<'a>(_: impl IntoIterator<Item = &'a Array>) -> Result<()> {
        Ok(())
    }

    pub(crate) fn async_eval<'a>(_: impl IntoIterator<Item = &'a Array>) -> Result<()> {
        Ok(())
    }
}

/// There is no cache.
pub mod memory {
    pub(crate) fn clear_cache() -> anyhow::Result<()> {
        Ok(())
    }
}

/// Where tokio has its channels.
pub mod sync {
    pub use real_tokio::sync::watch;

    pub use crate::channel as mpsc;
}

macro_rules! of_part_6 {
    ($($name:ident)*) => {$(
        #[doc = concat!("Part 6's `", stringify!($name), ".rs`.")]
        #[allow(dead_code, missing_docs, missing_debug_implementations, unused_parens, clippy::all)]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    )*};
}

of_part_6! {
    ahead answer ask batch books cache desk engine generate handle keys_values kinds limits nodes plan prealloc prefix
    prompts quantized_cache reuse rotating scheduler sequence slots stepped store text trial
}
