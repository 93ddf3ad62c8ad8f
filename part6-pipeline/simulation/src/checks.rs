//! What must hold after each step.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use crate::alone::Alone;
use crate::engine::Engine;
use crate::handle::Handle;
use crate::limits::Memory;
use crate::model::LAYERS;
use crate::nodes::{NodeId, ROOT};
use crate::plan::SequenceId;
use crate::prefix::{BLOCK, Prefixes};
use crate::{Array, books};

/// What is remembered from one step to the next.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) steps: usize,
    /// When each request has to have ended.
    deadlines: BTreeMap<SequenceId, usize>,
    /// Those that have looked their prompt up.
    found: BTreeSet<SequenceId>,
    /// Of the tree, at the last step.
    clock: u64,
}

impl Checks {
    /// After a step.
    pub(crate) fn step(&mut self, engine: &mut Engine<'_>, handle: &Handle) -> Result<()> {
        self.steps += 1;
        rows(engine, handle)?;
        self.starvation(engine)?;
        self.tree(engine)
    }

    /// Those that came first end after a number of steps that is known when they come.
    fn starvation(&mut self, engine: &Engine<'_>) -> Result<()> {
        let scheduler = engine.generator.scheduler();
        let limits = scheduler.limits();
        let cost = |entry: &books::Entry| {
            let answer = limits.decodes_per_piece * (entry.most - entry.prompt);
            limits.prompt_steps(entry.most) + answer + 2
        };
        let mut all: Vec<&books::Entry> =
            scheduler.running.iter().chain(&scheduler.waiting).collect();
        all.sort_by_key(|entry| entry.id);
        let mut sum = 0;
        for entry in &all {
            sum += cost(entry);
            let deadline = *self.deadlines.entry(entry.id).or_insert(self.steps + sum);
            ensure!(
                self.steps <= deadline,
                "request {} should have ended {} steps ago",
                entry.id.0,
                self.steps - deadline
            );
        }
        Ok(())
    }

    /// The tree of prefixes is a tree, within its budget, and has all that is in use.
    fn tree(&mut self, engine: &mut Engine<'_>) -> Result<()> {
        let scheduler = engine.generator.scheduler();
        let entries = scheduler.running.iter().chain(&scheduler.waiting);
        let prompts: Vec<(SequenceId, usize)> =
            entries.map(|entry| (entry.id, entry.prompt)).collect();
        let (mut pins, mut used) = (0, Vec::new());
        for (id, prompt) in prompts {
            let sequence = engine
                .generator
                .sequence(id)
                .context("a row without a request")?;
            if sequence.pin.is_some() {
                pins += 1;
                if self.found.insert(id) {
                    used.push(sequence.ids[..prompt - 1].to_vec());
                }
            }
        }
        let tree = &engine.generator.known().tree;
        for ids in used {
            let mut at = ROOT;
            for block in ids.as_chunks::<BLOCK>().0 {
                let Some(child) = tree
                    .nodes
                    .get(&at)
                    .and_then(|node| node.children.get(block))
                else {
                    break;
                };
                at = *child;
                let node = tree.nodes.get(&at).context("a child that is not there")?;
                ensure!(
                    node.used > self.clock,
                    "block {at} is used, and looks as if it were not"
                );
            }
        }
        self.clock = tree.clock;
        whole(tree)?;
        let held: usize = tree.nodes.values().map(|node| node.pin.others()).sum();
        ensure!(
            held == pins,
            "{pins} requests use the tree, and {held} uses are in it"
        );
        Ok(())
    }
}

/// Whoever has a row is somebody's, and has memory.
fn rows(engine: &Engine<'_>, handle: &Handle) -> Result<()> {
    let scheduler = engine.generator.scheduler();
    let limits = scheduler.limits();
    let (running, used) = (scheduler.running(), scheduler.kv_tokens_used());
    ensure!(running <= limits.rows, "{running} rows");
    ensure!(
        used <= limits.kv_tokens,
        "{used} positions of {}",
        limits.kv_tokens
    );
    let promised = scheduler.promised();
    let kept = limits.memory == Memory::Preempt || promised <= limits.kv_tokens;
    ensure!(kept, "{promised} positions are promised");
    let entries = scheduler.running.iter().chain(&scheduler.waiting);
    let known: BTreeSet<SequenceId> = entries.map(|entry| entry.id).collect();
    let wanted: BTreeSet<SequenceId> = engine.answers.keys().copied().collect();
    ensure!(
        known == wanted,
        "{known:?} are scheduled, {wanted:?} are wanted"
    );
    let in_line = |pair: &[&books::Entry]| pair[0].id < pair[1].id;
    let line: Vec<&books::Entry> = scheduler.running.iter().chain(&scheduler.waiting).collect();
    ensure!(
        line.windows(2).all(in_line),
        "somebody came before somebody older"
    );
    let rows: BTreeSet<SequenceId> = engine.generator.batch().rows().iter().copied().collect();
    ensure!(
        rows.len() == engine.generator.batch().rows().len(),
        "a request has two rows"
    );
    // One that was preempted leaves with the next step, if this one's ids are still on their way.
    ensure!(rows.is_subset(&wanted), "a row of nobody");
    let asked = |(ask, _): &(u64, usize)| engine.asks.contains_key(ask);
    ensure!(engine.answers.values().all(asked), "an answer to nobody");
    let status = handle.status();
    ensure!(
        (status.running, status.waiting, status.kv_tokens) == (running, scheduler.waiting(), used),
        "the status says {status:?}"
    );
    Ok(())
}

/// Nodes, children, leaves and bytes agree.
fn whole(tree: &Prefixes<Vec<Array>>) -> Result<()> {
    let bytes: u64 = tree.nodes.values().map(|node| node.bytes).sum();
    ensure!(
        bytes == tree.bytes(),
        "{bytes} bytes are in the tree, it says {}",
        tree.bytes()
    );
    ensure!(bytes <= tree.budget, "{bytes} bytes of {}", tree.budget);
    let mut leaves = 0;
    for (id, node) in &tree.nodes {
        if *id == ROOT {
            continue;
        }
        let parent = tree
            .nodes
            .get(&node.parent)
            .context("a block without a beginning")?;
        ensure!(
            parent.children.get(&node.tokens) == Some(id),
            "block {id} is not its parent's"
        );
        if node.children.is_empty() {
            leaves += 1;
            ensure!(
                tree.leaves.contains(&(node.used, *id)),
                "block {id} can never go"
            );
        }
        let own: u64 = node
            .value
            .iter()
            .flatten()
            .map(|array| array.nbytes() as u64)
            .sum();
        ensure!(
            own == node.bytes,
            "block {id} has {own} bytes, and says {}",
            node.bytes
        );
    }
    ensure!(
        tree.leaves.len() == leaves,
        "{} may go, {leaves} are leaves",
        tree.leaves.len()
    );
    Ok(())
}

/// Nobody asks any more.
pub(crate) fn end(engine: &Engine<'_>, handle: &Handle, forgets: bool) -> Result<()> {
    ensure!(
        engine.asks.is_empty() && engine.answers.is_empty(),
        "asks of nobody are left"
    );
    let generator = &engine.generator;
    ensure!(
        generator.scheduler().is_idle(),
        "requests of nobody are scheduled"
    );
    ensure!(
        generator.batch().rows().is_empty(),
        "rows of nobody are left"
    );
    ensure!(
        generator.batch().cache().arrays().next().is_none(),
        "memory of no row is left"
    );
    let status = handle.status();
    let left = (status.running, status.waiting, status.kv_tokens);
    ensure!(left == (0, 0, 0), "the status says {status:?}");
    let tree = &generator.known().tree;
    let mut uses = tree.nodes.values().map(|node| node.pin.others());
    ensure!(uses.all(|uses| uses == 0), "what nobody uses cannot go");
    if forgets {
        Ok(())
    } else {
        values(tree, ROOT, &mut Vec::new())
    }
}

/// Each block has the keys and values of its tokens after those before it.
fn values(tree: &Prefixes<Vec<Array>>, at: NodeId, before: &mut Vec<u32>) -> Result<()> {
    let node = tree.nodes.get(&at).context("a child that is not there")?;
    for (tokens, child) in &node.children {
        let start = before.len();
        before.extend(tokens);
        let mut alone = Alone::new(None);
        let pairs: Vec<_> = before
            .iter()
            .map(|id| alone.push(*id).1)
            .skip(start)
            .collect();
        let layer = |number: usize| pairs.iter().map(move |pair| pair[number]);
        let all: Vec<(u32, u32)> = (0..LAYERS).flat_map(layer).collect();
        let keys: Vec<u32> = all.iter().map(|(key, _)| *key).collect();
        let values_: Vec<u32> = all.iter().map(|(_, value)| *value).collect();
        let value = tree.nodes.get(child).and_then(|node| node.value.as_ref());
        let value = value.context("a block without a value")?;
        let stored: Vec<&[u32]> = value.iter().map(Array::numbers).collect();
        ensure!(
            stored == [&keys[..], &values_[..]],
            "block {child} has what is another one's"
        );
        values(tree, *child, before)?;
        before.truncate(start);
    }
    Ok(())
}
