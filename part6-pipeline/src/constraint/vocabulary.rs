//! A model's tokens as llguidance wants them: their bytes in a tree, and who cuts a text into them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use shared::tokenizer::Tokenizer;
use shared::watch::{self, Limits};
use toktrie::{INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use super::digits::BeginWithDigits;
use super::grammar::{one_line, read};
use crate::ask::Grammar;

/// Grammars that are kept after their answer: an application asks with the same few again and again.
const KEPT: usize = 32;

/// What it may take to read a grammar. The limits of llguidance end almost all earlier.
const READING: Limits = Limits {
    memory: 600_000_000,
    time: Duration::from_secs(10),
};

/// What a token of an answer may take: a mask of up to some 15 ms, tables of up to some 30 MB.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 20_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// The tokens of a model, and the grammars that were read for them. One for all answers, on all threads.
pub struct Vocabulary {
    factory: Arc<ParserFactory>,
    pub(super) digits: BeginWithDigits,
    /// Latest first.
    kept: Mutex<VecDeque<(Grammar, Matcher)>>,
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary")
            .field("tokens", &self.trie().vocab_size())
            .finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// The tokens of a model whose logits have `rows` columns.
    ///
    /// # Cost
    /// A look at every token, and a regular expression over all of them: some 100 ms for 128,000.
    pub fn new(tokenizer: &Tokenizer, rows: usize) -> Result<Arc<Self>> {
        let cutter = Cutter::new(tokenizer.clone(), rows)?;
        let digits = BeginWithDigits::of(&cutter.trie);
        let environment: TokEnv = Arc::new(cutter);
        let mut factory = ParserFactory::new_simple(&environment)
            .map_err(|error| anyhow!("reading the vocabulary for grammars: {error:#}"))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Arc::new(Self {
            factory: Arc::new(factory),
            digits,
            kept: Mutex::default(),
        }))
    }

    /// Reads a grammar and keeps it, so that the answer need not wait for that.
    ///
    /// # Errors
    /// One line, if it is none, has what is not supported, cannot be met, or is too large.
    ///
    /// # Cost
    /// Up to seconds for a hostile one: not for the thread that owns the model.
    pub fn check(&self, grammar: &Grammar) -> Result<()> {
        self.matcher(grammar).map(drop)
    }

    /// Whether an answer that matches a grammar may begin with a text.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn may_begin(&self, grammar: &Grammar, text: &str) -> Result<bool> {
        let ids = self.cut(text.as_bytes());
        let valid = self.matcher(grammar)?.validate_tokens(&ids)?;
        Ok(valid == ids.len())
    }

    /// The token of a mark that is no text, if there is one.
    pub fn mark(&self, spelling: &str) -> Option<u32> {
        self.trie().get_special_token(spelling)
    }

    /// A matcher that nothing was told yet, with memory of its own.
    pub(super) fn matcher(&self, grammar: &Grammar) -> Result<Matcher> {
        if let Some(matcher) = self.known(grammar) {
            return Ok(matcher);
        }
        let matcher = self.read(grammar)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((grammar.clone(), matcher.deep_clone()));
        kept.truncate(KEPT);
        Ok(matcher)
    }

    fn known(&self, grammar: &Grammar) -> Option<Matcher> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == grammar)?;
        let known = kept.remove(at)?;
        let matcher = known.1.deep_clone();
        kept.push_front(known);
        Some(matcher)
    }

    fn read(&self, grammar: &Grammar) -> Result<Matcher> {
        let what = grammar.what();
        let grammar = read(grammar)?;
        let factory = Arc::clone(&self.factory);
        let work = move || first_mask(&factory, grammar);
        let outcome = watch::run(
            &format!("reading {what}"),
            "; give a simpler one",
            READING,
            work,
        )?;
        outcome.map_err(|error| anyhow!("{what} {}", one_line(&error)))
    }

    pub(super) fn trie(&self) -> &TokTrie {
        self.factory.tok_env().tok_trie()
    }

    /// The ids of a text, as the tokenizer gives them.
    pub(super) fn cut(&self, bytes: &[u8]) -> Vec<u32> {
        self.factory.tok_env().tokenize_bytes(bytes)
    }
}

/// A grammar that has a first token.
fn first_mask(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<Matcher> {
    let mut matcher = Matcher::new(factory.create_parser(grammar));
    matcher.compute_mask()?;
    matcher.compute_ff_tokens();
    if let Some(error) = matcher.get_error() {
        bail!(error);
    }
    Ok(matcher)
}

/// Cuts texts into tokens.
struct Cutter {
    trie: TokTrie,
    tokenizer: Tokenizer,
    /// Whether the ids of a text stand for its bytes and no others.
    canonical: bool,
}

/// What answers consist of. Where these do not come back, no token is ever forced.
const PROBES: [&str; 4] = [
    "{\"name\": \"a b\", \"n\": [1, 2.5, true]}",
    "a",
    " b",
    "\n  \"é\"",
];

/// A character that no grammar forces and that stands for itself.
const BEFORE: &str = "\u{1}";

impl Cutter {
    fn new(tokenizer: Tokenizer, rows: usize) -> Result<Self> {
        let words = (0..rows as u32).map(|id| word(&tokenizer, id));
        let words = words.collect::<Result<Vec<_>>>()?;
        let stop: Vec<u32> = tokenizer.stop_ids().iter().copied().collect();
        let stop: Vec<u32> = stop.into_iter().filter(|id| *id < rows as u32).collect();
        let last = stop.first().copied().unwrap_or(INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(rows as u32, last), &words);
        if !stop.is_empty() {
            trie = trie.with_eos_tokens(&stop);
        }
        let mut cutter = Self {
            trie,
            tokenizer,
            canonical: false,
        };
        cutter.canonical = PROBES.iter().all(|text| cutter.faithful(text).is_some());
        Ok(cutter)
    }

    /// The ids of a text in the middle of another one; None if the tokenizer changes it.
    fn faithful(&self, text: &str) -> Option<Vec<u32>> {
        let ids = self.tokenizer.encode_bare(text).ok()?;
        if self.are(&ids, text) {
            return Some(ids);
        }
        // SentencePiece puts a space before a text: not before what comes after another character.
        let ids = self
            .tokenizer
            .encode_bare(&format!("{BEFORE}{text}"))
            .ok()?;
        let rest = (1..ids.len()).map(|from| &ids[from..]);
        rest.rev()
            .find(|ids| self.are(ids, text))
            .map(<[u32]>::to_vec)
    }

    fn are(&self, ids: &[u32], text: &str) -> bool {
        let mut rest = text.as_bytes();
        let fits = ids.iter().all(|id| {
            let word = self.trie.token(*id);
            let after = rest.strip_prefix(word).filter(|_| !word.is_empty());
            rest = after.unwrap_or(rest);
            after.is_some()
        });
        fits && rest.is_empty()
    }
}

impl TokenizerEnv for Cutter {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            let ids = self.faithful(text);
            ids.unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        })
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}

/// What a token stands for. What ends an answer stands for no text, nor do other marks: a grammar can name them
/// only by their ids.
fn word(tokenizer: &Tokenizer, id: u32) -> Result<Vec<u8>> {
    let piece = tokenizer.piece(id);
    let Some(piece) = piece.with_context(|| format!("reading token {id}"))? else {
        return Ok(Vec::new());
    };
    if piece.special || tokenizer.stop_ids().contains(&id) {
        let mark = [TokTrie::SPECIAL_TOKEN_MARKER];
        return Ok([&mark[..], piece.spelling.as_bytes()].concat());
    }
    // No text begins with the byte that means a mark.
    let text = piece.bytes;
    Ok(if text.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
        Vec::new()
    } else {
        text
    })
}
