//! The loop for requests that are all there from the start.

use std::collections::BTreeMap;
use std::mem;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context, Result};
use console::metrics::{FinishReason, Generation, Recorder};
use shared::request::{Request, Step};

use crate::generate::Generator;
use crate::stepped::{Event, Stepped};

/// All requests come at once, and one step goes after the other until all have ended. Between two
/// steps `on_step` may show what came, and may end all of them itself.
///
/// # Errors
/// If a step fails, or one of the requests.
pub fn generate(
    generator: &mut Generator<'_>,
    requests: &[Request],
    mut on_step: impl FnMut(&Stepped) -> Result<ControlFlow<FinishReason>>,
) -> Result<Vec<Generation>> {
    let started = Instant::now();
    let mut recorders = BTreeMap::new();
    for request in requests {
        let id = generator.submit(request.clone(), started.elapsed())?;
        recorders.insert(id, Recorder::start());
    }
    generator.close();
    let mut generations = BTreeMap::new();
    while !recorders.is_empty() {
        let stepped = generator.step(started.elapsed())?;
        let on_step = on_step(&stepped)?;
        for Event { id, step } in stepped.events {
            match step? {
                Step::Token {
                    id: token,
                    positions,
                } => {
                    let recorder = recorders.get_mut(&id).context("a token of nobody")?;
                    recorder.token(token, positions);
                }
                Step::Prefill { .. } => {}
                Step::End(reason) => {
                    let recorder = recorders.remove(&id).context("an end of nobody")?;
                    generations.insert(id, recorder.finish(reason));
                }
            }
        }
        if let ControlFlow::Break(reason) = on_step {
            for (id, recorder) in mem::take(&mut recorders) {
                generator.cancel(id)?;
                generations.insert(id, recorder.finish(reason));
            }
        }
    }
    Ok(generations.into_values().collect())
}
