//! Requests are sent when they are due, whoever answers them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use console::interrupt::check_interrupted;
use console::serving::Served;
use part5_batching::load::{Feed, Load};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The longest sleep between two looks at Ctrl-C.
const NAP: Duration = Duration::from_millis(50);

/// A load that was answered.
#[derive(Debug)]
pub(super) struct Done {
    /// Each request, in the order of the load.
    pub(super) served: Vec<Served>,
    /// Its answer.
    pub(super) texts: Vec<String>,
    /// To the last token.
    pub(super) duration: Duration,
}

/// One answer: when its tokens came, its text, and why it ended.
pub(super) type Got = (Vec<Instant>, String, Option<console::metrics::FinishReason>);

/// Sends each request of the load at its time, with `send`, which is given its place.
///
/// # Errors
/// If one of them fails, or on Ctrl-C.
pub(super) async fn drive<F, A>(load: &Load, mut send: F) -> Result<Done>
where
    F: FnMut(usize) -> A,
    A: Future<Output = Result<Got>> + Send + 'static,
{
    let mut feed = Feed::new(load);
    let mut tasks: JoinSet<(usize, Result<Got>)> = JoinSet::new();
    let mut served = vec![Served::default(); load.requests.len()];
    let mut texts = vec![String::new(); load.requests.len()];
    let started = Instant::now();
    loop {
        let now = started.elapsed();
        while let Some((at, planned)) = feed.send(now) {
            served[at].due = planned.due;
            served[at].arrival = feed.arrival(planned, now);
            served[at].prompt_tokens = planned.prompt_tokens;
            let answer = send(at);
            tasks.spawn(async move { (at, answer.await) });
        }
        if tasks.is_empty() && feed.is_done() {
            break;
        }
        let due = feed.wake().map(|due| due.saturating_sub(started.elapsed()));
        tokio::select! {
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                let (at, got) = done.context("a client has panicked")?;
                let (instants, text, reason) = got?;
                let since = |at: Instant| at.saturating_duration_since(started);
                served[at].tokens = instants.into_iter().map(since).collect();
                served[at].finish_reason = reason;
                texts[at] = text;
                feed.ended();
            }
            () = sleep(due.unwrap_or(NAP).min(NAP)) => {}
        }
        check_interrupted()?;
    }
    let ends = served.iter().filter_map(|served| served.tokens.last());
    let duration = ends.max().copied().unwrap_or_default();
    Ok(Done {
        served,
        texts,
        duration,
    })
}
