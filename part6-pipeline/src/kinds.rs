//! The kinds of caches, by name: what a flag chooses from.

use shared::config::ModelConfig;

use crate::cache::{Cache, KvCache};
use crate::prealloc::Prealloc;
use crate::quantized_cache::{KvBits, QuantizedCache};
use crate::rotating::Rotating;

/// How to store keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// One array with room for more, written in place.
    Prealloc,
    /// The latest `size` positions only, the first `sinks` among them for good.
    Rotating {
        /// Positions that are stored, the sinks included.
        size: i32,
        /// First positions that are never overwritten: attention sinks (arXiv 2309.17453).
        sinks: i32,
    },
    /// As `Prealloc`, but packed.
    Quantized(KvBits),
}

/// An empty cache.
pub fn empty_cache(kind: CacheKind, config: &ModelConfig) -> Cache {
    let layer = |kind: CacheKind| -> Box<dyn KvCache> {
        match kind {
            CacheKind::Prealloc => Box::new(Prealloc::default()),
            CacheKind::Rotating { size, sinks } => Box::new(Rotating::new(size, sinks)),
            CacheKind::Quantized(bits) => Box::new(QuantizedCache::new(bits)),
        }
    };
    Cache::new(layer_kinds(kind, config).map(layer).collect())
}

/// The kind of each layer. One that has a sliding window itself rotates over no more than that, and without
/// sinks: its model never saw any.
pub fn layer_kinds(kind: CacheKind, config: &ModelConfig) -> impl Iterator<Item = CacheKind> {
    config
        .sliding_window
        .iter()
        .map(move |window| match (kind, window) {
            (CacheKind::Rotating { size, .. }, Some(window)) if *window as i32 <= size => {
                CacheKind::Rotating {
                    size: *window as i32,
                    sinks: 0,
                }
            }
            (kind, _) => kind,
        })
}
