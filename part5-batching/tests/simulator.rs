//! The simulator: runs whose times can be computed by hand, and what must hold for any.

use std::time::Duration;

use clap::Parser;
use console::serving::Slo;
use part5_batching::limits::{Limits, Memory, Policy};
use part5_batching::load::{Load, LoadArgs};
use part5_batching::simulator::{Simulated, find_capacity, predict, simulate};
use part5_batching::step_times::{StepTimes, Table};
use proptest::prelude::*;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    load: LoadArgs,
}

fn load(text: &str, seed: u64) -> Load {
    let args = Flags::parse_from(["load"].into_iter().chain(text.split_whitespace())).load;
    Load::new(&args, seed).expect("a load that makes sense")
}

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
        rows: 4,
        tokens_per_step: 64,
        piece: 32,
        block: 16,
        kv_tokens: 10_000,
        policy: Policy::Continuous,
        memory: Memory::Reserve,
        decodes_per_piece: 1,
    }
}

fn run(load: &Load, limits: &Limits) -> Simulated {
    simulate(load, limits, &times(), |_, _, _| {}).expect("a run that ends")
}

fn ms(tokens: &[Duration]) -> Vec<u128> {
    tokens
        .iter()
        .map(|at| (at.as_secs_f64() * 1e3).round() as u128)
        .collect()
}

#[test]
fn one_request_takes_its_prompt_and_then_its_steps() {
    let run = run(
        &load("--requests 1 --prompt-tokens 20 --output-tokens 3", 0),
        &limits(),
    );
    assert_eq!(ms(&run.served[0].tokens), [20, 30, 40]);
    assert_eq!(ms(&[run.duration]), [40]);
    assert_eq!(run.steps.len(), 3);
}

#[test]
fn a_prompt_that_comes_later_stalls_the_answer_for_its_piece() {
    // The second comes at 200 ms, in the middle of the first answer's step from 192 ms on.
    let load = load(
        "--rate 10 --burstiness inf --requests 2 --prompt-tokens 32 --output-tokens 10",
        0,
    );
    let run = run(&load, &limits());
    let first = ms(&run.served[0].tokens);
    // At 100 ms it comes; 32 ms for its prompt; 10 ms for each token, but 42 ms with the other's prompt.
    assert_eq!(first, [132, 142, 152, 162, 172, 182, 192, 202, 244, 254]);
    assert_eq!(ms(&run.served[1].tokens)[..3], [244, 254, 264]);
    assert_eq!(ms(&[run.served[1].scheduled.unwrap()]), [202]);
    let stalls = run.serving(&load, &limits(), None).steps.unwrap();
    assert_eq!(
        (stalls.stalls, stalls.max_stall_ms.map(f64::round)),
        (1, Some(32.0))
    );
}

#[test]
fn a_static_batch_makes_those_wait_who_come_later() {
    let flags = "--rate 10 --burstiness inf --requests 4 --prompt-tokens 16 --output-tokens 20";
    let limits = Limits {
        rows: 2,
        policy: Policy::Static,
        ..limits()
    };
    let run = run(&load(flags, 0), &limits);
    let scheduled: Vec<_> = run
        .served
        .iter()
        .map(|served| served.scheduled.unwrap())
        .collect();
    // The first two begin when the second has come. 32 ms for their prompts, 190 ms for 19 steps more.
    assert_eq!(ms(&scheduled), [200, 200, 422, 422]);
}

#[test]
fn with_one_request_at_a_time_the_next_is_sent_when_one_has_ended() {
    let load = load(
        "--concurrency 1 --requests 3 --prompt-tokens 10 --output-tokens 2",
        0,
    );
    let run = run(&load, &limits());
    let arrivals: Vec<_> = run.served.iter().map(|served| served.arrival).collect();
    assert_eq!(ms(&arrivals), [0, 20, 40]);
    let serving = run.serving(&load, &limits(), None);
    assert_eq!(serving.max_concurrent_requests, 1);
    assert_eq!(
        serving.client_queue_time.unwrap().mean.map(f64::round),
        Some(20.0)
    );
}

#[test]
fn a_request_that_cannot_fit_is_refused_and_the_rest_goes_on() {
    let load = load(
        "--requests 40 --prompt-tokens 10..100 --output-tokens 10 --concurrency 2",
        3,
    );
    let run = run(
        &load,
        &Limits {
            kv_tokens: 60,
            ..limits()
        },
    );
    let fits: Vec<bool> = load
        .requests
        .iter()
        .map(|request| request.prompt_tokens <= 50)
        .collect();
    let ended: Vec<bool> = run.served.iter().map(|served| served.completed()).collect();
    assert_eq!(ended, fits);
    assert!(fits.contains(&true) && fits.contains(&false));
}

#[test]
fn a_load_and_a_batch_that_wait_for_each_other_are_told_apart() {
    let load = load("--requests 9 --concurrency 3", 0);
    let limits = Limits {
        policy: Policy::Static,
        ..limits()
    };
    let refused = simulate(&load, &limits, &times(), |_, _, _| {}).unwrap_err();
    insta::assert_snapshot!(refused, @"a batch of 4 rows never fills when fewer requests are sent at the same time: take --concurrency 4 or more, or a policy that does not wait");
}

#[test]
fn ten_thousand_at_once_end() {
    let load = load(
        "--requests 10000 --prompt-tokens 1..60 --output-tokens 1..20",
        0,
    );
    let run = run(
        &load,
        &Limits {
            rows: 32,
            ..limits()
        },
    );
    assert!(run.served.iter().all(|served| served.completed()));
}

#[test]
fn capacity_is_where_the_machine_is_full() {
    // One row, one token of prompt, ten of answer: 1 + 90 ms for each request, so 10.99 a second.
    let load = load(
        "--rate 1 --burstiness inf --requests 400 --prompt-tokens 1 --output-tokens 10",
        0,
    );
    let limits = Limits {
        rows: 1,
        ..limits()
    };
    let slo: Slo = "ttft=100".parse().unwrap();
    let capacity = find_capacity(&load, &limits, &times(), &slo, 1.0).unwrap();
    assert!((10.9..11.2).contains(&capacity.rate), "{capacity:?}");
    assert!(
        capacity.good == 1.0 && capacity.too_high / capacity.rate < 1.0101,
        "{capacity:?}"
    );
    // From far above, too.
    let above = find_capacity(&load.at_rate(500.0).unwrap(), &limits, &times(), &slo, 1.0).unwrap();
    assert!(
        (above.rate / capacity.rate - 1.0).abs() < 0.011,
        "{above:?} {capacity:?}"
    );
}

#[test]
fn limits_that_no_rate_keeps_and_loads_that_fill_no_machine_are_said() {
    let load = load(
        "--rate 1 --requests 3 --prompt-tokens 1 --output-tokens 10",
        0,
    );
    let find = |slo: &str, share: f64| {
        let slo: Slo = slo.parse().unwrap();
        find_capacity(&load, &limits(), &times(), &slo, share)
            .unwrap_err()
            .to_string()
    };
    let said = [
        find("tpot=5", 1.0),
        find("ttft=1000", 1.0),
        find("ttft=1", 0.0),
    ];
    insta::assert_snapshot!(said.join("\n"), @r"
    at no rate are 100 % of the answers that fast: take other limits
    no rate is too high for this load: it has too few --requests to fill the machine
    a share of 0 of the requests makes no sense: take one above 0, up to 1
    ");
}

#[test]
fn the_error_bar_is_as_wide_as_the_errors_of_the_model() {
    let load = load(
        "--rate 5 --requests 60 --prompt-tokens 16 --output-tokens 20",
        1,
    );
    let ratios = |spread: f64| -> Vec<f64> {
        let factor = |at: usize| 1.0 + spread * (at as f64 / 19.0 * 2.0 - 1.0);
        (0..20).map(factor).collect()
    };
    let tpot = |spread: f64| {
        let (load, limits) = (&load, &limits());
        let [tpot, none] = predict((load, limits), &times(), &ratios(spread), 20, |serving| {
            [serving.tpot.median, None]
        })
        .unwrap();
        assert_eq!(none, None);
        tpot.unwrap()
    };
    let (exact, near, far) = (tpot(0.0), tpot(0.1), tpot(0.3));
    let width = |of: part5_batching::simulator::Predicted| of.high - of.low;
    assert!(width(exact) < 1e-9 && width(near) > 0.0 && width(far) > 2.0 * width(near));
    assert!(
        near.low <= exact.median && exact.median <= near.high,
        "{near:?} {exact:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_run_serves_every_request_in_order_and_twice_the_same(
        seed in 0..1000_u64, rate in 1.0..200.0_f64, rows in 1..9_usize, memory in 80..400_usize,
        preempt in any::<bool>(), policy in 0..3_usize,
    ) {
        let load = load(&format!("--rate {rate} --requests 40 --prompt-tokens 1..50 --output-tokens 1..30"), seed);
        let policies = [Policy::Static, Policy::Dynamic { wait: Duration::from_millis(50) }, Policy::Continuous];
        let memory_policy = if preempt { Memory::Preempt } else { Memory::Reserve };
        let limits = Limits { rows, kv_tokens: memory, memory: memory_policy, policy: policies[policy], ..limits() };
        let mut clock = Duration::ZERO;
        let mut watched = 0;
        let run = simulate(&load, &limits, &times(), |start, end, plan| {
            assert!(clock <= start && start < end);
            (clock, watched) = (end, watched + usize::from(!plan.pieces.is_empty()));
        }).unwrap();
        prop_assert_eq!(watched, run.steps.len());
        for (served, request) in run.served.iter().zip(&load.requests) {
            prop_assert_eq!(served.tokens.len(), request.output_tokens);
            prop_assert!(served.tokens.is_sorted());
            prop_assert!(served.scheduled.unwrap() >= served.arrival);
            prop_assert!(served.tokens[0] > served.scheduled.unwrap());
        }
        let again = simulate(&load, &limits, &times(), |_, _, _| {}).unwrap();
        prop_assert_eq!(again.steps, run.steps);
    }
}
