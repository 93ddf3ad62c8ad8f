//! From a model and a text to a [`Trace`].

use anyhow::Result;
use console::interrupt::check_interrupted;
use console::report::status;
use shared::request::Request;

use crate::extras::what_if;
use crate::pass::Pass;
use crate::subject::{Plan, Subject};
use crate::trace::Trace;
use crate::{attend, decode, embed, merging, pictures, predict, recompute, tokenize};

/// Sends a prompt through the model and looks at everything.
///
/// # Errors
/// If the prompt is empty or too long for the pictures, if there is no such layer or head, if an
/// operation fails, or if Ctrl-C was pressed.
pub fn walk(subject: &Subject, plan: &Plan) -> Result<Trace> {
    subject.focus_layer(plan)?;
    walk_from(subject, plan, &subject.request(plan)?)
}

/// The same for ids that somebody has already: `plan.text` only says where they are from.
///
/// # Errors
/// As [`walk`], but for the length of the prompt: the pictures of more than
/// [`PICTURE_LIMIT`](tokenize::PICTURE_LIMIT) tokens are wider than a terminal.
pub fn walk_from(subject: &Subject, plan: &Plan, request: &Request) -> Result<Trace> {
    let (decoder, tokenizer) = (&*subject.decoder, &subject.tokenizer);
    let layer = subject.focus_layer(plan)?;
    let ids = &request.ids;

    status("one pass over the prompt");
    let pass = Pass::run(decoder, ids, None)?;
    let layers = pictures::layers(decoder, &pass)?;
    let head = plan
        .head
        .unwrap_or_else(|| layers[layer].loudest(ids.len() - 1));
    let focus = pictures::focus(decoder, &pass, layer, head)?;
    let (q, k) = pictures::query_and_key(&pass, &focus)?;
    let positions = decoder.positions(ids.len(), &q, &k)?;
    check_interrupted()?;
    status("looking through each layer's eyes");
    let lens = predict::lens(decoder, tokenizer, &pass)?;
    let prediction = predict::prediction(decoder, tokenizer, &pass, &request.sampling)?;
    status("the loop");
    let (decode, last) = decode::decode(subject, request)?;
    let recompute = recompute::recompute(decoder, &decode, &pass, last.as_ref())?;
    status("checking each step against the fused operation");
    let mut checks = decoder.checks(&pass.blocks)?;
    checks.extend(attend::checks(decoder, &pass.blocks)?);
    checks.extend(predict::checks(decoder, &pass)?);
    check_interrupted()?;
    let what_if = plan
        .what_if
        .map(|switch| what_if::outcome(subject, request, &pass, switch))
        .transpose()?;
    Ok(Trace {
        model: decoder.facts().clone(),
        text: plan.text.clone(),
        templated: !plan.raw && tokenizer.has_chat_template(),
        merging: merging::merging(tokenizer, ids)?,
        tokens: tokenize::tokens(tokenizer, ids)?,
        embedding: embed::embedding(decoder, tokenizer, &pass)?,
        positions,
        strips: pictures::strips(decoder, &pass, layer)?,
        layers,
        focus,
        lens,
        prediction,
        decode,
        recompute,
        budget: recompute::budget(decoder, ids)?,
        checks,
        comparison: None,
        what_if,
    })
}
