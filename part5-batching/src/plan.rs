//! One step as the scheduler has planned it, with its reasons.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// A request's number. Who comes later has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// One step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows that gave their memory back. They come again by themselves, from position 0.
    pub preempted: Vec<SequenceId>,
    /// What is run, in order of arrival, at most one piece of a request.
    pub pieces: Vec<Piece>,
    /// Rows that have to sit out this step.
    pub held: Vec<(SequenceId, Why)>,
    /// Why the first of the queue has no row. All others are behind it.
    pub queue: Option<Why>,
    /// When to ask again, if nothing happens before: a batch begins then.
    pub wake: Option<Duration>,
}

impl Plan {
    /// Whether it is the next token of each of these rows, and nothing else.
    pub(crate) fn only_decodes(&self, rows: &[SequenceId]) -> bool {
        self.preempted.is_empty()
            && !self.pieces.is_empty()
            && self.pieces.len() == rows.len()
            && self.pieces.iter().all(|piece| rows.contains(&piece.id))
    }
}

/// What a step runs of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whose.
    pub id: SequenceId,
    /// Its tokens, counted from the first of its prompt.
    pub range: Range<usize>,
    /// Whether all its tokens are computed then, so that the logits of the last one give the next.
    pub last: bool,
    /// Why it is run now.
    pub why: Why,
}

/// The reason for what the scheduler did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// A piece: the newest token of an answer.
    Decode,
    /// A piece: of a prompt.
    Prompt,
    /// A piece: of what was in memory before.
    Again,
    /// A row sits out: this step is for answers.
    DecodesFirst,
    /// A row sits out: older rows take all tokens of the step.
    StepFull,
    /// No row.
    RowsTaken,
    /// No memory.
    MemoryTaken,
    /// No row: the batch that runs takes nobody in.
    BatchRuns,
    /// No row: the batch waits for more requests.
    BatchFills,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode => "decodes: the next token of its answer",
            Self::Prompt => "reads its prompt",
            Self::Again => "computes again what it lost",
            Self::DecodesFirst => "sits out: this step is for answers",
            Self::StepFull => "sits out: older requests take all tokens of the step",
            Self::RowsTaken => "waits: no row is free",
            Self::MemoryTaken => "waits: not enough memory is free",
            Self::BatchRuns => "waits: the batch that runs takes nobody in",
            Self::BatchFills => "waits: the batch waits for more requests",
        })
    }
}
