//! The timeline of a run: in the terminal, and as a page in a real browser.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

#[allow(dead_code)] // part 1's page has more to try
#[path = "../../part1-walkthrough/tests/browser/mod.rs"]
mod browser;

use std::time::Duration;

use browser::page;
use console::report::Report;
use console::serving::Offered;
use part5_batching::gantt::page::save;
use part5_batching::gantt::{Gantt, MOST_LANES, Recording, State, terminal};
use part5_batching::limits::{Limits, Memory, Policy};
use part5_batching::load::{Load, Planned};
use part5_batching::simulator::simulate;
use part5_batching::step_times::{StepTimes, Table};

/// 10 ms for rows, however many, and 1 ms for each token of a prompt.
fn times() -> StepTimes {
    StepTimes {
        host: 0.0,
        rows: Table::new(vec![(1, 0.010)]),
        context: 0.0,
        pieces: Table::new(vec![(1, 0.001), (1000, 1.0)]),
        piece_context: 0.0,
    }
}

fn limits() -> Limits {
    Limits {
        rows: 3,
        tokens_per_step: 40,
        piece: 32,
        block: 16,
        kv_tokens: 120,
        policy: Policy::Continuous,
        memory: Memory::Preempt,
        decodes_per_piece: 2,
    }
}

fn gantt(limits: &Limits, requests: &[(u64, usize, usize)]) -> Gantt {
    let planned = |&(due, prompt_tokens, output_tokens): &(u64, usize, usize)| Planned {
        due: Duration::from_millis(due),
        prompt_tokens,
        output_tokens,
    };
    let offered = Offered {
        request_rate: 10.0,
        burstiness: 1.0,
        max_concurrency: None,
    };
    let load = Load::of(offered, requests.iter().map(planned).collect(), 0);
    let mut recording = Recording::default();
    let run = simulate(&load, limits, &times(), |from, to, plan| {
        recording.add(from, to, plan)
    })
    .unwrap();
    recording.finish(
        "simulated: three rows, memory for 120 positions",
        &run.served,
    )
}

/// Rows and memory get short, one request can never fit.
const REQUESTS: [(u64, usize, usize); 7] = [
    (0, 30, 45),
    (15, 48, 25),
    (40, 20, 30),
    (60, 60, 10),
    (100, 110, 40),
    (300, 16, 20),
    (420, 5, 5),
];

fn drawn(gantt: &Gantt) -> String {
    let mut out = Vec::new();
    terminal::draw(&mut Report::plain(&mut out), gantt).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_terminal_shows_every_request_in_80_columns() {
    let text = drawn(&gantt(&limits(), &REQUESTS));
    assert!(text.lines().all(|line| line.chars().count() <= 80));
    insta::assert_snapshot!(text);
}

#[test]
fn a_static_batch_shows_who_waits_for_it() {
    let limits = Limits {
        policy: Policy::Static,
        memory: Memory::Reserve,
        kv_tokens: 1000,
        ..limits()
    };
    let gantt = gantt(&limits, &REQUESTS);
    insta::assert_snapshot!(drawn(&gantt));
    let first = &gantt.lanes[0].spans[0];
    assert_eq!(
        (first.state, first.why.as_str()),
        (State::Queued, "waits: the batch waits for more requests")
    );
}

#[test]
fn the_stretches_of_a_request_follow_each_other_and_end_with_it() {
    let gantt = gantt(&limits(), &REQUESTS);
    for lane in gantt.lanes.iter().filter(|lane| lane.end != "refused") {
        assert!((lane.spans[0].from - lane.arrival).abs() < 1e-6, "{lane:?}");
        for pair in lane.spans.windows(2) {
            assert!((pair[0].to - pair[1].from).abs() < 1e-6, "{pair:?}");
        }
        // All its tokens but the last, which nobody computes.
        assert_eq!(
            lane.spans.last().unwrap().tokens.1,
            lane.prompt_tokens + lane.output_tokens - 1
        );
    }
    let refused: Vec<u64> = gantt
        .lanes
        .iter()
        .filter(|lane| lane.end == "refused")
        .map(|lane| lane.id)
        .collect();
    assert_eq!(refused, [4]);
    assert!(gantt.lanes.iter().any(|lane| !lane.preempted.is_empty()));
}

#[test]
fn more_than_anybody_looks_at_is_left_out_and_said() {
    let gantt = gantt(&limits(), &[(0, 1, 1); 300]);
    assert_eq!((gantt.lanes.len(), gantt.lanes_left_out), (MOST_LANES, 44));
    assert!(drawn(&gantt).ends_with(" 268 more requests not drawn\n"));
}

#[test]
fn the_page_steps_through_time_and_tells_the_reason() {
    let gantt = gantt(&limits(), &REQUESTS);
    let Some(page) = page(|path| {
        save(path, &gantt).unwrap();
    }) else {
        return;
    };
    assert_eq!(page.text("h1"), gantt.title);
    let count =
        |selector: &str| page.number(&format!("document.querySelectorAll('{selector}').length"));
    let spans: usize = gantt.lanes.iter().map(|lane| lane.spans.len()).sum();
    assert_eq!(count("#chart .span"), spans as f64);
    assert_eq!(
        count("#chart .cross") as usize,
        gantt
            .lanes
            .iter()
            .map(|lane| lane.preempted.len())
            .sum::<usize>()
    );
    assert_eq!(count("#chart .id"), 7.0);
    // The first step, and the next.
    assert_eq!(page.text(".number"), "1");
    page.click(".on");
    assert_eq!(page.text(".number"), "2");
    assert_eq!(
        count(".ran tr") as usize,
        1 + gantt.steps[1].ran.len() + gantt.steps[1].held.len()
    );
    page.click(".back");
    page.click(".back");
    assert_eq!(page.text(".number"), "1");
    // What is pointed at says why.
    page.string(
        "document.querySelector('#chart .queued').dispatchEvent(new PointerEvent('pointerenter')); ''",
    );
    let told = page.text(".hover");
    assert!(told.starts_with("Request 1, 15.0 ms to "), "{told}");
    assert!(
        told.contains("waits: it came in the middle of a step"),
        "{told}"
    );
    // Twice as wide.
    let width = page.number("document.querySelector('#chart svg').clientWidth");
    page.string("zoom.value = 1; zoom.dispatchEvent(new Event('input')); ''");
    assert_eq!(
        page.number("document.querySelector('#chart svg').clientWidth"),
        2.0 * width
    );
    assert_eq!(page.complaints(), Vec::<String>::new());
}
