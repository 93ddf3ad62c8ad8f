//! A hundred thousand schedules, in none of which anything goes wrong, and faults that are all found.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use simulation::world::{Stage, Tally};
use simulation::{PLANTS, plant, run};

/// How many schedules are tried, or the one of which the seed is given.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| Some(env::var(name).ok()?.parse::<u64>().unwrap());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SCHEDULES").unwrap_or(count),
    }
}

/// Runs schedules on all cores until one fails: how many have run, and of the first that failed why.
fn all(seeds: std::ops::Range<u64>, fault: &'static str) -> Result<Tally, (u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let work = || {
        plant(fault);
        let stage = Stage::new().unwrap();
        let (mut tally, mut why) = (Tally::default(), None);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || seed > failed.load(Ordering::Relaxed) {
                return (tally, why);
            }
            match run(seed, &stage) {
                Ok(one) => tally += one,
                Err(error) => {
                    failed.fetch_min(seed, Ordering::Relaxed);
                    why = Some((seed, format!("{error:#}")));
                    return (tally, why);
                }
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let ended: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut tally = Tally::default();
    ended.iter().for_each(|(one, _)| tally += *one);
    match ended.into_iter().filter_map(|(_, why)| why).min() {
        Some(why) => Err(why),
        None => Ok(tally),
    }
}

#[test]
fn whatever_clients_do_the_engine_keeps_its_promises() {
    let seeds = seeds(100_000);
    let count = seeds.end - seeds.start;
    match all(seeds, "") {
        Ok(tally) => {
            println!("{count} schedules: {tally:?}");
            if count >= 1000 {
                let seen = [tally.answers, tally.left, tally.failed, tally.died];
                assert!(
                    seen.iter().all(|seen| *seen > count as usize / 50),
                    "{tally:?}"
                );
                assert!(
                    tally.preempted > count / 100 && tally.cached > count,
                    "{tally:?}"
                );
            }
        }
        Err((seed, why)) => {
            panic!("{why}\nthe same once more: SEED={seed} cargo test -p simulation")
        }
    }
}

#[test]
fn faults_that_other_engines_had_are_all_found() {
    if env::var("SEED").is_ok() {
        return;
    }
    let mut missed = Vec::new();
    for (name, file, ..) in PLANTS {
        match all(0..20_000, name) {
            Err((seed, why)) => println!("{file}: {name}: found by seed {seed}: {why}"),
            Ok(_) => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
