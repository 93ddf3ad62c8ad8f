//! An answer alone, by the code of part 3: what every row of a batch is compared with.

#![allow(clippy::unwrap_used, dead_code)] // a test that cannot go on should stop there

use std::ops::ControlFlow;

use console::metrics::Generation;
use mlx_rs::Array;
use mlx_rs::ops::indexing::IndexOp;
use part3_kv_cache as part3;
use part5_batching::cache::Cache;
use part5_batching::generate::PREFILL_STEP;
use part5_batching::kinds::{CacheKind, empty_cache};
use part5_batching::model::Model;
use part5_batching::quantized_cache::KvBits;
use shared::checkpoint::Checkpoint;
use shared::config::ModelConfig;
use shared::hub;
use shared::kernels::steps_in_flight;
use shared::layers::{ids_array, to_f32};
use shared::request::Request;
use shared::testing::fixtures;

pub(crate) const PACKED: CacheKind = CacheKind::Quantized(KvBits { keys: 8, values: 8 });

/// One model, as both parts have it.
pub(crate) struct Both {
    pub(crate) config: ModelConfig,
    pub(crate) part3: part3::model::Model,
    pub(crate) model: Model,
}

impl Both {
    pub(crate) fn load(checkpoint: &Checkpoint) -> Self {
        Self {
            config: checkpoint.config.clone(),
            part3: part3::model::Model::load(checkpoint).unwrap(),
            model: Model::load(checkpoint).unwrap(),
        }
    }

    pub(crate) fn fixture(name: &str) -> Self {
        Self::load(&fixtures::checkpoint(name).unwrap())
    }

    /// As many ids as that, others for another `seed`.
    pub(crate) fn ids(&self, length: usize, seed: usize) -> Vec<u32> {
        let vocabulary = self.config.vocab_size;
        let id = |index: usize| (index * 37 + seed * 11 + index * index % 7) % vocabulary;
        (0..length).map(|index| id(index) as u32).collect()
    }
}

/// The embedded model.
pub(crate) fn tiny() -> Checkpoint {
    Checkpoint::open("tiny", hub::locate("tiny", None).unwrap()).unwrap()
}

/// Whether a row is to have the same bits alone and among others: on a GPU the kernels change with the number
/// of rows.
pub(crate) fn bits_are_equal() -> bool {
    steps_in_flight() == 1
}

/// The scores `[V]` after the prompt and after each of the ids that they make the likeliest.
pub(crate) struct Answer {
    pub(crate) logits: Vec<Vec<f32>>,
    pub(crate) ids: Vec<u32>,
}

/// `n` tokens, the prompt in one piece. Part 3 has no packed keys and values: there it is this part's own
/// cache, which is part 4's.
pub(crate) fn alone(both: &Both, kind: CacheKind, prompt: &[u32], n: usize) -> Answer {
    let Some(part3_kind) = part3_kind(kind) else {
        let mut cache = empty_cache(kind, &both.config);
        let pieces = cache.pieces(prompt.len(), PREFILL_STEP).unwrap();
        return answer(prompt, n, pieces, |ids| run(&both.model, ids, &mut cache));
    };
    let mut cache = part3::kinds::empty_cache(part3_kind, &both.config);
    let pieces = cache.pieces(prompt.len(), PREFILL_STEP).unwrap();
    answer(prompt, n, pieces, |ids| {
        let logits = both.part3.next_logits(&ids_array(ids), &mut cache);
        to_f32(&logits.unwrap()).unwrap()
    })
}

/// The same, as part 3's loop gives it, with stop ids and sampling.
pub(crate) fn generation(both: &Both, kind: CacheKind, request: &Request) -> Generation {
    generation_in_pieces(both, kind, request, PREFILL_STEP)
}

/// The same with a prompt in pieces of at most `step`.
pub(crate) fn generation_in_pieces(
    both: &Both,
    kind: CacheKind,
    request: &Request,
    step: usize,
) -> Generation {
    let mut cache = part3::kinds::empty_cache(part3_kind(kind).unwrap(), &both.config);
    let mut generator =
        part3::generate::Generator::new(&both.part3, &mut cache, request, step).unwrap();
    part3::generate::generate(&mut generator, |_| Ok(ControlFlow::Continue(()))).unwrap()
}

/// Keys and values `[Hkv, S, D]` of each layer, one after the other, of these ids in pieces of at most `step`.
pub(crate) fn keys_and_values(both: &Both, ids: &[u32], step: usize) -> Vec<Array> {
    let mut cache = part3::kinds::empty_cache(part3::kinds::CacheKind::Prealloc, &both.config);
    for piece in ids.chunks(step) {
        both.part3.hidden(&ids_array(piece), &mut cache).unwrap();
    }
    let n = ids.len() as i32;
    let arrays = cache.arrays();
    arrays.map(|array| array.index((0, .., 0..n, ..))).collect()
}

fn part3_kind(kind: CacheKind) -> Option<part3::kinds::CacheKind> {
    use part3::kinds::CacheKind as Part3;
    match kind {
        CacheKind::Prealloc => Some(Part3::Prealloc),
        CacheKind::Rotating { size, sinks } => Some(Part3::Rotating { size, sinks }),
        CacheKind::Quantized(_) => None,
    }
}

/// What the ids of a prompt make of a row's own cache: the scores of the next.
pub(crate) fn prefill(model: &Model, cache: &mut Cache, prompt: &[u32]) -> Vec<f32> {
    let pieces = cache.pieces(prompt.len(), PREFILL_STEP).unwrap();
    let logits = pieces
        .into_iter()
        .map(|piece| run(model, &prompt[piece], cache));
    logits.last().unwrap()
}

fn run(model: &Model, ids: &[u32], cache: &mut Cache) -> Vec<f32> {
    to_f32(&model.next_logits(&ids_array(ids), cache).unwrap()).unwrap()
}

fn answer(
    prompt: &[u32],
    n: usize,
    pieces: Vec<std::ops::Range<usize>>,
    mut run: impl FnMut(&[u32]) -> Vec<f32>,
) -> Answer {
    let last = pieces.into_iter().map(|piece| run(&prompt[piece])).last();
    let mut answer = Answer {
        logits: vec![last.unwrap()],
        ids: Vec::new(),
    };
    for _ in 0..n {
        let id = likeliest(&answer.logits[answer.ids.len()]);
        answer.ids.push(id);
        answer.logits.push(run(&[id]));
    }
    answer
}

pub(crate) fn likeliest(logits: &[f32]) -> u32 {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).reduce(better).unwrap() as u32
}

/// Fails unless the scores are the same, to the bit where that can be.
pub(crate) fn same(logits: &[f32], alone: &[f32], what: &str) {
    if bits_are_equal() {
        let differing = logits
            .iter()
            .zip(alone)
            .filter(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differing.count(), 0, "{what}");
        return;
    }
    let largest = alone
        .iter()
        .fold(0.0_f32, |max, value| max.max(value.abs()));
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-2 * largest;
    assert!(logits.iter().zip(alone).all(near), "{what}");
}
