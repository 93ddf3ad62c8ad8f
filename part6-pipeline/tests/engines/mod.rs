//! Engines with the embedded model, and what the code of part 5 answers alone.

#![allow(clippy::unwrap_used, dead_code)] // a test that cannot go on should stop there

use std::collections::BTreeMap;

use console::cli::{FloatType, ModelArgs};
use console::metrics::FinishReason;
use part5_batching as part5;
use part6_pipeline::ask::{Ask, Event, Fault, Missed, TokenInfo, Usage};
use part6_pipeline::engine::Engine;
use part6_pipeline::handle::{Answer, State, Status};
use part6_pipeline::kinds::CacheKind;
use part6_pipeline::limits::{Limits, Memory, Policy};
use part6_pipeline::speculate::Speculation;
use part6_pipeline::thread::{Running, Settings};
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::request::Request;
use shared::tokenizer::Tokenizer;
use tokio::runtime::{Builder, Runtime};

/// Room for some, pieces of 16 tokens.
pub(crate) fn limits() -> Limits {
    Limits {
        rows: 8,
        tokens_per_step: 64,
        piece: 16,
        block: 16,
        kv_tokens: 4096,
        policy: Policy::Continuous,
        memory: Memory::Preempt,
        decodes_per_piece: 1,
    }
}

/// The embedded model in f32, whose answers do not depend on a tie.
pub(crate) fn model() -> ModelArgs {
    ModelArgs {
        model: "tiny".to_owned(),
        revision: None,
        dtype: Some(FloatType::F32),
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        model: model(),
        limits: limits(),
        kind: CacheKind::Prealloc,
        prefix_bytes: 0,
        prefix_folder: None,
        most_waiting: 64,
        speculation: Speculation::default(),
    }
}

/// An engine that is ready.
pub(crate) fn spawn(settings: Settings) -> Running {
    let mut running = Engine::spawn(settings).unwrap();
    let state = runtime().block_on(running.handle.loaded());
    assert_eq!(state, State::Ready);
    running
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// Waits until the engine says this of itself.
pub(crate) fn wait_until(running: &mut Running, mut is: impl FnMut(&Status) -> bool) -> Status {
    runtime().block_on(async {
        loop {
            let status = running.handle.status();
            if is(&status) {
                return status;
            }
            assert!(!matches!(status.state, State::Dead(_)), "{status:?}");
            running.handle.changed().await;
        }
    })
}

pub(crate) fn tiny() -> Checkpoint {
    let mut checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None).unwrap()).unwrap();
    checkpoint.dtype = Some(FloatType::F32);
    checkpoint
}

pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::open(&tiny()).unwrap()
}

/// As many ids as that, others for another `seed`.
pub(crate) fn ids(length: usize, seed: usize) -> Vec<u32> {
    let vocabulary = tiny().config.vocab_size;
    let id = |index: usize| (index * 37 + seed * 11 + index * index % 7) % vocabulary;
    (0..length).map(|index| id(index) as u32).collect()
}

/// What part 5 answers to each of these alone.
pub(crate) fn alone(requests: &[Request]) -> Vec<(Vec<u32>, FinishReason)> {
    let checkpoint = tiny();
    let model = part5::model::Model::load(&checkpoint).unwrap();
    let kind = part5::kinds::CacheKind::Prealloc;
    let limits = part5::limits::Limits {
        rows: 1,
        tokens_per_step: 512,
        piece: 512,
        block: 1,
        kv_tokens: 1 << 16,
        policy: part5::limits::Policy::Continuous,
        memory: part5::limits::Memory::Reserve,
        decodes_per_piece: 1,
    };
    let answer = |request: &Request| {
        let new = part5::generate::Generator::new(&model, &checkpoint.config, kind, limits.clone());
        let mut generator = new.unwrap();
        let all = part5::together::generate(&mut generator, std::slice::from_ref(request), |_| {
            Ok(std::ops::ControlFlow::Continue(()))
        });
        let generation = all.unwrap().remove(0);
        (generation.tokens, generation.finish_reason)
    };
    requests.iter().map(answer).collect()
}

/// What part 5 is asked, for one of the answers.
pub(crate) fn request(ask: &Ask, choice: u64) -> Request {
    let mut sampling = ask.sampling;
    sampling.seed += choice;
    let stop_ids = tokenizer().stop_ids().iter().copied().collect();
    Request {
        ids: ask.ids.clone(),
        max_tokens: ask.max_tokens,
        stop_ids: if ask.ignore_eos { vec![] } else { stop_ids },
        sampling,
    }
}

/// All that came of an ask.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) cached: Option<usize>,
    pub(crate) missed: Option<Missed>,
    pub(crate) progress: Vec<usize>,
    pub(crate) texts: BTreeMap<usize, String>,
    pub(crate) tokens: BTreeMap<usize, Vec<TokenInfo>>,
    pub(crate) ends: BTreeMap<usize, (FinishReason, Option<String>)>,
    pub(crate) prompt: Option<Vec<TokenInfo>>,
    pub(crate) usage: Option<Usage>,
    pub(crate) fault: Option<Fault>,
}

impl Heard {
    pub(crate) fn ids(&self, choice: usize) -> Vec<u32> {
        let tokens = self.tokens.get(&choice).into_iter().flatten();
        tokens.map(|token| token.id).collect()
    }
}

/// Listens to the end, and sees that events come in their order.
pub(crate) fn listen(answer: &mut Answer) -> Heard {
    let mut heard = Heard::default();
    while let Some(event) = answer.blocking_next() {
        assert!(
            heard.usage.is_none() && heard.fault.is_none(),
            "after the end: {event:?}"
        );
        match event {
            Event::Started { cached, missed } => {
                assert_eq!(heard.cached, None);
                (heard.cached, heard.missed) = (Some(cached), missed);
            }
            Event::Progress { seen } => heard.progress.push(seen),
            Event::Prompt(tokens) => heard.prompt = Some(tokens),
            Event::Delta {
                choice,
                text,
                tokens,
            } => {
                assert!(heard.cached.is_some() && !heard.ends.contains_key(&choice));
                assert!(!text.is_empty() || !tokens.is_empty());
                heard.texts.entry(choice).or_default().push_str(&text);
                heard.tokens.entry(choice).or_default().extend(tokens);
            }
            Event::End {
                choice,
                reason,
                stop,
            } => assert_eq!(heard.ends.insert(choice, (reason, stop)), None),
            Event::Done(usage) => heard.usage = Some(usage),
            Event::Failed(fault) => heard.fault = Some(fault),
        }
    }
    heard
}
