//! Step 5: the loop. A model answers only one question: which token comes next? Text is made by
//! asking again with the answer appended.
//!
//! ```text
//! tokens → model → logits → choose one → append it → the same again
//! ```
//!
//! Greedy decoding takes the likeliest token each time and always gives the same text; sampling
//! draws. The loop ends when the model gives its end-of-turn token, or when the limit is reached.

use std::time::Instant;

use anyhow::Result;
use console::interrupt::check_interrupted;
use mlx_rs::Array;
use shared::request::Request;
use shared::sampling::Sampler;

use crate::candidates::Candidates;
use crate::decoder::Decoder;
use crate::pass::Pass;
use crate::subject::Subject;
use crate::trace::{Decode, Round, WhatIf};

/// Candidates that are listed for each round.
const TOP: usize = 3;

/// One turn of the loop: a pass, its scores, and the token chosen from them.
pub struct Turn {
    /// Everything that was computed.
    pub pass: Pass,
    /// `[1, V]`
    pub logits: Array,
    /// The token.
    pub token: u32,
    /// Time of the turn.
    pub micros: f64,
}

/// Runs the loop, the naive way: every round sends the whole sequence through the model. `on_turn`
/// gets each of them, that of the stop token included.
///
/// # Errors
/// If the model or the sampler fails, `on_turn` does, or Ctrl-C was pressed.
pub fn generate(
    decoder: &dyn Decoder,
    request: &Request,
    switch: Option<WhatIf>,
    mut on_turn: impl FnMut(Turn) -> Result<()>,
) -> Result<Vec<u32>> {
    let prompt = &request.ids;
    let mut sampler = Sampler::new(&request.sampling, prompt)?;
    let mut sequence = prompt.clone();
    while sequence.len() < prompt.len() + request.max_tokens {
        check_interrupted()?;
        let started = Instant::now();
        let pass = Pass::run(decoder, &sequence, switch)?;
        let logits = pass.next_logits(decoder)?; // [1, V]
        // Reading the id evaluates the whole pass: the next one cannot begin without it.
        let token = sampler.sample(&logits)?.read()?;
        on_turn(Turn {
            pass,
            logits,
            token,
            micros: started.elapsed().as_secs_f64() * 1e6,
        })?;
        if request.stop_ids.contains(&token) {
            break;
        }
        sequence.push(token);
    }
    Ok(sequence.split_off(prompt.len()))
}

/// The rounds that the request asks for, and the pass of the last one.
pub fn decode(subject: &Subject, request: &Request) -> Result<(Decode, Option<Pass>)> {
    let mut rounds = Vec::new();
    let mut last = None;
    let answer = generate(&*subject.decoder, request, None, |turn| {
        let all = Candidates::of(&turn.logits)?;
        rounds.push(Round {
            input: turn.pass.length(),
            chosen: all.candidate(&subject.tokenizer, turn.token)?,
            top: all.top(&subject.tokenizer, 0, TOP)?,
            micros: turn.micros,
        });
        last = Some(turn.pass);
        Ok(())
    })?;
    let stopped = rounds.len() > answer.len();
    let decode = Decode {
        rounds,
        text: subject.tokenizer.decode(&answer, true)?,
        ended_by: if stopped { "stop" } else { "length" }.to_owned(),
    };
    Ok((decode, last))
}
