//! What if a piece were missing? The symptom shows what the piece is good for.

pub mod show;

use anyhow::Result;
use shared::layers::to_f32;
use shared::request::Request;
use shared::sampling::Sampling;

use crate::candidates::Candidates;
use crate::decode::generate;
use crate::embed::cosine;
use crate::pass::Pass;
use crate::predict::TOP;
use crate::subject::Subject;
use crate::trace::{WhatIf, WhatIfOutcome};

/// Runs the model once more with something left out, and lets it answer both ways.
pub fn outcome(
    subject: &Subject,
    request: &Request,
    before: &Pass,
    switch: WhatIf,
) -> Result<WhatIfOutcome> {
    let (decoder, tokenizer) = (&*subject.decoder, &subject.tokenizer);
    let after = Pass::run(decoder, &before.ids, Some(switch))?;
    let was = Candidates::of(&before.next_logits(decoder)?)?;
    let is = Candidates::of(&after.next_logits(decoder)?)?;
    let likely = was.top(tokenizer, 0, TOP)?;
    let last = before.length() - 1;
    let cosines = (0..=before.blocks.len()).map(|blocks| {
        let both = cosine(before.stream_after(blocks), after.stream_after(blocks))?; // [1, L]
        Ok(to_f32(&both)?[last])
    });
    let greedy = Request {
        sampling: Sampling::default(),
        ..request.clone()
    };
    let answer = |switch| {
        let ids = generate(decoder, &greedy, switch, |_| Ok(()))?;
        tokenizer.decode(&ids, true)
    };
    Ok(WhatIfOutcome {
        switch,
        before_then: likely
            .iter()
            .map(|token| is.probability(0, token.id))
            .collect(),
        before: likely,
        after: is.top(tokenizer, 0, TOP)?,
        cosines: cosines.collect::<Result<_>>()?,
        entropy_before: entropies(before)?,
        entropy_after: entropies(&after)?,
        text_before: answer(None)?,
        text_after: answer(Some(switch))?,
    })
}

/// Per layer, the mean of `−Σ w log₂ w` over all rows: 0 if each token looks at one other, `log₂ n`
/// if equally at n of them.
fn entropies(pass: &Pass) -> Result<Vec<f32>> {
    let of = |row: &[f32]| -> f32 {
        let bits = row.iter().filter(|w| **w > 0.0).map(|w| -w * w.log2());
        bits.sum()
    };
    let mean = |weights: Vec<f32>| {
        let rows: Vec<f32> = weights.chunks(pass.length()).map(of).collect();
        rows.iter().sum::<f32>() / rows.len() as f32
    };
    let layers = pass.blocks.iter();
    layers
        .map(|block| Ok(mean(to_f32(&block.scores.weights)?)))
        .collect()
}
