//! How a request for answers begins, whatever the answers look like.

use std::hash::{BuildHasher, RandomState};
use std::mem;

use axum::body::Bytes;
use axum::extract::Request;

use super::answers::Answers;
use super::{App, body, now};
use crate::api::{ApiError, Options};
use crate::ask::Ask;
use crate::handle::Opened;

/// A request, read and encoded.
pub(super) struct Job<T> {
    /// One for each prompt.
    pub(super) asks: Vec<Ask>,
    /// Answers to each of them.
    pub(super) n: usize,
    pub(super) head: Head,
    /// Whether the answers come in events.
    pub(super) stream: bool,
    /// Whether one more event says what they have cost.
    pub(super) include_usage: bool,
    pub(super) logprobs: bool,
    /// What only one kind of request has.
    pub(super) rest: T,
}

/// What all objects of one request have in common.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

impl<T> Job<T> {
    /// What all requests have, of one whose ids begin with `kind`. `ask` is the same for all of its prompts, but for
    /// their ids.
    pub(super) fn new(
        app: &App,
        opened: &Opened,
        options: &Options,
        kind: &str,
        ask: &Ask,
        rest: T,
    ) -> Result<Self, ApiError> {
        app.check_model(opened, options.model.as_deref())?;
        Ok(Self {
            asks: Vec::new(),
            n: ask.n,
            head: Head::new(kind, app.model(opened)),
            stream: options.streams(),
            include_usage: options.include_usage()?,
            logprobs: ask.logprobs.is_some(),
            rest,
        })
    }
}

/// Reads a request and hands its asks to the engine.
///
/// # Errors
/// If it is none, and if the engine does not take it now.
pub(super) async fn begin<T: Send + 'static>(
    app: &App,
    request: Request,
    read: fn(&App, &Opened, &Bytes) -> Result<Job<T>, ApiError>,
) -> Result<(Answers, Job<T>), ApiError> {
    app.opened()?;
    let bytes = body::read(app, request).await?;
    let work = move |app: &App, opened: &Opened| read(app, opened, &bytes);
    let mut job = app.encode(work).await?;
    check_size(&job.asks)?;
    for ask in &mut job.asks {
        ask.name.clone_from(&job.head.id);
    }
    let answers = Answers::submit(app, mem::take(&mut job.asks))?;
    Ok((answers, job))
}

/// Log-probabilities of prompts in one response. All of them are there before the first is sent, as JSON some hundred
/// bytes each.
const MOST_LIKELIHOODS: usize = 1 << 20;

fn check_size(asks: &[Ask]) -> Result<(), ApiError> {
    let of = |ask: &Ask| {
        let top = ask.prompt_logprobs?;
        Some(ask.ids.len().saturating_mul(top + 1).saturating_mul(ask.n))
    };
    let all = asks.iter().filter_map(of).fold(0, usize::saturating_add);
    if all > MOST_LIKELIHOODS {
        let message = format!(
            "'logprobs': {all} of them for the prompts are too many for one response, at most {MOST_LIKELIHOODS}."
        );
        return Err(ApiError::invalid("logprobs", message));
    }
    Ok(())
}

impl Head {
    /// A request of this kind that was asked now.
    fn new(kind: &str, model: String) -> Self {
        Self {
            id: format!("{kind}-{}", random_hex()),
            created: now(),
            model,
        }
    }
}

/// 32 digits. Not a secret: they only have to be others than all others.
pub(super) fn random_hex() -> String {
    let random = [0, 1].map(|part| RandomState::new().hash_one(part));
    format!("{:016x}{:016x}", random[0], random[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_no_memory_could_hold_is_refused() {
        let ask = |tokens, n| Ask {
            ids: vec![1; tokens],
            prompt_logprobs: Some(20),
            n,
            ..Ask::default()
        };
        check_size(&[ask(1000, 16), ask(1000, 16)]).unwrap();
        let many = vec![ask(1000, 16); 256];
        assert!(check_size(&many).is_err());
        let unasked = Ask {
            prompt_logprobs: None,
            ..ask(1000, 16)
        };
        check_size(&vec![unasked; 256]).unwrap();
    }
}
