//! What is compared: the rows of the table.

use std::collections::BTreeMap;

use shared::checkpoint::Checkpoint;
use shared::config::{GroupQuantization, Quantization};

use crate::kinds::CacheKind;
use crate::quantized_cache::{KvBits, group_size};

/// Bits of a code, the most first.
pub const BITS: [usize; 6] = [8, 6, 5, 4, 3, 2];
/// Weights that share a scale and a bias.
pub const GROUPS: [usize; 2] = [64, 32];
/// Bits of keys and values in the cache.
const CACHES: [KvBits; 4] = [bits(8, 8), bits(8, 4), bits(4, 8), bits(4, 4)];

const fn bits(keys: i32, values: i32) -> KvBits {
    KvBits { keys, values }
}

/// One row: how the weights are stored, and how the keys and values.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its name on the screen and in the JSON line.
    pub name: String,
    /// How the matrices are packed; None: as they are.
    pub plan: Option<Quantization>,
    /// The cache.
    pub cache: CacheKind,
}

impl Variant {
    /// The model as it is, named after its type: what all others are compared with.
    pub fn base(checkpoint: &Checkpoint) -> Self {
        Self {
            name: dtype(checkpoint),
            plan: None,
            cache: CacheKind::Prealloc,
        }
    }

    fn packed(group: GroupQuantization) -> Self {
        Self {
            name: format!("{}-bit g{}", group.bits, group.group_size),
            plan: Some(Quantization {
                default: group,
                overrides: BTreeMap::new(),
            }),
            cache: CacheKind::Prealloc,
        }
    }

    fn with_cache(bits: KvBits) -> Self {
        Self {
            name: bits.to_string(),
            plan: None,
            cache: CacheKind::Quantized(bits),
        }
    }
}

/// The base, then every width in every group, then the base with packed keys and values where the heads can
/// be packed. A model that is quantized already keeps its weights.
///
/// With `cache`, all rows but the base have that one.
pub fn variants(
    checkpoint: &Checkpoint,
    bits: &[usize],
    groups: &[usize],
    cache: Option<KvBits>,
) -> Vec<Variant> {
    let each = |bits: usize| {
        let of = move |group_size: &usize| GroupQuantization::affine(*group_size, bits);
        let with_cache = move |variant: Variant| Variant {
            cache: cache.map_or(variant.cache, CacheKind::Quantized),
            ..variant
        };
        groups.iter().map(of).map(Variant::packed).map(with_cache)
    };
    let dense = checkpoint.config.quantization.is_none();
    let packed = bits.iter().copied().flat_map(each).filter(|_| dense);
    let caches = cache.map_or(CACHES.to_vec(), |cache| vec![cache]);
    let caches = caches.into_iter().map(Variant::with_cache);
    let head = i32::try_from(checkpoint.config.head_dim).unwrap_or(0);
    let packs = group_size(head).is_ok();
    let all = [Variant::base(checkpoint)].into_iter().chain(packed);
    all.chain(caches.filter(|_| packs)).collect()
}

/// The type that most of the weights have.
fn dtype(checkpoint: &Checkpoint) -> String {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in &checkpoint.tensors {
        *bytes.entry(&tensor.dtype).or_default() += tensor.bytes;
    }
    let most = bytes.iter().max_by_key(|(_, bytes)| **bytes);
    let stored = most.map_or("as it is", |(dtype, _)| dtype);
    match checkpoint.dtype {
        Some(dtype) => format!("{dtype:?}").to_lowercase(),
        None => stored.to_lowercase(),
    }
}
