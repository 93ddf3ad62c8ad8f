//! Guesses of a smaller model.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use console::cli::ModelArgs;
use mlx_rs::{Array, ops};
use shared::config::ModelConfig;
use shared::sampling::{Choice, Sampler, sample_rows};
use shared::session::Session;
use shared::tokenizer::Tokenizer;

use crate::batch::Batch;
use crate::cache::Cache;
use crate::constraint::Constraint;
use crate::generate::{self, PREFILL_STEP};
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;
use crate::plan::SequenceId;
use crate::prompts;
use crate::sequence::{Rows, Sequence};

const KIND: CacheKind = CacheKind::Prealloc;

/// Tokens of its request that a row may not have read yet and still run with the others, all of which run as many. One
/// that made a pause has more, and reads them alone first.
const NEAR: usize = 4;

/// A smaller model of the same vocabulary, and what it has read of the rows that it guesses for.
pub struct Draft {
    model: Model,
    config: ModelConfig,
    name: String,
    /// The rows of the step, in an order of its own.
    batch: Batch,
    followed: BTreeMap<SequenceId, Followed>,
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
struct Followed {
    /// Whose keys and values are there: tokens of the request, and then perhaps guesses.
    ids: Vec<u32>,
    /// Where they are while no guess is wanted for it; otherwise they are in the batch.
    aside: Option<Cache>,
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
            batch: Batch::new(KIND, &checkpoint.config),
            followed: BTreeMap::new(),
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

    /// For each row the tokens that it would go on with, so many.
    ///
    /// It draws with a copy of the request's own sampler: with its filters, what its grammar allows, and the very random
    /// numbers that the model will draw with. So at a temperature, too, both draw the same token as far as they think
    /// alike. (Drawn with other numbers, two equal models would often differ.)
    ///
    /// # Cost
    /// A run of the draft model for each token, of all rows that want one together; before the first guess for a request
    /// also its prompt, alone. A row whose guess is to be shorter than those of others runs as long.
    pub(super) fn guess(&mut self, rows: &Rows<'_>, counts: &[usize]) -> Result<Vec<Vec<u32>>> {
        let mut guesses = vec![Vec::new(); counts.len()];
        let most = counts.iter().copied().max().unwrap_or(0);
        if most == 0 {
            return Ok(guesses);
        }
        self.gather(rows, counts)?;
        let place = |id: &SequenceId| rows.1.iter().position(|row| row == id);
        let places: Vec<usize> = self.batch.rows().iter().filter_map(place).collect();
        let of: Vec<&Sequence> = places.iter().map(|place| &*rows.0[*place]).collect();
        let drawn = self.go_on(&of, most)?;
        for ((place, row), mut guess) in places.into_iter().zip(of).zip(drawn) {
            let (id, count) = (rows.1[place], counts[place]);
            guess.truncate(count);
            self.batch.go_back(id, most - count)?;
            if let Some(followed) = self.followed.get_mut(&id) {
                followed.ids.extend(&row.ids[followed.ids.len()..]);
                followed.ids.extend(&guess[..count - 1]); // the last one was not run
            }
            guesses[place] = guess;
        }
        Ok(guesses)
    }

    /// Nobody wants guesses for a request any more, or memory is short: nothing is left of it.
    pub(super) fn leave(&mut self, id: SequenceId) -> Result<()> {
        self.followed.remove(&id);
        self.batch.leave(id)
    }

    /// In the batch are then those that want a guess and no others, each near the end of its request.
    fn gather(&mut self, rows: &Rows<'_>, counts: &[usize]) -> Result<()> {
        let all = rows.0.iter().zip(&rows.1).zip(counts);
        let wanting = all.filter(|(_, count)| **count > 0).map(|(row, _)| row);
        let wanting: BTreeMap<SequenceId, &Sequence> =
            wanting.map(|(row, id)| (*id, &**row)).collect();
        for id in self.batch.rows().to_vec() {
            if !wanting.contains_key(&id) {
                let aside = self.take(id)?;
                self.followed.entry(id).or_default().aside = aside;
            }
        }
        let mut wanting = wanting.into_iter();
        wanting.try_for_each(|(id, row)| self.follow(row, id))
    }

    /// Goes back to what is right of what was read, and goes on to the last token but a few.
    fn follow(&mut self, row: &Sequence, id: SequenceId) -> Result<()> {
        let ids = &row.ids[..row.ids.len().saturating_sub(1)];
        let mut followed = self.followed.remove(&id).unwrap_or_default();
        let pairs = followed.ids.iter().zip(ids);
        let same = pairs.take_while(|(own, id)| own == id).count();
        let wrong = followed.ids.len() - same;
        followed.ids.truncate(same);
        if self.batch.row(id).is_some() && ids.len() - same <= NEAR {
            self.batch.go_back(id, wrong)?;
        } else {
            let cache = followed
                .aside
                .take()
                .map_or_else(|| self.take(id), |cache| Ok(Some(cache)))?;
            let mut cache = cache.unwrap_or_else(|| empty_cache(KIND, &self.config));
            cache.trim(wrong as i32)?;
            for piece in ids[same..].chunks(PREFILL_STEP) {
                generate::prefill(&self.model, &mut cache, piece)?;
            }
            self.batch.join(&[id], &[ids.len()], cache)?;
            followed.ids.extend(&ids[same..]);
        }
        self.followed.insert(id, followed);
        Ok(())
    }

    /// What was read of a row leaves the batch with it.
    fn take(&mut self, id: SequenceId) -> Result<Option<Cache>> {
        let Some((state, offset)) = self.batch.take(id)? else {
            return Ok(None);
        };
        let mut cache = empty_cache(KIND, &self.config);
        cache.restore(state, offset)?;
        Ok(Some(cache))
    }

    /// Draws so many tokens for each row of the batch, one after the other. What is not read of a request runs first.
    fn go_on(&mut self, rows: &[&Sequence], most: usize) -> Result<Vec<Vec<u32>>> {
        let own = |row: &&Sequence| (row.sampler.clone(), row.constraint.clone());
        let (mut samplers, mut constraints): (Vec<_>, Vec<_>) = rows.iter().map(own).unzip();
        let mut logits = self.catch_up(rows)?; // [B, V]
        let mut drawn: Vec<Vec<Choice>> = Vec::with_capacity(most);
        loop {
            drawn.push(draw(&mut samplers, &mut constraints, &logits)?);
            let Some(last) = drawn.last().filter(|_| drawn.len() < most) else {
                break;
            };
            let ids: Vec<&Array> = last.iter().map(|next| &next.id).collect();
            let ids = ops::concatenate(&ids, 0)?.reshape(&[-1, 1])?;
            logits = self.batch.run(&self.model, &ids)?;
        }
        let of_row = |row| drawn.iter().filter_map(move |all| all.get(row));
        let read = |row| of_row(row).map(Choice::read).collect();
        (0..rows.len()).map(read).collect()
    }

    /// Runs what each row of the batch has not read, its last token included: the scores for the next ones `[B, V]`.
    fn catch_up(&mut self, rows: &[&Sequence]) -> Result<Array> {
        let read = |id: &SequenceId| self.followed.get(id).map_or(0, |row| row.ids.len());
        let read: Vec<usize> = self.batch.rows().iter().map(read).collect();
        let rest: Vec<&[u32]> = (rows.iter().zip(read))
            .map(|(row, read)| &row.ids[read..])
            .collect();
        let width = rest.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rest.len() * width);
        let mut places = Vec::with_capacity(rest.len());
        for (row, rest) in rest.iter().enumerate() {
            ids.extend(*rest);
            ids.resize((row + 1) * width, 0); // behind its last token, where nothing looks
            places.push((row * width + rest.len() - 1) as i32);
        }
        let ids = Array::from_slice(&ids, &[rest.len() as i32, width as i32]);
        let hidden = self.batch.run_several(&self.model, &ids)?; // [B, L, E]
        for (id, rest) in self.batch.rows().to_vec().into_iter().zip(&rest) {
            self.batch.go_back(id, width - rest.len())?;
        }
        prompts::scores(&self.model, &hidden, &places)
    }
}

/// One token for each row.
fn draw(
    samplers: &mut [Sampler],
    constraints: &mut [Option<Constraint>],
    logits: &Array,
) -> Result<Vec<Choice>> {
    for (sampler, constraint) in samplers.iter_mut().zip(constraints.iter_mut()) {
        if let Some(Ok(mask)) = constraint.as_mut().map(Constraint::mask) {
            sampler.allow(&mask);
        }
    }
    let all = sample_rows(&mut samplers.iter_mut().collect::<Vec<_>>(), logits)?;
    for (next, constraint) in all.iter().zip(constraints) {
        if let Some(constraint) = constraint {
            // What cannot follow is not run by the model either.
            let _ = constraint.accept(next.read()?);
        }
    }
    Ok(all)
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
