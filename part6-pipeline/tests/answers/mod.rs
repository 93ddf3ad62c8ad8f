//! Answers of the embedded model that must match something, by part 6's own loop.

#![allow(clippy::unwrap_used, dead_code)] // a test that cannot go on should stop there

pub(crate) mod validity;

use std::sync::Arc;
use std::time::Duration;

use console::metrics::FinishReason;
use part6_pipeline::ask::Grammar;
use part6_pipeline::constraint::{Constraint, Vocabulary};
use part6_pipeline::generate::Generator;
use part6_pipeline::kinds::CacheKind;
use part6_pipeline::limits::{Limits, Memory, Policy};
use part6_pipeline::model::Model;
use part6_pipeline::stepped::Event;
use shared::checkpoint::Checkpoint;
use shared::config::ModelConfig;
use shared::hub;
use shared::request::{Request, Step};
use shared::sampling::Sampling;
use shared::tokenizer::{Message, Tokenizer};

/// The embedded model with its tokens.
pub(crate) struct Tiny {
    pub(crate) config: ModelConfig,
    pub(crate) model: Model,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) vocabulary: Arc<Vocabulary>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) ids: Vec<u32>,
    pub(crate) text: String,
    pub(crate) reason: FinishReason,
    /// Tokens that no step was run for.
    pub(crate) forced: usize,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) prompt: String,
    pub(crate) max_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) grammar: Option<Grammar>,
}

impl Asked {
    pub(crate) fn greedy(grammar: Grammar) -> Self {
        Self {
            prompt: "Explain black holes".to_owned(),
            max_tokens: 300,
            sampling: Sampling::default(),
            grammar: Some(grammar),
        }
    }

    pub(crate) fn drawn(grammar: Grammar, seed: u64) -> Self {
        let sampling = Sampling {
            temperature: 1.0,
            seed,
            ..Sampling::default()
        };
        Self {
            sampling,
            ..Self::greedy(grammar)
        }
    }
}

pub(crate) fn wide() -> Limits {
    Limits {
        rows: 32,
        tokens_per_step: 4096,
        piece: 512,
        block: 16,
        kv_tokens: 1 << 20,
        policy: Policy::Continuous,
        memory: Memory::Preempt,
        decodes_per_piece: 1,
    }
}

impl Tiny {
    pub(crate) fn open() -> Self {
        let checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None).unwrap()).unwrap();
        let tokenizer = Tokenizer::open(&checkpoint).unwrap();
        let rows = checkpoint.config.vocab_size;
        Self {
            model: Model::load(&checkpoint).unwrap(),
            vocabulary: Vocabulary::new(&tokenizer, rows).unwrap(),
            config: checkpoint.config,
            tokenizer,
        }
    }

    pub(crate) fn request(&self, asked: &Asked) -> Request {
        let messages = [Message::user(asked.prompt.as_str())];
        Request {
            ids: self.tokenizer.encode_chat(&messages).unwrap(),
            max_tokens: asked.max_tokens,
            stop_ids: self.tokenizer.stop_ids().iter().copied().collect(),
            sampling: asked.sampling,
        }
    }

    pub(crate) fn answer(&self, asked: &Asked) -> Answer {
        let all = std::slice::from_ref(asked);
        self.answers(all, wide(), CacheKind::Prealloc).remove(0)
    }

    /// All at once.
    pub(crate) fn answers(&self, asked: &[Asked], limits: Limits, kind: CacheKind) -> Vec<Answer> {
        self.answers_with(asked, limits, kind, false)
    }

    /// The same; `one_by_one` skips no token.
    pub(crate) fn answers_with(
        &self,
        asked: &[Asked],
        limits: Limits,
        kind: CacheKind,
        one_by_one: bool,
    ) -> Vec<Answer> {
        let mut generator = Generator::new(&self.model, &self.config, kind, limits).unwrap();
        let mut answers = Vec::new();
        for asked in asked {
            let id = (generator.submit(self.request(asked), Duration::ZERO)).unwrap();
            if let Some(grammar) = &asked.grammar {
                let constraint = Constraint::new(&self.vocabulary, grammar).unwrap();
                let constraint = if one_by_one {
                    constraint.one_by_one()
                } else {
                    constraint
                };
                generator.constrain(id, constraint).unwrap();
            }
            answers.push((Vec::new(), None, 0));
        }
        generator.close();
        while !generator.scheduler().is_idle() {
            for Event { id, step, .. } in generator.step(Duration::ZERO).unwrap().events {
                let (ids, reason, forced) = &mut answers[id.0 as usize];
                assert_eq!(*reason, None, "nothing comes after the end");
                match step.unwrap() {
                    Step::Prefill { .. } => {}
                    Step::Token { id, positions } => {
                        ids.push(id);
                        *forced += usize::from(positions == 0);
                    }
                    Step::End(end) => *reason = Some(end),
                }
            }
        }
        let answer = |(ids, reason, forced): (Vec<u32>, Option<FinishReason>, usize)| Answer {
            text: self.tokenizer.decode(&ids, false).unwrap(),
            ids,
            reason: reason.unwrap(),
            forced,
        };
        answers.into_iter().map(answer).collect()
    }
}
