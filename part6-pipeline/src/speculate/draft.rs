//! Guesses of a smaller model.

use std::fmt;

use anyhow::{Context, Result, ensure};
use console::cli::ModelArgs;
use shared::config::ModelConfig;
use shared::layers::ids_array;
use shared::sampling::Choice;
use shared::session::Session;
use shared::tokenizer::Tokenizer;

use crate::cache::Cache;
use crate::constraint::Constraint;
use crate::generate::{self, PREFILL_STEP};
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;
use crate::sequence::Sequence;

/// A smaller model of the same vocabulary.
pub struct Draft {
    model: Model,
    config: ModelConfig,
    name: String,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How far the draft model has come in a request.
#[derive(Debug, Default)]
pub(super) struct Followed {
    cache: Option<Cache>,
    /// Whose keys and values are there: tokens of the request, and then perhaps guesses.
    ids: Vec<u32>,
}

impl Draft {
    /// Loads a model that guesses for another one, of which this is the tokenizer and the width of its scores. So many
    /// positions of each row may be in memory.
    ///
    /// # Errors
    /// If it cannot be loaded, does not fit into memory, or has another vocabulary.
    pub fn open(
        model: &ModelArgs,
        tokenizer: &Tokenizer,
        vocab_size: usize,
        positions: usize,
    ) -> Result<Self> {
        let opening = || format!("opening the draft model {}", model.model);
        let session = Session::open(model).with_context(opening)?;
        let checkpoint = &session.checkpoint;
        same_vocabulary(&session, tokenizer, vocab_size)
            .with_context(|| format!("{} cannot guess for this model", model.model))?;
        (checkpoint.check_fit(positions, session.machine.ram_bytes)).with_context(opening)?;
        Ok(Self {
            model: Model::load(checkpoint).with_context(opening)?,
            config: checkpoint.config.clone(),
            name: model.model.clone(),
        })
    }

    /// Its name, as it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many tokens it could guess for a row, of at most so many: its context may be a shorter one.
    pub(super) fn most(&self, row: &Sequence, most: usize) -> usize {
        let context = self.config.max_position_embeddings;
        most.min(context.saturating_sub(row.ids.len()))
    }

    /// The tokens that it would go on with, so many.
    ///
    /// It draws with a copy of the request's own sampler: with its filters, what its grammar allows, and the very random
    /// numbers that the model will draw with. So at a temperature, too, both draw the same token as far as they think
    /// alike. (Drawn with other numbers, two equal models would often differ.)
    ///
    /// # Cost
    /// A run of the draft model for each token, one row at a time; in the first guess for a request also its prompt.
    /// vLLM drafts for all rows at once.
    pub(super) fn guess(
        &self,
        row: &Sequence,
        followed: &mut Followed,
        most: usize,
    ) -> Result<Vec<u32>> {
        let last = row.ids.len().saturating_sub(1);
        if most == 0 {
            return Ok(Vec::new());
        }
        let same = followed.go_back(&row.ids[..last])?;
        let cache = &mut followed.cache;
        let cache = cache.get_or_insert_with(|| empty_cache(CacheKind::Prealloc, &self.config));
        for piece in row.ids[same..last].chunks(PREFILL_STEP) {
            generate::prefill(&self.model, cache, piece)?;
        }
        let guess = self.go_on(row, cache, most)?;
        followed.ids.extend(&row.ids[same..]);
        followed.ids.extend(&guess[..guess.len() - 1]); // the last one was not run
        Ok(guess)
    }

    /// Draws one token after the other, of which the last one of the request is the first to run.
    fn go_on(&self, row: &Sequence, cache: &mut Cache, most: usize) -> Result<Vec<u32>> {
        let last = row.ids.last().context("nothing to go on from")?;
        let (mut sampler, mut constraint) = (row.sampler.clone(), row.constraint.clone());
        let mut input = ids_array(&[*last]);
        let mut drawn: Vec<Choice> = Vec::new();
        for _ in 0..most {
            let logits = self.model.next_logits(&input, cache)?; // [1, V]
            if let Some(Ok(mask)) = constraint.as_mut().map(Constraint::mask) {
                sampler.allow(&mask);
            }
            let next = sampler.sample(&logits)?;
            input = next.id.reshape(&[1, 1])?;
            if let Some(all) = &mut constraint {
                // What cannot follow is not run by the model either.
                let _ = all.accept(next.read()?);
            }
            drawn.push(next);
        }
        drawn.iter().map(Choice::read).collect()
    }
}

impl Followed {
    /// Goes back to what is right of it, and says how many of these tokens that are.
    fn go_back(&mut self, ids: &[u32]) -> Result<usize> {
        let pairs = self.ids.iter().zip(ids);
        let same = pairs.take_while(|(own, id)| own == id).count();
        if let Some(cache) = &mut self.cache {
            cache.trim((self.ids.len() - same) as i32)?;
        }
        self.ids.truncate(same);
        Ok(same)
    }
}

/// Refuses a model whose ids mean something else.
fn same_vocabulary(session: &Session, tokenizer: &Tokenizer, vocab_size: usize) -> Result<()> {
    const ADVICE: &str = "take a draft of the same family";
    let own = session.checkpoint.config.vocab_size;
    ensure!(
        own == vocab_size,
        "it knows {own} tokens, the model {vocab_size}: {ADVICE}"
    );
    for id in 0..vocab_size as u32 {
        let piece = |tokenizer: &Tokenizer| -> Result<Option<(Vec<u8>, bool)>> {
            let piece = tokenizer.piece(id)?;
            Ok(piece.map(|piece| (piece.bytes, piece.special)))
        };
        let (draft, model) = (piece(&session.tokenizer)?, piece(tokenizer)?);
        ensure!(
            draft == model,
            "token {id} is {} for it and {} for the model: {ADVICE}",
            told(draft),
            told(model)
        );
    }
    Ok(())
}

fn told(piece: Option<(Vec<u8>, bool)>) -> String {
    piece.map_or("nothing".to_owned(), |(bytes, _)| {
        format!("{:?}", String::from_utf8_lossy(&bytes))
    })
}
