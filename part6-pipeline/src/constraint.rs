//! What an answer must match: after each token, which ones may come next.
//!
//! llguidance follows the grammar byte by byte and walks a tree of the vocabulary's bytes beside it, so that a step
//! costs some 50 µs and not a look at each of 100,000 tokens. A token is allowed if its bytes are, wherever in the
//! grammar they begin and end.

mod digits;
mod grammar;
mod schema;
mod vocabulary;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use llguidance::Matcher;
use serde_json::Value;

use crate::ask::Grammar;
use digits::Digits;
use grammar::one_line;

pub use vocabulary::Vocabulary;

/// Tokens of the answer that decide how forced text is cut.
const RECENT: usize = 8;

/// So many tokens that are forced in a row are worth a run of their own; fewer come in the steps that others need
/// anyway.
const WORTH_A_RUN: usize = 2;

/// How far an answer has come in its grammar.
#[derive(Clone)]
pub struct Constraint {
    vocabulary: Arc<Vocabulary>,
    matcher: Matcher,
    /// Of an answer in JSON.
    digits: Option<Digits>,
    recent: VecDeque<u32>,
    skips: bool,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint")
            .field("recent", &self.recent)
            .finish_non_exhaustive()
    }
}

impl Constraint {
    /// An answer of which there is nothing yet.
    ///
    /// # Errors
    /// As [`Vocabulary::check`].
    ///
    /// # Cost
    /// A copy, if the grammar was checked before.
    pub fn new(vocabulary: &Arc<Vocabulary>, grammar: &Grammar) -> Result<Self> {
        Ok(Self {
            vocabulary: Arc::clone(vocabulary),
            matcher: vocabulary.matcher(grammar)?,
            digits: grammar.is_json().then(Digits::default),
            recent: VecDeque::new(),
            skips: true,
        })
    }

    /// Forced tokens are run one by one, like all others: where a row's cache cannot take several.
    pub fn one_by_one(mut self) -> Self {
        self.skips = false;
        self
    }

    /// Which ids may come next: one for each column of the logits, never none. Those that end an answer are among them
    /// where it may end.
    ///
    /// # Errors
    /// If the grammar has become too large on its way.
    pub fn mask(&mut self) -> Result<Vec<bool>> {
        let mask = self.matcher.compute_mask();
        let mut mask = mask.map_err(|error| failed(&error))?;
        if let Some(digits) = &self.digits {
            digits.narrow(&mut mask, &self.vocabulary.digits);
        }
        let mut allowed: Vec<bool> = Vec::with_capacity(mask.len().next_multiple_of(32));
        let bytes = mask.as_slice().iter().flat_map(|word| word.to_le_bytes());
        bytes.for_each(|byte| allowed.extend_from_slice(&BITS[usize::from(byte)]));
        allowed.truncate(mask.len());
        Ok(allowed)
    }

    /// The next id of the answer.
    ///
    /// # Errors
    /// If it was not allowed.
    pub fn accept(&mut self, id: u32) -> Result<()> {
        let accepted = self.matcher.consume_token(id);
        accepted.map_err(|error| failed(&error))?;
        if let Some(digits) = &mut self.digits {
            digits.push(self.vocabulary.trie().token(id));
        }
        self.recent.push_back(id);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        Ok(())
    }

    /// Ids that must come next, because their text must. Empty where the tokenizer would cut it otherwise: a model has
    /// seen no other cuts. They still have to be accepted.
    pub fn forced(&mut self) -> Vec<u32> {
        let forced = self.matcher.compute_ff_tokens();
        if forced.is_empty() {
            return forced;
        }
        let ids: Vec<u32> = self.recent.iter().chain(&forced).copied().collect();
        let trie = self.vocabulary.trie();
        let text: Vec<u8> = ids.iter().flat_map(|id| trie.token(*id)).copied().collect();
        if self.vocabulary.cut(&text) == ids {
            forced
        } else {
            Vec::new()
        }
    }

    /// The next id of the answer → those that must come after it, which are accepted, too: at most so many, and none
    /// where that would save too little.
    ///
    /// # Errors
    /// If it was not allowed.
    pub fn follow(&mut self, id: u32, most: usize) -> Result<Vec<u32>> {
        self.accept(id)?;
        if !self.skips || most < WORTH_A_RUN || self.must_stop() {
            return Ok(Vec::new());
        }
        let mut forced = self.forced();
        forced.truncate(most);
        if forced.len() < WORTH_A_RUN {
            forced.clear();
        }
        forced.iter().try_for_each(|id| self.accept(*id))?;
        Ok(forced)
    }

    /// How many of the guessed ids may come one after the other, and which ids may come before each of these and after
    /// the last: one mask more than ids. Nothing is accepted; `left` is as `most` in [`follow`](Self::follow) before the
    /// first of them. It ends before an id after which others are forced or nothing can come: what is drawn there counts
    /// for nothing. No mask at all: there can be none.
    ///
    /// # Cost
    /// A copy of the matcher, and a mask for each id.
    pub fn along(&self, guess: &[u32], left: usize) -> (usize, Vec<Vec<bool>>) {
        let (mut ahead, mut masks) = (self.clone(), Vec::new());
        for (place, id) in guess.iter().map(Some).chain([None]).enumerate() {
            let Ok(mask) = ahead.mask() else { break };
            let allowed = id.filter(|id| mask.get(**id as usize) == Some(&true));
            masks.push(mask);
            let Some(id) = allowed.filter(|id| !ahead.is_end(**id)) else {
                break;
            };
            let forced = ahead.follow(*id, left.saturating_sub(place + 1));
            if !forced.is_ok_and(|forced| forced.is_empty()) || ahead.must_stop() {
                break;
            }
        }
        (masks.len().saturating_sub(1), masks)
    }

    /// Whether an id is the end of an answer and no part of it.
    pub fn is_end(&self, id: u32) -> bool {
        self.vocabulary.trie().eos_tokens().contains(&id)
    }

    /// Whether the answer matches as it is.
    pub fn is_complete(&mut self) -> bool {
        self.matcher.stop_reason().is_ok() && self.matcher.is_accepting().unwrap_or(false)
    }

    /// Whether nothing can come any more. White space after a JSON value is nothing.
    pub fn must_stop(&mut self) -> bool {
        let ends = (self.digits.as_ref()).is_some_and(|digits| !digits.may_go_on());
        self.matcher.is_stopped() || ends && self.is_complete()
    }
}

/// Values that meet schemas, each under the name that it has in some rules in Lark.
///
/// # Errors
/// If a schema has what is not supported.
pub fn values(rules: &str, schemas: &[(&str, &Value)]) -> Result<Grammar> {
    let mut grammar = rules.to_owned();
    for (name, schema) in schemas {
        grammar += &format!("\n{name}: %json {}", schema::prepared(schema)?);
    }
    Ok(Grammar::Values(grammar))
}

fn failed(error: &anyhow::Error) -> anyhow::Error {
    anyhow!(
        "what the answer has to match, as far as it is, {}",
        one_line(error)
    )
}

/// The bits of a byte, lowest first.
static BITS: [[bool; 8]; 256] = {
    let mut all = [[false; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            all[byte][bit] = byte >> bit & 1 == 1;
            bit += 1;
        }
        byte += 1;
    }
    all
};
