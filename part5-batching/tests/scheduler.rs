//! What the scheduler promises, held against requests, limits and interruptions at random.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use part5_batching::scheduler::{Limits, Memory, Plan, Policy, Scheduler, SequenceId, Why};
use proptest::prelude::*;

const TICK: Duration = Duration::from_millis(10);

/// One request of a run.
#[derive(Debug, Clone)]
struct Asked {
    prompt: usize,
    max_tokens: usize,
    /// Tokens after which its answer ends, at most `max_tokens`.
    answer: usize,
    /// The turn at which it arrives.
    arrives: usize,
    /// The turn at which its client goes away.
    leaves: Option<usize>,
    /// First positions that a cache has, each time that it is about to get a row.
    known: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    Left,
    Refused,
}

/// What is known of a request from outside.
#[derive(Debug, Clone)]
struct Seen {
    asked: Asked,
    tokens: usize,
    /// What it has, or will have as soon as it has a row.
    computed: usize,
    has_row: bool,
    /// Whether all that it had when it got its row has been read.
    decodes: bool,
    submitted: usize,
    end: Option<End>,
    ended: usize,
}

/// A scheduler, and a caller who believes nothing that it says.
struct Run {
    limits: Limits,
    scheduler: Scheduler,
    seen: BTreeMap<SequenceId, Seen>,
    plans: Vec<Plan>,
    /// Plans with something to run.
    steps: usize,
    since_prompt: Option<usize>,
    /// The oldest prompt with a row, and the most steps that it may still take.
    head: Option<(SequenceId, usize)>,
}

impl Run {
    fn of(limits: &Limits, asked: &[Asked]) -> Self {
        let mut run = Self {
            limits: limits.clone(),
            scheduler: Scheduler::new(limits.clone()).expect("limits that make sense"),
            seen: BTreeMap::new(),
            plans: Vec::new(),
            steps: 0,
            since_prompt: None,
            head: None,
        };
        let last = asked.iter().map(|asked| asked.arrives).max().unwrap_or(0);
        for turn in 0.. {
            run.interrupt(turn);
            run.arrive(turn, asked);
            if turn == last {
                run.scheduler.close();
            }
            if turn >= last && run.scheduler.is_idle() {
                break;
            }
            run.step(turn);
            assert!(turn < 200_000, "it never ends: {:?}", run.seen);
        }
        run
    }

    fn arrive(&mut self, turn: usize, asked: &[Asked]) {
        for (id, asked) in asked
            .iter()
            .enumerate()
            .filter(|(_, asked)| asked.arrives == turn)
        {
            let id = SequenceId(id as u64);
            let fits = asked.prompt + asked.max_tokens <= self.limits.kv_tokens;
            let now = TICK * turn as u32;
            let submitted = self
                .scheduler
                .submit(id, asked.prompt, asked.max_tokens, now);
            assert_eq!(submitted.is_ok(), fits);
            let seen = Seen {
                asked: asked.clone(),
                tokens: asked.prompt,
                computed: 0,
                has_row: false,
                decodes: false,
                submitted: self.steps,
                end: (!fits).then_some(End::Refused),
                ended: self.steps,
            };
            self.seen.insert(id, seen);
        }
    }

    fn interrupt(&mut self, turn: usize) {
        let leaves = |seen: &Seen| seen.asked.leaves.is_some_and(|leaves| leaves <= turn);
        let open = self
            .seen
            .iter()
            .filter(|(_, seen)| seen.end.is_none() && leaves(seen));
        let leaving: Vec<(SequenceId, bool)> = open.map(|(&id, seen)| (id, seen.has_row)).collect();
        for (id, had_row) in leaving {
            let (rows, waiting) = (self.scheduler.running(), self.scheduler.waiting());
            self.scheduler.end(id);
            let (rows, waiting) = (
                rows - self.scheduler.running(),
                waiting - self.scheduler.waiting(),
            );
            assert_eq!((rows, waiting), if had_row { (1, 0) } else { (0, 1) });
            self.end(id, End::Left);
        }
    }

    fn known(&mut self, id: SequenceId) -> &mut Seen {
        self.seen.get_mut(&id).expect("a request of this run")
    }

    fn end(&mut self, id: SequenceId, end: End) {
        let steps = self.steps;
        let seen = self.known(id);
        assert_eq!(seen.end, None, "{id:?} ends twice");
        (seen.end, seen.ended) = (Some(end), steps);
        (seen.has_row, seen.computed) = (false, 0);
    }

    fn step(&mut self, turn: usize) {
        let decodes = |seen: &Seen| seen.has_row && seen.computed + 1 == seen.tokens;
        let decoding = self.seen.iter().filter(|(_, seen)| decodes(seen));
        let decoding: Vec<SequenceId> = decoding.map(|(&id, _)| id).collect();
        let next = self.look_up();
        let plan = self.scheduler.plan(TICK * turn as u32);
        for id in &plan.preempted {
            let seen = self.known(*id);
            assert!(seen.has_row);
            (seen.computed, seen.has_row, seen.decodes) = (0, false, false);
        }
        let decoding: Vec<_> = decoding
            .into_iter()
            .filter(|id| !plan.preempted.contains(id))
            .collect();
        let stayed = self.seen.values().filter(|seen| seen.has_row).count();
        let new = self.scheduler.running() - stayed;
        assert!(new <= next.len(), "{new} of {next:?}");
        self.answers_go_on(&decoding, &plan);
        self.tokens_keep_their_order(&plan);
        self.budgets_hold(&plan);
        self.prompts_take_turns(&plan, !decoding.is_empty());
        self.steps += usize::from(!plan.pieces.is_empty());
        self.the_oldest_prompt_gets_on();
        for piece in plan.pieces.iter().filter(|piece| piece.last) {
            self.scheduler.token(piece.id);
            let seen = self.known(piece.id);
            seen.tokens += 1;
            if seen.tokens == seen.asked.prompt + seen.asked.answer {
                self.scheduler.end(piece.id);
                self.end(piece.id, End::Answered);
            }
        }
        self.plans.push(plan);
    }

    /// Tells what a cache has for those who are next.
    fn look_up(&mut self) -> Vec<SequenceId> {
        let next: Vec<SequenceId> = self.scheduler.next_in_line().collect();
        for &id in &next {
            let seen = self.known(id);
            assert!(!seen.has_row && seen.end.is_none());
            seen.computed = seen.asked.known.min(seen.tokens - 1);
            let computed = seen.computed;
            self.scheduler.cached(id, computed).expect("it waits");
        }
        next
    }

    fn answers_go_on(&self, decoding: &[SequenceId], plan: &Plan) {
        for id in decoding {
            let piece = plan.pieces.iter().find(|piece| piece.id == *id);
            let piece = piece.unwrap_or_else(|| panic!("{id:?} decodes and is not in {plan:?}"));
            // After a preemption the end of an answer may be all that is still missing of it.
            assert!(
                piece.last && piece.range.len() == 1 || piece.why == Why::Again,
                "{piece:?}"
            );
        }
    }

    fn tokens_keep_their_order(&mut self, plan: &Plan) {
        assert!(
            plan.pieces.is_sorted_by(|a, b| a.id < b.id),
            "at most one piece of each"
        );
        let Limits {
            block, piece: most, ..
        } = self.limits;
        for piece in &plan.pieces {
            let seen = self.known(piece.id);
            assert_eq!(seen.end, None);
            let Range { start, end } = piece.range;
            assert_eq!(start, seen.computed);
            assert!(start < end && end <= seen.tokens);
            assert_eq!(piece.last, end == seen.tokens);
            assert!(
                piece.last || end % block == 0,
                "{piece:?} is cut inside a block"
            );
            assert!(piece.range.len() <= most);
            assert_eq!(piece.why == Why::Decode, seen.decodes, "{piece:?}");
            (seen.computed, seen.has_row) = (end, true);
            seen.decodes |= piece.last;
        }
        for (id, _) in &plan.held {
            self.known(*id).has_row = true;
        }
    }

    fn budgets_hold(&self, plan: &Plan) {
        let tokens: usize = plan.pieces.iter().map(|piece| piece.range.len()).sum();
        assert!(tokens <= self.limits.tokens_per_step);
        let rows = self.seen.values().filter(|seen| seen.has_row).count();
        assert_eq!(rows, self.scheduler.running());
        assert!(rows <= self.limits.rows);
        let with_row = self.seen.values().filter(|seen| seen.has_row);
        let used: usize = with_row.map(|seen| seen.computed).sum();
        assert_eq!(used, self.scheduler.kv_tokens_used());
        assert!(used <= self.limits.kv_tokens);
    }

    fn prompts_take_turns(&mut self, plan: &Plan, decodes: bool) {
        let due = |since: usize| since + 1 >= self.limits.decodes_per_piece;
        if plan.pieces.iter().any(|piece| piece.range.len() > 1) {
            assert!(
                !decodes || self.since_prompt.is_none_or(due),
                "a prompt out of turn"
            );
            self.since_prompt = Some(0);
        } else if !plan.pieces.is_empty() {
            self.since_prompt = self.since_prompt.map(|since| since + 1);
        }
    }

    fn the_oldest_prompt_gets_on(&mut self) {
        let prompt = |seen: &Seen| seen.has_row && seen.computed < seen.tokens;
        let oldest = self.seen.iter().find(|(_, seen)| prompt(seen));
        self.head = oldest.map(|(&id, seen)| match self.head {
            Some((head, 1)) if head == id => panic!("{id:?} takes longer than promised: {seen:?}"),
            Some((head, left)) if head == id => (id, left - 1),
            // Pieces end where blocks do, also where what was known ended inside of one.
            _ => {
                let computed = seen.computed - seen.computed % self.limits.block;
                (id, self.limits.prompt_steps(seen.tokens - computed))
            }
        });
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let policy = prop_oneof![
        1 => Just(Policy::Static),
        1 => (0..40_u32).prop_map(|ticks| Policy::Dynamic { wait: TICK * ticks }),
        2 => Just(Policy::Continuous),
    ];
    let memory = prop_oneof![1 => Just(Memory::Reserve), 2 => Just(Memory::Preempt)];
    let sizes = (
        1..9_usize,
        1..20_usize,
        0..40_usize,
        0..60_usize,
        20..200_usize,
        1..6_usize,
    );
    (sizes, policy, memory).prop_map(|(sizes, policy, memory)| {
        let (rows, block, piece, tokens, kv_tokens, decodes_per_piece) = sizes;
        Limits {
            rows,
            tokens_per_step: rows - 1 + block + tokens,
            piece: block + piece,
            block,
            kv_tokens,
            policy,
            memory,
            decodes_per_piece,
        }
    })
}

fn asked() -> impl Strategy<Value = Vec<Asked>> {
    let leaves = prop_oneof![4 => Just(None), 1 => (0..120_usize).prop_map(Some)];
    let known = prop_oneof![2 => Just(0), 1 => 0..100_usize];
    let sizes = (1..90_usize, 1..40_usize, 0.0..1.0_f64);
    let one = (sizes, 0..60_usize, leaves, known);
    let one = one.prop_map(|(sizes, arrives, leaves, known)| {
        let (prompt, max_tokens, share) = sizes;
        Asked {
            prompt,
            max_tokens,
            answer: 1 + ((max_tokens - 1) as f64 * share) as usize,
            arrives,
            leaves,
            known,
        }
    });
    prop::collection::vec(one, 1..30).prop_map(|mut all| {
        all.sort_by_key(|asked| asked.arrives);
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    // Each step of each run is checked besides: order, budgets, turns, and the bounds in both directions.
    #[test]
    fn every_request_ends_exactly_once_and_within_its_bound(limits in limits(), asked in asked()) {
        let run = Run::of(&limits, &asked);
        prop_assert_eq!(run.seen.len(), asked.len());
        let mut bound = 0;
        for seen in run.seen.values().filter(|seen| seen.end != Some(End::Refused)) {
            prop_assert!(seen.end.is_some());
            let Asked { prompt, max_tokens, .. } = seen.asked;
            bound += limits.prompt_steps(prompt + max_tokens) + max_tokens;
            let took = seen.ended - seen.submitted;
            prop_assert!(took <= bound, "{took} steps, at most {bound} were promised");
        }
        prop_assert_eq!(run.scheduler.kv_tokens_used(), 0);
    }

    #[test]
    fn the_same_requests_give_the_same_plans(limits in limits(), asked in asked()) {
        prop_assert_eq!(Run::of(&limits, &asked).plans, Run::of(&limits, &asked).plans);
    }

    #[test]
    fn rows_that_reserve_are_never_preempted(limits in limits(), asked in asked()) {
        let run = Run::of(&Limits { memory: Memory::Reserve, ..limits }, &asked);
        prop_assert!(run.plans.iter().all(|plan| plan.preempted.is_empty()));
    }

    #[test]
    fn who_leaves_at_any_moment_leaves_nothing_behind(
        limits in limits(), asked in asked(), turn in 0..80_usize,
    ) {
        let leave = |asked| Asked { leaves: Some(turn), ..asked };
        let run = Run::of(&limits, &asked.into_iter().map(leave).collect::<Vec<_>>());
        prop_assert!(run.scheduler.is_idle());
        prop_assert_eq!(run.scheduler.kv_tokens_used(), 0);
    }

    #[test]
    fn rows_are_given_in_order_of_arrival(limits in limits(), asked in asked()) {
        let run = Run::of(&limits, &asked);
        let mut first = BTreeMap::new();
        for (step, plan) in run.plans.iter().enumerate() {
            let pieces = plan.pieces.iter().map(|piece| piece.id);
            for id in pieces.chain(plan.held.iter().map(|&(id, _)| id)) {
                first.entry(id).or_insert(step);
            }
        }
        let steps: Vec<usize> = first.into_values().collect();
        prop_assert!(steps.is_sorted());
    }
}

fn plain() -> Limits {
    Limits {
        rows: 4,
        tokens_per_step: 64,
        piece: 32,
        block: 16,
        kv_tokens: 1000,
        policy: Policy::Continuous,
        memory: Memory::Reserve,
        decodes_per_piece: 1,
    }
}

fn same(count: usize, prompt: usize, answer: usize) -> Vec<Asked> {
    vec![
        Asked {
            prompt,
            max_tokens: answer,
            answer,
            arrives: 0,
            leaves: None,
            known: 0
        };
        count
    ]
}

/// Who is run in each step.
fn rows(plans: &[Plan]) -> Vec<Vec<u64>> {
    let ids = |plan: &Plan| plan.pieces.iter().map(|piece| piece.id.0).collect();
    plans.iter().map(ids).collect()
}

#[test]
fn a_static_batch_takes_nobody_in_until_its_last_row_has_ended() {
    let limits = Limits {
        rows: 2,
        policy: Policy::Static,
        ..plain()
    };
    let mut asked = same(3, 4, 1);
    (asked[1].max_tokens, asked[1].answer) = (3, 3);
    let run = Run::of(&limits, &asked);
    assert_eq!(rows(&run.plans), [vec![0, 1], vec![1], vec![1], vec![2]]);
    assert_eq!(run.plans[1].queue, Some(Why::BatchRuns));
}

#[test]
fn a_static_batch_waits_until_it_is_full() {
    let limits = Limits {
        rows: 2,
        policy: Policy::Static,
        ..plain()
    };
    let mut scheduler = Scheduler::new(limits).unwrap();
    scheduler.submit(SequenceId(0), 4, 1, TICK).unwrap();
    let plan = scheduler.plan(Duration::from_secs(3600));
    assert_eq!(
        (plan.pieces.len(), plan.queue, plan.wake),
        (0, Some(Why::BatchFills), None)
    );
    scheduler.submit(SequenceId(1), 4, 1, TICK).unwrap();
    assert_eq!(scheduler.plan(TICK).pieces.len(), 2);
}

#[test]
fn a_static_batch_that_fills_the_memory_is_full() {
    let limits = Limits {
        kv_tokens: 64,
        policy: Policy::Static,
        ..plain()
    };
    let mut scheduler = Scheduler::new(limits).unwrap();
    for id in 0..3 {
        scheduler.submit(SequenceId(id), 20, 10, TICK).unwrap();
    }
    assert_eq!(scheduler.plan(TICK).pieces.len(), 2);
}

#[test]
fn a_dynamic_batch_begins_when_its_first_request_has_waited() {
    let policy = Policy::Dynamic { wait: TICK * 5 };
    let mut scheduler = Scheduler::new(Limits { policy, ..plain() }).unwrap();
    scheduler.submit(SequenceId(0), 4, 1, TICK).unwrap();
    let early = scheduler.plan(TICK * 2);
    assert_eq!((early.pieces.len(), early.wake), (0, Some(TICK * 6)));
    scheduler.submit(SequenceId(1), 4, 1, TICK * 3).unwrap();
    assert_eq!(scheduler.plan(early.wake.unwrap()).pieces.len(), 2);
}

#[test]
fn a_continuous_batch_takes_in_who_comes_at_the_next_step() {
    let mut asked = same(3, 4, 4);
    (asked[1].arrives, asked[2].arrives) = (1, 2);
    let run = Run::of(&plain(), &asked);
    let steps = [
        vec![0],
        vec![0, 1],
        vec![0, 1, 2],
        vec![0, 1, 2],
        vec![1, 2],
        vec![2],
    ];
    assert_eq!(rows(&run.plans), steps);
}

#[test]
fn prompts_are_cut_at_blocks_and_take_turns_with_answers() {
    let limits = Limits {
        decodes_per_piece: 3,
        ..plain()
    };
    let mut asked = same(2, 4, 9);
    asked[1] = Asked {
        prompt: 70,
        arrives: 1,
        ..asked[1].clone()
    };
    let run = Run::of(&limits, &asked);
    let piece = |plan: &Plan| {
        let piece = plan.pieces.iter().find(|piece| piece.id.0 == 1);
        piece.map(|piece| (piece.range.start, piece.range.end))
    };
    let pieces: Vec<_> = run.plans.iter().take(10).map(piece).collect();
    let (a, b, c) = (Some((0, 32)), Some((32, 64)), Some((64, 70)));
    // The first prompt took the turn of step 0. After step 8 nobody decodes, and so turns do not matter.
    assert_eq!(pieces, [None, None, None, a, None, None, b, None, None, c]);
    assert_eq!(run.plans[1].held, [(SequenceId(1), Why::DecodesFirst)]);
}

#[test]
fn a_step_that_is_full_holds_younger_prompts_back() {
    let run = Run::of(&plain(), &same(3, 32, 1));
    assert_eq!(rows(&run.plans), [vec![0, 1], vec![2]]);
    assert_eq!(run.plans[0].held, [(SequenceId(2), Why::StepFull)]);
}

#[test]
fn the_queue_says_what_it_lacks() {
    let rows = Run::of(&plain(), &same(5, 4, 2));
    assert_eq!(rows.plans[0].queue, Some(Why::RowsTaken));
    let memory = Run::of(
        &Limits {
            kv_tokens: 12,
            ..plain()
        },
        &same(5, 4, 2),
    );
    assert_eq!(memory.plans[0].queue, Some(Why::MemoryTaken));
}

#[test]
fn the_last_arrival_gives_its_memory_back_and_is_computed_again() {
    let limits = Limits {
        kv_tokens: 40,
        block: 4,
        memory: Memory::Preempt,
        ..plain()
    };
    let run = Run::of(&limits, &same(2, 15, 12));
    let preempted: Vec<_> = run.plans.iter().flat_map(|plan| &plan.preempted).collect();
    assert_eq!(preempted, [&SequenceId(1)]);
    let mut pieces = run.plans.iter().flat_map(|plan| &plan.pieces);
    let again = pieces.find(|piece| piece.why == Why::Again).unwrap();
    // Its prompt, and what it had of its answer.
    assert_eq!((again.id, again.range.clone()), (SequenceId(1), 0..21));
    assert!(
        run.seen
            .values()
            .all(|seen| seen.end == Some(End::Answered))
    );
}

#[test]
fn many_preemptions_end_too() {
    let limits = Limits {
        rows: 8,
        kv_tokens: 64,
        block: 1,
        memory: Memory::Preempt,
        ..plain()
    };
    let run = Run::of(&limits, &same(40, 6, 50));
    let preempted: usize = run.plans.iter().map(|plan| plan.preempted.len()).sum();
    assert!(preempted >= 40, "only {preempted}");
    assert!(
        run.seen
            .values()
            .all(|seen| seen.end == Some(End::Answered))
    );
}

#[test]
fn a_request_that_can_never_fit_is_refused_alone() {
    let mut asked = same(3, 20, 10);
    asked[1].prompt = 991;
    let run = Run::of(&plain(), &asked);
    let ends: Vec<_> = run.seen.values().map(|seen| seen.end.unwrap()).collect();
    assert_eq!(ends, [End::Answered, End::Refused, End::Answered]);
    let mut scheduler = Scheduler::new(plain()).unwrap();
    let refused = scheduler.submit(SequenceId(0), 991, 10, TICK).unwrap_err();
    insta::assert_snapshot!(refused, @"991 tokens of prompt and up to 10 of answer do not fit into memory for 1000 positions: take a shorter prompt, fewer --max-tokens or more memory");
    assert!(
        scheduler
            .submit(SequenceId(0), usize::MAX, usize::MAX, TICK)
            .is_err()
    );
}

#[test]
fn an_id_that_is_still_on_its_way_is_waited_for() {
    let mut scheduler = Scheduler::new(plain()).unwrap();
    scheduler.submit(SequenceId(0), 4, 2, TICK).unwrap();
    assert!(scheduler.plan(TICK).pieces[0].last);
    assert_eq!(scheduler.plan(TICK).pieces, []);
    scheduler.token(SequenceId(0));
    assert_eq!(scheduler.plan(TICK).pieces[0].range, 4..5);
    // The last token of the longest answer needs no step.
    scheduler.token(SequenceId(0));
    assert_eq!(scheduler.plan(TICK).pieces, []);
    scheduler.end(SequenceId(0));
    assert!(scheduler.is_idle());
}

#[test]
fn what_a_cache_has_is_not_planned() {
    let mut asked = same(3, 70, 2);
    (asked[0].known, asked[1].known) = (48, 1000);
    let run = Run::of(&plain(), &asked);
    let pieces = run.plans.iter().flat_map(|plan| &plan.pieces);
    let prompts = pieces.filter(|piece| piece.why == Why::Prompt);
    let ranges: Vec<_> = prompts
        .map(|piece| (piece.id.0, piece.range.clone()))
        .collect();
    assert_eq!(
        ranges,
        [
            (0, 48..70),
            (1, 69..70),
            (2, 0..32),
            (2, 32..64),
            (2, 64..70)
        ]
    );
}

#[test]
fn a_cache_is_for_who_waits_and_leaves_something_to_run() {
    let mut scheduler = Scheduler::new(plain()).unwrap();
    scheduler.submit(SequenceId(0), 20, 2, TICK).unwrap();
    let full = scheduler.cached(SequenceId(0), 20).unwrap_err();
    scheduler.cached(SequenceId(0), 19).unwrap();
    scheduler.cached(SequenceId(0), 16).unwrap(); // what was said last counts
    assert_eq!(scheduler.kv_tokens_used(), 0);
    assert_eq!(scheduler.plan(TICK).pieces[0].range, 16..20);
    let late = scheduler.cached(SequenceId(0), 16).unwrap_err();
    assert!(scheduler.cached(SequenceId(1), 16).is_err());
    insta::assert_snapshot!(format!("{full}\n{late}"), @r"
    20 positions of request 0 are in a cache, it has 20 tokens and one of them has to be run
    request 0 does not wait: its beginning is taken from a cache before it has a row
    ");
}

#[test]
fn a_token_that_comes_after_its_row_was_preempted_is_counted() {
    let limits = Limits {
        kv_tokens: 20,
        block: 1,
        memory: Memory::Preempt,
        ..plain()
    };
    let mut scheduler = Scheduler::new(limits).unwrap();
    for id in 0..2 {
        scheduler.submit(SequenceId(id), 9, 9, TICK).unwrap();
    }
    assert_eq!(scheduler.plan(TICK).pieces.len(), 2);
    for _ in 0..3 {
        scheduler.token(SequenceId(0));
    }
    assert_eq!(scheduler.plan(TICK).preempted, [SequenceId(1)]);
    scheduler.token(SequenceId(1));
    scheduler.end(SequenceId(0));
    assert_eq!(scheduler.plan(TICK).pieces[0].range, 0..10);
}

#[test]
fn numbers_that_do_not_rise_and_requests_for_nothing_are_refused() {
    let mut scheduler = Scheduler::new(plain()).unwrap();
    scheduler.submit(SequenceId(5), 4, 2, TICK).unwrap();
    assert!(scheduler.submit(SequenceId(5), 4, 2, TICK).is_err());
    assert!(scheduler.submit(SequenceId(4), 4, 2, TICK).is_err());
    assert!(scheduler.submit(SequenceId(6), 0, 2, TICK).is_err());
    assert!(scheduler.submit(SequenceId(6), 4, 0, TICK).is_err());
    assert_eq!(scheduler.waiting(), 1);
}

#[test]
fn limits_that_make_no_sense_are_refused_in_one_line() {
    let wrong = [
        Limits { rows: 0, ..plain() },
        Limits {
            block: 0,
            ..plain()
        },
        Limits {
            piece: 15,
            ..plain()
        },
        Limits {
            tokens_per_step: 18,
            ..plain()
        },
        Limits {
            kv_tokens: 1,
            ..plain()
        },
        Limits {
            decodes_per_piece: 0,
            ..plain()
        },
    ];
    let said = wrong.map(|limits| Scheduler::new(limits).unwrap_err().to_string());
    insta::assert_snapshot!(said.join("\n"), @r"
    a step needs at least 1 row
    a block needs at least 1 token
    a piece of 15 tokens is less than a block of 16
    18 tokens a step are too few: 4 rows with blocks of 16 need 19
    memory for 1 positions is too little for any request
    a piece of a prompt is due every 0 steps: take 1 or more
    ");
}

#[test]
fn ten_thousand_at_once_wait_in_line() {
    let limits = Limits {
        rows: 32,
        tokens_per_step: 256,
        kv_tokens: 4000,
        ..plain()
    };
    let mut scheduler = Scheduler::new(limits).unwrap();
    for id in 0..10_000 {
        scheduler.submit(SequenceId(id), 20, 1, TICK).unwrap();
    }
    let mut ended = 0;
    while !scheduler.is_idle() {
        for piece in scheduler
            .plan(TICK)
            .pieces
            .iter()
            .filter(|piece| piece.last)
        {
            assert_eq!(piece.id.0, ended);
            scheduler.token(piece.id);
            scheduler.end(piece.id);
            ended += 1;
        }
    }
    assert_eq!(ended, 10_000);
}
