//! The tree of prefixes against a plain list of them, and the cases that have gone wrong elsewhere.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::collections::BTreeMap;

use part6_pipeline::prefix::{BLOCK, Missed, Pin, Prefixes};
use proptest::prelude::*;

/// A value that says what it belongs to.
type Known = Vec<u32>;

fn insert(tree: &mut Prefixes<Known>, ids: &[u32], by: u64, bytes: u64) {
    let inserted = tree.insert(ids, by, |range| {
        let ends = range.step_by(BLOCK).map(|start| start + BLOCK);
        Ok(ends.map(|end| (Some(ids[..end].to_vec()), bytes)).collect())
    });
    inserted.unwrap();
}

/// How many tokens are known, each block by the value that belongs to it.
fn known(tree: &mut Prefixes<Known>, ids: &[u32]) -> usize {
    let found = tree.find(ids);
    for (number, value) in found.values.iter().enumerate() {
        let end = (number + 1) * BLOCK;
        assert_eq!(value.as_deref(), Some(&ids[..end]));
    }
    found.values.len() * BLOCK
}

fn ids(length: usize, seed: u32) -> Vec<u32> {
    (0..length as u32).map(|at| at * 7 + seed * 1000).collect()
}

#[test]
fn a_prefix_of_a_block_is_found_and_of_one_token_less_is_not() {
    for (inserted, asked, expected) in [
        (15, 64, 0),
        (16, 64, 16),
        (17, 64, 16),
        (31, 64, 16),
        (32, 64, 32),
        (64, 15, 0),
        (64, 16, 16),
        (64, 17, 16),
        (64, 0, 0),
    ] {
        let mut tree = Prefixes::new(1000);
        insert(&mut tree, &ids(inserted, 0), 1, 1);
        assert_eq!(
            known(&mut tree, &ids(asked, 0)),
            expected,
            "{inserted} {asked}"
        );
        assert_eq!(tree.bytes(), inserted as u64 / 16);
    }
}

#[test]
fn a_fork_at_any_token_is_found_up_to_the_block_before_it_and_told() {
    let old = ids(80, 0);
    for at in 0..80 {
        let mut tree = Prefixes::new(1000);
        insert(&mut tree, &old, 7, 1);
        let mut new = old.clone();
        new[at] = 5;
        new.truncate(70);
        let found = tree.find(&new);
        assert_eq!(found.values.len(), (at / BLOCK).min(4), "{at}");
        let missed = Missed {
            at,
            token: 5,
            other: old[at],
            by: 7,
        };
        assert_eq!(found.missed, (at < 70).then_some(missed));
        insert(&mut tree, &new, 8, 1);
        assert_eq!(known(&mut tree, &new), 64);
        assert_eq!(known(&mut tree, &old), 80);
        let mut third = old.clone();
        third[79] = 6; // nearer to the first one, unless both end alike
        let missed = tree.find(&third).missed.unwrap();
        assert_eq!((missed.at, missed.by), (79, 7));
    }
}

#[test]
fn the_same_prefix_twice_is_kept_once() {
    let mut tree = Prefixes::new(1000);
    // Both have missed, both run, both come with what they have computed.
    assert_eq!(known(&mut tree, &ids(50, 0)), 0);
    assert_eq!(known(&mut tree, &ids(50, 0)), 0);
    insert(&mut tree, &ids(50, 0), 1, 1);
    let nothing = tree.insert(&ids(50, 0), 2, |_| panic!("it is known"));
    nothing.unwrap();
    assert_eq!(tree.bytes(), 3);
}

#[test]
fn what_a_row_uses_stays_whatever_else_comes() {
    let mut tree = Prefixes::new(4);
    insert(&mut tree, &ids(32, 0), 1, 1);
    let used = tree.find(&ids(20, 0)); // its first block
    for seed in 1..20 {
        insert(&mut tree, &ids(64, seed), 1, 1);
        assert!(tree.bytes() <= 4);
        assert!(known(&mut tree, &ids(16, 0)) == 16);
        assert_eq!(
            known(&mut tree, &ids(64, seed)),
            48,
            "what there is room for"
        );
    }
    drop(used);
    insert(&mut tree, &ids(64, 30), 1, 1);
    assert_eq!(known(&mut tree, &ids(16, 0)), 0);
    assert_eq!(known(&mut tree, &ids(64, 30)), 64);
}

#[test]
fn more_than_the_budget_keeps_its_beginning_and_no_budget_keeps_nothing() {
    let mut tree = Prefixes::new(3);
    insert(&mut tree, &ids(100, 0), 1, 1);
    assert_eq!((known(&mut tree, &ids(100, 0)), tree.bytes()), (48, 3));
    let mut tree = Prefixes::new(0);
    insert(&mut tree, &ids(100, 0), 1, 1);
    assert_eq!((known(&mut tree, &ids(100, 0)), tree.bytes()), (0, 0));
}

#[test]
fn what_cannot_be_made_is_not_kept() {
    let mut tree: Prefixes<Known> = Prefixes::new(100);
    let failed = tree.insert(&ids(40, 0), 1, |_| anyhow::bail!("no memory"));
    assert!(failed.is_err());
    assert_eq!((known(&mut tree, &ids(40, 0)), tree.bytes()), (0, 0));
}

/// The same as a list: each known prefix with its bytes, and when it was used.
#[derive(Debug, Default)]
struct Plain {
    known: BTreeMap<Vec<u32>, (u64, u64)>,
    pins: BTreeMap<u64, Vec<u32>>,
    bytes: u64,
    clock: u64,
}

impl Plain {
    fn use_all(&mut self, ids: &[u32]) -> usize {
        let mut end = 0;
        while end + BLOCK <= ids.len() {
            let Some((_, used)) = self.known.get_mut(&ids[..end + BLOCK]) else {
                break;
            };
            self.clock += 1;
            *used = self.clock;
            end += BLOCK;
        }
        end
    }

    fn insert(&mut self, ids: &[u32], bytes: u64, budget: u64) {
        let mut end = self.use_all(ids);
        while end + BLOCK <= ids.len() {
            let grows = ids[..end].to_vec();
            while self.bytes + bytes > budget {
                let leaf = |prefix: &Vec<u32>| {
                    let longer =
                        |other: &&Vec<u32>| other.len() > prefix.len() && other.starts_with(prefix);
                    !self.known.keys().any(|other| longer(&other))
                };
                let free = |prefix: &Vec<u32>| {
                    *prefix != grows && !self.pins.values().any(|pinned| pinned == prefix)
                };
                let all = self.known.iter();
                let oldest = all
                    .filter(|(prefix, _)| leaf(prefix) && free(prefix))
                    .min_by_key(|(_, (_, used))| *used);
                let Some((oldest, _)) = oldest else { return };
                let oldest = oldest.clone();
                self.bytes -= self.known.remove(&oldest).unwrap().0;
            }
            end += BLOCK;
            self.clock += 1;
            self.bytes += bytes;
            self.known.insert(ids[..end].to_vec(), (bytes, self.clock));
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Insert(Vec<u32>, u64),
    /// And uses it from now on.
    Find(Vec<u32>),
    /// One of those that are used is used no more.
    End(usize),
}

/// Tokens whose blocks are few, so that many have the same beginning.
fn tokens() -> impl Strategy<Value = Vec<u32>> {
    let blocks = prop::collection::vec(0..3_u32, 0..6);
    (blocks, 0..BLOCK).prop_map(|(blocks, more)| {
        let token = |kind, at| {
            let differs = matches!((kind, at), (1, 3) | (2, 9));
            if differs { 99 } else { at }
        };
        let block = |kind: &u32| {
            let kind = *kind;
            (0..BLOCK as u32).map(move |at| token(kind, at))
        };
        let mut ids: Vec<u32> = blocks.iter().flat_map(block).collect();
        ids.extend(vec![0; more]);
        ids
    })
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (tokens(), 1..4_u64).prop_map(|(ids, bytes)| Act::Insert(ids, bytes)),
        tokens().prop_map(Act::Find),
        (0..100_usize).prop_map(Act::End),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_is_what_a_plain_list_would_be(acts in acts(), budget in 0..30_u64) {
        let mut tree = Prefixes::new(budget);
        let mut plain = Plain::default();
        let mut pins: BTreeMap<u64, Pin> = BTreeMap::new();
        for (number, act) in (0..).zip(acts) {
            match act {
                Act::Insert(ids, bytes) => {
                    insert(&mut tree, &ids, number, bytes);
                    plain.insert(&ids, bytes, budget);
                }
                Act::Find(ids) => {
                    let found = tree.find(&ids);
                    let end = plain.use_all(&ids);
                    prop_assert_eq!(found.values.len() * BLOCK, end);
                    for (at, value) in found.values.iter().enumerate() {
                        let prefix = &ids[..(at + 1) * BLOCK];
                        prop_assert_eq!(value.as_deref(), Some(prefix));
                    }
                    let agree = |other: &Vec<u32>| ids.iter().zip(other).take_while(|(a, b)| a == b).count();
                    let most = plain.known.keys().map(agree).max().unwrap_or(0);
                    if let Some(missed) = found.missed {
                        prop_assert_eq!(missed.at, most);
                        prop_assert_eq!(missed.token, ids[most]);
                        prop_assert!(missed.other != missed.token);
                    } else {
                        let longer = |other: &Vec<u32>| agree(other) == most && other.len() > most;
                        prop_assert!(most == ids.len() || !plain.known.keys().any(longer));
                    }
                    pins.insert(number, found.pin);
                    plain.pins.insert(number, ids[..end].to_vec());
                }
                Act::End(which) => {
                    let one = pins.keys().nth(which % pins.len().max(1)).copied();
                    if let Some(one) = one {
                        pins.remove(&one);
                        plain.pins.remove(&one);
                    }
                }
            }
            prop_assert_eq!(tree.bytes(), plain.bytes);
            prop_assert!(tree.bytes() <= budget);
        }
    }
}
