//! What is compared: the rows of the table.

use std::collections::BTreeMap;

use shared::checkpoint::Checkpoint;
use shared::config::{GroupQuantization, Mode, Quantization};

use crate::floats::Fit;
use crate::kinds::CacheKind;
use crate::quantized_cache::{KvBits, group_size};

/// Bits of a code, the most first.
pub const BITS: [usize; 6] = [8, 6, 5, 4, 3, 2];
/// Weights that share a scale and a bias.
pub const GROUPS: [usize; 2] = [64, 32];
/// What codes stand for. Not mxfp8: the 8 bits of affine codes are better, and here much faster.
pub const MODES: [Mode; 3] = [Mode::Affine, Mode::Mxfp4, Mode::Nvfp4];
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
    /// How the scales of a float mode are chosen.
    pub fit: Fit,
    /// The cache.
    pub cache: CacheKind,
}

impl Variant {
    /// The model as it is, named after its type: what all others are compared with.
    pub fn base(checkpoint: &Checkpoint) -> Self {
        Self {
            name: dtype(checkpoint),
            plan: None,
            fit: Fit::Mlx,
            cache: CacheKind::Prealloc,
        }
    }

    /// All matrices packed in one way.
    pub fn packed(group: GroupQuantization, fit: Fit) -> Self {
        Self {
            name: match (group.mode, fit) {
                (Mode::Affine, _) => format!("{}-bit g{}", group.bits, group.group_size),
                (floats, Fit::Mlx) => floats.name().to_owned(),
                (floats, Fit::Best) => format!("{} fit", floats.name()),
            },
            fit,
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
            fit: Fit::Mlx,
            cache: CacheKind::Quantized(bits),
        }
    }
}

/// Ways to pack weights.
#[derive(Debug, Clone)]
pub struct Packings {
    /// Of affine codes.
    pub bits: Vec<usize>,
    /// Weights that share a scale and a bias.
    pub groups: Vec<usize>,
    /// What codes stand for.
    pub modes: Vec<Mode>,
}

impl Packings {
    /// Every width in every group, and the float modes with the scales of MLX and with those that fit best.
    fn all(&self) -> Vec<(GroupQuantization, Fit)> {
        let affine = |bits: &usize| {
            let bits = *bits;
            let of = move |size: &usize| (GroupQuantization::affine(*size, bits), Fit::Mlx);
            self.groups.iter().map(of)
        };
        let of_mode = |mode: &Mode| match mode.only_packing() {
            Some(floats) => [Fit::Mlx, Fit::Best].map(|fit| (floats, fit)).to_vec(),
            None => self.bits.iter().flat_map(affine).collect(),
        };
        self.modes.iter().flat_map(of_mode).collect()
    }
}

/// The base, then all packings, then the base with packed keys and values where the heads can be packed. A
/// model that is quantized already keeps its weights.
///
/// With `cache`, all rows but the base have that one.
pub fn variants(
    checkpoint: &Checkpoint,
    packings: &Packings,
    cache: Option<KvBits>,
) -> Vec<Variant> {
    let packed = |(group, fit)| {
        let variant = Variant::packed(group, fit);
        Variant {
            cache: cache.map_or(variant.cache, CacheKind::Quantized),
            ..variant
        }
    };
    let dense = checkpoint.config.quantization.is_none();
    let packed = packings.all().into_iter().map(packed).filter(|_| dense);
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
