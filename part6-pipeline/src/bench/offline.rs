//! The engine without a network: its handle is asked directly.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use part5_batching::load::Load;
use tokio::runtime::Builder;

use super::drive::{Done, Got, drive};
use crate::ask::{Ask, Event};
use crate::handle::{Answer, Handle, Refusal};

/// Answers a load.
///
/// # Errors
/// If the engine refuses one of its requests, or fails at it.
pub(super) fn run(handle: &Handle, load: &Load, prompts: &[Vec<u32>]) -> Result<Done> {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.context("starting the clients")?;
    runtime.block_on(drive(load, |at| {
        let ask = Ask {
            ids: prompts[at].clone(),
            max_tokens: load.requests[at].output_tokens,
            ignore_eos: true,
            ..Ask::default()
        };
        hear(handle.submit(ask))
    }))
}

async fn hear(answer: Result<Answer, Refusal>) -> Result<Got> {
    let refused = |why| anyhow!("the engine refuses a request: {why:?}");
    let mut answer = answer.map_err(refused)?;
    let (mut instants, mut all, mut end) = (Vec::new(), String::new(), None);
    while let Some(event) = answer.next().await {
        match event {
            Event::Delta { text, tokens, .. } => {
                instants.extend(tokens.iter().map(|_| Instant::now()));
                all.push_str(&text);
            }
            Event::End { reason, .. } => end = Some(reason),
            Event::Failed(fault) => bail!("{fault}"),
            Event::Started { .. } | Event::Progress { .. } | Event::Prompt(_) | Event::Done(_) => {}
        }
    }
    Ok((instants, all, end))
}
