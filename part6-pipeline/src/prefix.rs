//! Prompts that begin like an earlier one: a tree over tokens, and in its nodes what they were computed to.
//!
//! A chat's second turn begins with all of the first, and every chat of an application with the same instructions.
//! Causal attention makes the keys and values of a token depend on the tokens before it alone, so those of a common
//! beginning are the same numbers. The tree has a node for each block of tokens: whoever comes goes down as far as it
//! agrees, and runs the rest.
//!
//! Nothing of MLX is in it: a value can be anything. So a simulation runs this very code.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use anyhow::{Context, Result};

/// Tokens of a node. Fewer would share more and make more, smaller arrays: 16 is vLLM's number.
pub const BLOCK: usize = 16;

/// Beginnings of prompts, and a value for each block of them.
///
/// # Cost
/// Looking up compares each token once. The bytes never exceed the budget: what was used longest ago goes, from the
/// ends of the branches inwards, except for what a row uses that runs now.
#[derive(Debug)]
pub struct Prefixes<V> {
    nodes: BTreeMap<NodeId, Node<V>>,
    /// Nodes without children, by when they were used.
    leaves: BTreeSet<(u64, NodeId)>,
    budget: u64,
    bytes: u64,
    /// Counts what happens, and so is the time, too.
    clock: u64,
}

type NodeId = u64;
const ROOT: NodeId = 0;

#[derive(Debug)]
struct Node<V> {
    parent: NodeId,
    tokens: [u32; BLOCK],
    children: BTreeMap<[u32; BLOCK], NodeId>,
    value: Option<V>,
    bytes: u64,
    used: u64,
    /// Who made it.
    by: u64,
    pin: Pin,
}

/// Keeps a node, and those above it, as long as it lives: a reference count that nobody can forget to lower.
#[derive(Debug, Clone, Default)]
pub struct Pin(Rc<()>);

/// How far a prompt is known.
#[derive(Debug)]
pub struct Found<V> {
    /// The value of each block, from the first one on.
    pub values: Vec<Option<V>>,
    /// Keeps them in the tree.
    pub pin: Pin,
    /// Why it is not known any further, if something else is.
    pub missed: Option<Missed>,
}

/// The first token of a prompt that is not that of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// Tokens that agree.
    pub at: usize,
    /// The one that came now.
    pub token: u32,
    /// The one that came then.
    pub other: u32,
    /// Who made the other branch.
    pub by: u64,
}

impl<V: Clone> Prefixes<V> {
    /// Nothing is known yet, and at most so many bytes will be kept.
    pub fn new(budget: u64) -> Self {
        let root = Node {
            parent: ROOT,
            tokens: [0; BLOCK],
            children: BTreeMap::new(),
            value: None,
            bytes: 0,
            used: 0,
            by: 0,
            pin: Pin::default(),
        };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            leaves: BTreeSet::new(),
            budget,
            bytes: 0,
            clock: ROOT,
        }
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is known of the whole blocks of these tokens.
    pub fn find(&mut self, ids: &[u32]) -> Found<V> {
        let path = self.walk(ids);
        let end = path.last().copied().unwrap_or(ROOT);
        let values = path.iter().filter_map(|node| self.nodes.get(node));
        Found {
            values: values.map(|node| node.value.clone()).collect(),
            pin: self.pin(end),
            missed: self.missed(end, ids, path.len() * BLOCK),
        }
    }

    /// Keeps what is not known yet of the whole blocks of these tokens. `values` makes it, for a range of tokens, each
    /// with its bytes; blocks for which there is no room are not kept.
    pub fn insert(
        &mut self,
        ids: &[u32],
        by: u64,
        values: impl FnOnce(Range<usize>) -> Result<Vec<(Option<V>, u64)>>,
    ) -> Result<()> {
        let mut path = self.walk(ids);
        let last = path.last().and_then(|node| self.nodes.get(node));
        if last.is_some_and(|node| node.value.is_none()) {
            path.pop(); // so far it only leads to others
        }
        let (known, end) = (path.len() * BLOCK, ids.len() - ids.len() % BLOCK);
        if known == end {
            return Ok(());
        }
        let mut parent = path.last().copied().unwrap_or(ROOT);
        let values = values(known..end)?;
        for (tokens, (value, bytes)) in ids[known..end].as_chunks().0.iter().zip(values) {
            // The branch that grows must not be cut for its own next block.
            let _grows = self.pin(parent);
            if !self.make_room(bytes) {
                break;
            }
            parent = self.add(parent, *tokens, value, bytes, by)?;
        }
        Ok(())
    }

    /// The nodes of these tokens, which are used now.
    fn walk(&mut self, ids: &[u32]) -> Vec<NodeId> {
        let (mut path, mut at) = (Vec::new(), ROOT);
        for tokens in ids.as_chunks().0 {
            let child = self
                .nodes
                .get(&at)
                .and_then(|node| node.children.get(tokens));
            let Some(child) = child.copied() else { break };
            self.touch(child);
            path.push(child);
            at = child;
        }
        path
    }

    fn touch(&mut self, id: NodeId) {
        self.clock += 1;
        if let Some(node) = self.nodes.get_mut(&id) {
            if self.leaves.remove(&(node.used, id)) {
                self.leaves.insert((self.clock, id));
            }
            node.used = self.clock;
        }
    }

    fn pin(&self, id: NodeId) -> Pin {
        self.nodes
            .get(&id)
            .map_or_else(Pin::default, |node| node.pin.clone())
    }

    /// Compares what is left of the tokens with the branch that agrees longest, the latest of several.
    fn missed(&self, end: NodeId, ids: &[u32], at: usize) -> Option<Missed> {
        let rest = &ids[at..];
        let common = |node: &&Node<V>| {
            let pairs = node.tokens.iter().zip(rest);
            pairs.take_while(|(other, token)| other == token).count()
        };
        let children = self.nodes.get(&end)?.children.values();
        let nodes = children.filter_map(|id| self.nodes.get(id));
        let nearest = nodes.max_by_key(|node| (common(node), node.used))?;
        let common = common(&nearest);
        Some(Missed {
            at: at + common,
            token: *rest.get(common)?,
            other: *nearest.tokens.get(common)?,
            by: nearest.by,
        })
    }

    /// Whether so many bytes more are within the budget, once everything has gone that may.
    fn make_room(&mut self, bytes: u64) -> bool {
        while self.bytes.saturating_add(bytes) > self.budget {
            let free = |(_, id): &&(u64, NodeId)| {
                let node = self.nodes.get(id);
                node.is_some_and(|node| Rc::strong_count(&node.pin.0) == 1)
            };
            let Some(oldest) = self.leaves.iter().find(free).copied() else {
                return false;
            };
            self.remove(oldest.1);
        }
        true
    }

    fn add(
        &mut self,
        parent: NodeId,
        tokens: [u32; BLOCK],
        value: Option<V>,
        bytes: u64,
        by: u64,
    ) -> Result<NodeId> {
        self.clock += 1;
        let (id, used) = (self.clock, self.clock);
        let above = self.nodes.get_mut(&parent);
        let above = above.context("a block whose beginning is not known")?;
        let there = above.children.get(&tokens).copied();
        above.children.entry(tokens).or_insert(id);
        self.leaves.remove(&(above.used, parent));
        self.bytes += bytes;
        if let Some((there, node)) = there.and_then(|id| Some((id, self.nodes.get_mut(&id)?))) {
            (node.value, node.bytes) = (value, bytes);
            return Ok(there);
        }
        self.leaves.insert((used, id));
        let node = Node {
            parent,
            tokens,
            children: BTreeMap::new(),
            value,
            bytes,
            used,
            by,
            pin: Pin::default(),
        };
        self.nodes.insert(id, node);
        Ok(id)
    }

    /// Forgets a node without children, and makes its parent one of these if it was the last child.
    fn remove(&mut self, id: NodeId) {
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        self.leaves.remove(&(node.used, id));
        self.bytes -= node.bytes;
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.children.remove(&node.tokens);
            if parent.children.is_empty() && node.parent != ROOT {
                self.leaves.insert((parent.used, node.parent));
            }
        }
    }
}
