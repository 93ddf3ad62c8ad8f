//! Answers that were served, run again: `serve --record FILE` writes each of them with all that it depends on, and
//! `replay FILE` says whether the same comes out, bit for bit.
//!
//! In f32 an answer depends on its ask and the model alone. In 16-bit types it depends on who was in the batch, too: so
//! those that had rows at the same time are asked at the same time again. That is not yet the very same steps: a client
//! that came while another one was at its tenth token comes at its first now. A production system that must be able to
//! tell writes down each step, or computes in a way that does not depend on the batch.

mod record;
mod recorder;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use console::files;
use console::report::{tell, warn};
use shared::machine::versions;
use tokio::runtime::Builder;

use crate::ask::{Ask, Event};
use crate::engine::Engine;
use crate::handle::{Answer, Handle, State};
use crate::speculate::Speculation;
use crate::thread::{Running, Settings};

use record::hear;
pub use record::{Answered, Asked, Facts, Record, Token};
pub use recorder::Recorder;

/// Runs again what `serve --record FILE` has written, and says whether the answers are the same
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// What was written
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Bytes of a line. What is larger was written by somebody else.
const LONGEST: u64 = 256 << 20;
/// Answers to one ask.
const MOST_ANSWERS: usize = 128;

/// Runs all of them again.
///
/// # Errors
/// If the file has none, if an engine cannot be started, and if an answer is another one.
pub fn run(args: &ReplayArgs) -> Result<()> {
    let records = read(&args.file)?;
    let count = records.len();
    let (mut others, mut engines) = (0, Vec::<(Facts, Vec<Record>)>::new());
    for record in records {
        match engines.last_mut() {
            Some((facts, records)) if *facts == record.engine => records.push(record),
            _ => engines.push((record.engine.clone(), vec![record])),
        }
    }
    for (facts, records) in engines {
        others += of_engine(&facts, records)?;
    }
    if others > 0 {
        bail!("{others} of {count} answers are not the same");
    }
    tell(&format!("all {count} answers are the same, bit for bit"));
    Ok(())
}

/// The records of a file, in the order in which they were asked.
pub(crate) fn read(path: &Path) -> Result<Vec<Record>> {
    let what = || format!("reading the record {}", path.display());
    let mut reader = BufReader::new(files::open(path)?);
    let (mut records, mut unread) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        let mut limited = reader.by_ref().take(LONGEST);
        if limited.read_until(b'\n', &mut line).with_context(what)? == 0 {
            break;
        }
        ensure!(
            line.len() < LONGEST as usize,
            "{}: a line has no end",
            what()
        );
        match serde_json::from_slice::<Record>(&line) {
            Ok(record) => records.push(record),
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(error) if unread == 0 => {
                warn(&format!("line {} is no record: {error}", records.len() + 1));
                unread += 1;
            }
            Err(_) => unread += 1,
        }
    }
    ensure!(
        !records.is_empty(),
        "{} has no record of an answer, but {unread} other lines: `serve --record FILE` writes them",
        path.display()
    );
    if unread > 0 {
        warn(&format!(
            "{unread} lines were read past: a process that is killed leaves half a line"
        ));
    }
    // Of one server, as long as it is the same one.
    let mut from = 0;
    for end in 1..=records.len() {
        if records
            .get(end)
            .is_none_or(|next| next.engine != records[from].engine)
        {
            records[from..end].sort_by_key(|record| record.id);
            from = end;
        }
    }
    Ok(records)
}

/// How many of the answers of one engine are others now.
fn of_engine(facts: &Facts, records: Vec<Record>) -> Result<usize> {
    let now = Facts::new(&facts.model_args()?, &facts.limits, versions()?);
    if now != *facts {
        warn("other versions have answered then: what differs may be theirs");
    }
    let limits = facts.limits.limits();
    let running = Engine::spawn(Settings {
        model: facts.model_args()?,
        limits,
        kind: facts.limits.kind(),
        prefix_bytes: facts.limits.prefix_mb.saturating_mul(1_000_000),
        prefix_folder: None,
        most_waiting: records.len().max(1),
        speculation: Speculation::default(), // it changes no token
    })?;
    wait(&running)?;
    let mut others = 0;
    for group in groups(records) {
        others += together(&running.handle, &group)?;
    }
    running.end()?;
    Ok(others)
}

fn wait(running: &Running) -> Result<()> {
    let runtime = Builder::new_current_thread().build();
    let runtime = runtime.context("waiting for the engine")?;
    let mut handle = running.handle.clone();
    match runtime.block_on(handle.loaded()) {
        State::Dead(why) => bail!("{why}"),
        _ => Ok(()),
    }
}

/// Those that ran beside each other, or beside others of the same group.
fn groups(records: Vec<Record>) -> Vec<Vec<Record>> {
    let mut groups: Vec<(BTreeSet<u64>, Vec<Record>)> = Vec::new();
    for record in records {
        let mut ids: BTreeSet<u64> = record.beside.iter().copied().collect();
        ids.insert(record.id);
        match groups.last_mut() {
            // They are sorted, and a row is taken in the order of arrival.
            Some((known, group)) if !known.is_disjoint(&ids) => {
                known.extend(ids);
                group.push(record);
            }
            _ => groups.push((ids, vec![record])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn together(handle: &Handle, group: &[Record]) -> Result<usize> {
    let submit = |record: &Record| {
        let ask = Ask::from(&record.ask);
        ensure!(
            ask.n <= MOST_ANSWERS,
            "ask {}: {} answers are too many",
            record.id,
            ask.n
        );
        let answer = handle.submit(ask);
        answer.map_err(|why| anyhow::anyhow!("ask {} was not taken: {why:?}", record.id))
    };
    let answers: Vec<Answer> = group.iter().map(submit).collect::<Result<_>>()?;
    let mut others = 0;
    for (record, mut answer) in group.iter().zip(answers) {
        let verdict = match listen(&mut answer, record.ask.n) {
            Ok((prompt, answers)) => difference(record, &prompt, &answers),
            Err(why) => Some(format!("{why:#}")),
        };
        let tokens: usize = record
            .answers
            .iter()
            .map(|answer| answer.tokens.len())
            .sum();
        let beside = record.beside.len();
        match verdict {
            None => tell(&format!(
                "ask {}: the same, {tokens} tokens, beside {beside} others",
                record.id
            )),
            Some(why) => {
                others += 1;
                tell(&format!(
                    "ask {}: another answer, beside {beside} others: {why}",
                    record.id
                ));
            }
        }
    }
    Ok(others)
}

/// All that comes of an ask for so many answers: of its prompt, and they.
fn listen(answer: &mut Answer, answers: usize) -> Result<(Vec<Token>, Vec<Answered>)> {
    let (mut prompt, mut all) = (Vec::new(), vec![Answered::default(); answers]);
    while let Some(event) = answer.blocking_next() {
        if let Event::Failed(why) = event {
            bail!("{why}");
        }
        hear(&event, &mut prompt, &mut all);
    }
    Ok((prompt, all))
}

/// Where the answers are others, if they are.
fn difference(record: &Record, prompt: &[Token], answers: &[Answered]) -> Option<String> {
    if record.prompt != prompt {
        return Some("the tokens of its prompt are not as likely as they were".to_owned());
    }
    if record.answers.len() != answers.len() {
        return Some(format!("there are {} answers", answers.len()));
    }
    let mut pairs = record.answers.iter().zip(answers).enumerate();
    let (choice, (then, now)) = pairs.find(|(_, (then, now))| then != now)?;
    let ids = |answer: &Answered| answer.tokens.iter().map(Token::id).collect::<Vec<_>>();
    let (before, after) = (ids(then), ids(now));
    let same = before
        .iter()
        .zip(&after)
        .take_while(|(a, b)| a == b)
        .count();
    Some(if before != after {
        format!("answer {choice} differs from token {} on", same + 1)
    } else if then.text != now.text || then.reason != now.reason || then.stop != now.stop {
        format!("answer {choice} has the same tokens, but another text or end")
    } else {
        format!("answer {choice} has the same tokens, but they are not as likely as they were")
    })
}
