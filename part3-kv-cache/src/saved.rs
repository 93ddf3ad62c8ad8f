//! `--save-cache` and `--load-cache`: what a prompt left in the cache, from one run to the next.

use std::path::Path;

use anyhow::{Result, ensure};
use shared::prompt_cache::{self, Identity, PromptCache, digest, fingerprint};
use shared::session::Session;

use crate::cache::{Cache, CacheKind};
use crate::generate::fill;
use crate::keys_values::KeysValues;
use crate::model::Model;

/// Runs all of the prompt but its last token, and writes what the cache then holds to `path`. The
/// last token is left to the run that answers: it needs that token's logits.
///
/// # Errors
/// If the prompt is a single token, if the model fails, or if the file cannot be written.
pub fn save(
    path: &Path,
    session: &Session,
    model: &Model,
    kind: CacheKind,
    cache: &mut Cache,
    step: usize,
) -> Result<()> {
    let identity = identity(session, kind)?;
    let before = session.prompt.len().saturating_sub(1);
    ensure!(
        before > 0,
        "--save-cache: a prompt of one token leaves nothing to save"
    );
    fill(model, cache, &session.prompt, before, step)?;
    let layers = cache.state()?.into_iter();
    let saved = PromptCache {
        ids: session.prompt[..before].to_vec(),
        layers: layers.map(|kv| [kv.keys, kv.values]).collect(),
    };
    prompt_cache::save(path, &identity, &saved)
}

/// The cache that is in the file, for a prompt that begins with the same tokens.
///
/// # Errors
/// If the file is damaged or belongs to another model, template, kind of cache or prompt.
pub fn load(path: &Path, session: &Session, kind: CacheKind) -> Result<Cache> {
    let saved = prompt_cache::load(path, &identity(session, kind)?)?;
    let context = |error: anyhow::Error| error.context(format!("using {}", path.display()));
    saved.check_prefix(&session.prompt).map_err(context)?;
    let mut cache = Cache::new(kind, &session.checkpoint.config);
    let layers = saved.layers.into_iter();
    let state = layers.map(|[keys, values]| KeysValues { keys, values });
    let offset = i32::try_from(saved.ids.len())?;
    cache.restore(state.collect(), offset).map_err(context)?;
    Ok(cache)
}

fn identity(session: &Session, kind: CacheKind) -> Result<Identity> {
    ensure!(
        kind != CacheKind::Off,
        "--cache off keeps nothing that a file could hold: take another one"
    );
    Ok(Identity {
        model: fingerprint(&session.checkpoint)?,
        template: session
            .tokenizer
            .chat_template()
            .map_or_else(String::new, digest),
        // Concat and Prealloc hold the same positions: either can go on with the other's file.
        kept: match kind {
            CacheKind::Rotating { size, keep } => {
                format!("{size} positions, the first {keep} for good")
            }
            _ => "all positions".to_owned(),
        },
    })
}
