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

use anyhow::Result;

pub use crate::nodes::{Missed, Pin};
use crate::nodes::{Node, NodeId, ROOT};

/// Tokens of a node. Fewer would share more and make more, smaller arrays: 16 is vLLM's number.
pub const BLOCK: usize = 16;

/// Beginnings of prompts, and a value for each block of them.
///
/// # Cost
/// Looking up compares each token once. The bytes never exceed the budget: what was used longest ago goes, from the
/// ends of the branches inwards, except for what a row uses that runs now.
#[derive(Debug)]
pub struct Prefixes<V> {
    pub(crate) nodes: BTreeMap<NodeId, Node<V>>,
    /// Nodes without children, by when they were used.
    pub(crate) leaves: BTreeSet<(u64, NodeId)>,
    pub(crate) budget: u64,
    pub(crate) bytes: u64,
    /// Counts what happens, and so is the time, too.
    pub(crate) clock: u64,
}

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

impl<V: Clone> Prefixes<V> {
    /// Nothing is known yet, and at most so many bytes will be kept.
    pub fn new(budget: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::root())]),
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
}
