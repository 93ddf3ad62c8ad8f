/// Faults that other engines had, as changes of this one's code: a name, a file, what stands there once, and what
/// stands there instead, in which `PLANTED` asks whether it is this fault's turn.
pub const PLANTS: &[(&str, &str, &str, &str)] = &[
    (
        "who leaves while its prompt runs keeps its row",
        "generate.rs",
        "self.scheduler.end(id);",
        "if self.sequences.get(&id).is_none_or(|sequence| sequence.cache.is_none()) { self.scheduler.end(id); }",
    ),
    (
        "what fills up a short prompt is taken for its last token",
        "prompts.rs",
        "(row * longest + ids.len() - 1) as i32",
        "(row * longest + longest - 1) as i32",
    ),
    (
        "a prompt of whole blocks leaves no token to run",
        "reuse.rs",
        "self.tree.find(&ids[..ids.len().saturating_sub(1)])",
        "self.tree.find(ids)",
    ),
    (
        "a checkpoint where prompts part has seen more than they have in common",
        "reuse.rs",
        "sequence.prefill(model, cache, piece.start..fork)?;",
        "sequence.prefill(model, cache, piece.clone())?;
        self.keep_checkpoint(&sequence.ids[..fork], sequence.by, cache)?;
        return Ok(());",
    ),
    (
        "what a row uses is evicted",
        "nodes.rs",
        "node.is_some_and(|node| node.pin.others() == 0)",
        "node.is_some()",
    ),
    (
        "what is evicted still counts",
        "nodes.rs",
        "self.bytes -= node.bytes;",
        "{}",
    ),
    (
        "the budget of the tree is not looked at",
        "nodes.rs",
        "self.bytes.saturating_add(bytes) > self.budget",
        "false",
    ),
    (
        "a block is known by its first token",
        "prefix.rs",
        "node.children.get(tokens)",
        "node.children.iter().find(|(other, _)| other[0] == tokens[0]).map(|(_, id)| id)",
    ),
    (
        "a hit is no use: the first to come is the first to go",
        "prefix.rs",
        "self.touch(child);",
        "{}",
    ),
    (
        "who is preempted begins a second time",
        "engine.rs",
        "&& !ask.has_begun()",
        "&& (PLANTED || !ask.has_begun())",
    ),
    (
        "the last row is not moved into the place of one that left",
        "slots.rs",
        "self.store.move_slot(last as i32, row as i32, used)?;",
        "{}",
    ),
    (
        "a stop text ends the answer and not its row",
        "engine.rs",
        "self.generator.finish(event.id)?;",
        "{}",
    ),
    (
        "who is preempted keeps its keys and values",
        "generate.rs",
        "sequence.cache = None;",
        "{}",
    ),
    (
        "memory is promised twice",
        "scheduler.rs",
        "self.promised() > self.limits.kv_tokens",
        "false",
    ),
    (
        "who is preempted comes last",
        "scheduler.rs",
        "self.waiting.push_front(last);",
        "self.waiting.push_back(last);",
    ),
    (
        "one bad request ends all",
        "engine.rs",
        "self.fail(id, Fault::Ask(format!(\"{why:#}\")))",
        "Err(why)",
    ),
    (
        "several answers to a prompt are one",
        "answer.rs",
        "sampling.seed.wrapping_add(choice as u64)",
        "sampling.seed",
    ),
    (
        "who waits when the engine drains is forgotten",
        "engine.rs",
        "filter(|(_, ask)| !ask.has_begun())",
        "filter(|(_, ask)| !PLANTED && !ask.has_begun())",
    ),
    (
        "when the engine dies nobody hears of it",
        "desk.rs",
        "self.tell(id, Event::Failed(Fault::Engine(heard.clone())));",
        "{}",
    ),
    (
        "forced tokens never run",
        "generate.rs",
        "self.scheduler.token(event.id);",
        "{}",
    ),
    (
        "the place of who has gone stays taken",
        "desk.rs",
        "self.clients.remove(&id);",
        "{}",
    ),
    (
        "an answer's last tokens are kept before they have run",
        "reuse.rs",
        "self.batch.seen(row).min(sequence.ids.len() - 1)",
        "sequence.ids.len() - 1",
    ),
    (
        "the newest prompt comes first",
        "scheduler.rs",
        "for entry in &mut self.running {",
        "let mut rows: Vec<&mut Entry> = self.running.iter_mut().collect();
        if PLANTED { rows.reverse(); }
        for entry in rows {",
    ),
    (
        "what was guessed wrongly stays in memory",
        "trial.rs",
        "generator.batch.go_back(piece.id, wrong)?;",
        "{}",
    ),
    (
        "a guess is believed",
        "trial.rs",
        "trial.guess.get(trial.drawn - 1) == Some(id)",
        "trial.guess.len() >= trial.drawn",
    ),
    (
        "random numbers of wrong guesses are used up",
        "trial.rs",
        "self.sampler = sampler.clone();",
        "self.sampler = trial.samplers.last().map_or(sampler, |last| last).clone();",
    ),
    (
        "tokens that were guessed are run again",
        "trial.rs",
        "entry.computed += tokens;",
        "{}",
    ),
];
