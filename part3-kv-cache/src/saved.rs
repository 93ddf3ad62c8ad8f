//! The commands `save` and `load`: what a prompt left in the cache, from one run to the next.

use std::path::Path;

use anyhow::{Result, ensure};
use console::interrupt::check_interrupted;
use console::report::status;
use shared::prompt_cache::{self, Identity, Layout, PromptCache};
use shared::request::Request;
use shared::session::Session;

use crate::cache::Cache;
use crate::generate::prefill;
use crate::keys_values::KeysValues;
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;

/// A file, and what its contents belong to.
#[derive(Debug)]
pub struct CacheFile<'a> {
    path: &'a Path,
    session: &'a Session,
    request: &'a Request,
    kind: CacheKind,
    identity: Identity,
}

impl<'a> CacheFile<'a> {
    /// Nothing is read or written yet but the samples of the weights that tell one model from another.
    ///
    /// # Errors
    /// If this kind of cache stores nothing, or if the model's files cannot be read.
    pub fn new(
        path: &'a Path,
        session: &'a Session,
        request: &'a Request,
        kind: CacheKind,
    ) -> Result<Self> {
        Ok(Self {
            path,
            session,
            request,
            kind,
            identity: identity(session, kind)?,
        })
    }

    /// Runs all of the prompt but its last token. That one is left to the run that answers: it needs
    /// the token's logits.
    ///
    /// # Errors
    /// If the prompt is a single token, or if the model fails.
    pub fn fill(&self, model: &Model, cache: &mut Cache, prefill_step: usize) -> Result<()> {
        let ids = self.ids();
        ensure!(
            !ids.is_empty(),
            "a prompt of one token leaves nothing to save: give a longer one"
        );
        for piece in cache.pieces(ids.len(), prefill_step)? {
            let seen = piece.end;
            prefill(model, cache, &ids[piece])?;
            status(&format!("prefill: {seen} of {} tokens", ids.len()));
            check_interrupted()?;
        }
        Ok(())
    }

    /// Writes what [`fill`](Self::fill) left in the cache.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, cache: &Cache) -> Result<()> {
        let layers = cache.state()?.into_iter();
        let saved = PromptCache {
            ids: self.ids().to_vec(),
            layers: layers.map(|kv| [kv.keys, kv.values]).collect(),
        };
        prompt_cache::save(self.path, &self.identity, &saved)
    }

    /// The prompt without its last token.
    fn ids(&self) -> &[u32] {
        &self.request.ids[..self.request.ids.len().saturating_sub(1)]
    }

    /// The cache that is in the file, for a prompt that begins with the same tokens.
    ///
    /// # Errors
    /// If the file is damaged or belongs to another model, template, kind of cache or prompt.
    pub fn load(&self) -> Result<Cache> {
        let layout = Layout::of(&self.session.checkpoint);
        let saved = prompt_cache::load(self.path, &self.identity, &layout)?;
        let context =
            |error: anyhow::Error| error.context(format!("using {}", self.path.display()));
        saved.check_prefix(&self.request.ids).map_err(context)?;
        let mut cache = empty_cache(self.kind, &self.session.checkpoint.config);
        let layers = saved.layers.into_iter();
        let state = layers.map(|[keys, values]| KeysValues { keys, values });
        let offset = i32::try_from(saved.ids.len())?;
        cache.restore(state.collect(), offset).map_err(context)?;
        Ok(cache)
    }
}

fn identity(session: &Session, kind: CacheKind) -> Result<Identity> {
    ensure!(
        kind != CacheKind::Off,
        "--cache off stores nothing that a file could hold: take another one"
    );
    // Concat and Prealloc hold the same positions: either can go on with the other's file.
    let stored = match kind {
        CacheKind::Rotating { size, sinks } => {
            format!("{size} positions, the first {sinks} for good")
        }
        _ => "all positions".to_owned(),
    };
    Identity::of(&session.checkpoint, &session.tokenizer, stored)
}
