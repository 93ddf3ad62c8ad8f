//! The nodes of the tree of prefixes: when they were used, who may go, and where a prompt left the known way.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Context, Result};

use crate::prefix::{BLOCK, Prefixes};

pub(crate) type NodeId = u64;
pub(crate) const ROOT: NodeId = 0;

/// What is known of a block of tokens, after all those above it.
#[derive(Debug)]
pub(crate) struct Node<V> {
    pub(crate) parent: NodeId,
    pub(crate) tokens: [u32; BLOCK],
    pub(crate) children: BTreeMap<[u32; BLOCK], NodeId>,
    pub(crate) value: Option<V>,
    pub(crate) bytes: u64,
    pub(crate) used: u64,
    /// Who made it.
    pub(crate) by: u64,
    pub(crate) pin: Pin,
}

/// Keeps a node, and those above it, as long as it lives: a reference count that nobody can forget to lower.
#[derive(Debug, Clone, Default)]
pub struct Pin(Rc<()>);

impl Pin {
    /// How many there are of it besides this one.
    pub(crate) fn others(&self) -> usize {
        Rc::strong_count(&self.0) - 1
    }
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

/// All of a beginning, from the first token to a node without children.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) ids: Vec<u32>,
    nodes: Vec<NodeId>,
    /// Of all its values, those that it shares with others included.
    pub(crate) bytes: u64,
}

impl<V> Node<V> {
    /// Where all prompts begin.
    pub(crate) fn root() -> Self {
        Self {
            parent: ROOT,
            tokens: [0; BLOCK],
            children: BTreeMap::new(),
            value: None,
            bytes: 0,
            used: 0,
            by: 0,
            pin: Pin::default(),
        }
    }
}

impl<V: Clone> Prefixes<V> {
    /// What was used latest first.
    pub(crate) fn branches(&self) -> Vec<Branch> {
        let leaves = self.leaves.iter().rev();
        leaves.map(|(_, leaf)| self.branch(*leaf)).collect()
    }

    fn branch(&self, leaf: NodeId) -> Branch {
        let (mut nodes, mut at) = (Vec::new(), leaf);
        while let (true, Some(node)) = (at != ROOT, self.nodes.get(&at)) {
            nodes.push(at);
            at = node.parent;
        }
        nodes.reverse();
        let found = || nodes.iter().filter_map(|id| self.nodes.get(id));
        Branch {
            ids: found().flat_map(|node| node.tokens).collect(),
            bytes: found().map(|node| node.bytes).sum(),
            nodes,
        }
    }

    /// The values of a branch, from the first block on.
    pub(crate) fn values(&self, branch: &Branch) -> Vec<&V> {
        let nodes = branch.nodes.iter().filter_map(|id| self.nodes.get(id));
        nodes.filter_map(|node| node.value.as_ref()).collect()
    }

    pub(crate) fn touch(&mut self, id: NodeId) {
        self.clock += 1;
        if let Some(node) = self.nodes.get_mut(&id) {
            if self.leaves.remove(&(node.used, id)) {
                self.leaves.insert((self.clock, id));
            }
            node.used = self.clock;
        }
    }

    pub(crate) fn pin(&self, id: NodeId) -> Pin {
        self.nodes
            .get(&id)
            .map_or_else(Pin::default, |node| node.pin.clone())
    }

    /// Compares what is left of the tokens with the branch that agrees longest, the latest of several.
    pub(crate) fn missed(&self, end: NodeId, ids: &[u32], at: usize) -> Option<Missed> {
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
    pub(crate) fn make_room(&mut self, bytes: u64) -> bool {
        while self.bytes.saturating_add(bytes) > self.budget {
            let free = |(_, id): &&(u64, NodeId)| {
                let node = self.nodes.get(id);
                node.is_some_and(|node| node.pin.others() == 0)
            };
            let Some(oldest) = self.leaves.iter().find(free).copied() else {
                return false;
            };
            self.remove(oldest.1);
        }
        true
    }

    pub(crate) fn add(
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
            value,
            bytes,
            used,
            by,
            ..Node::root()
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
