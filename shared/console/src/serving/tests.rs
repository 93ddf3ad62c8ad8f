use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// An answer whose tokens come at these milliseconds.
fn served(arrival: u64, scheduled: u64, prompt_tokens: usize, tokens: &[u64]) -> Served {
    Served {
        due: MS(arrival),
        arrival: MS(arrival),
        scheduled: Some(MS(scheduled)),
        prompt_tokens,
        tokens: tokens.iter().copied().map(MS).collect(),
        preemptions: 0,
        finish_reason: Some(FinishReason::Length),
    }
}

/// Three answers, a refused request, and one that was cut off.
fn run() -> Vec<Served> {
    vec![
        served(0, 0, 10, &[100, 150, 250]),
        served(100, 140, 20, &[300, 320, 340, 360, 380]),
        served(380, 400, 5, &[1480]),
        Served {
            finish_reason: None,
            scheduled: None,
            ..served(400, 0, 7, &[])
        },
        Served {
            finish_reason: Some(FinishReason::Interrupted),
            ..served(500, 900, 7, &[1000, 1100])
        },
    ]
}

const POISSON: Offered = Offered {
    request_rate: 10.0,
    burstiness: 1.0,
    max_concurrency: None,
};

fn summed() -> Serving {
    let slo = "ttft=250,tpot=60".parse().unwrap();
    Serving::of(POISSON, Some(&slo), MS(2000), &run())
}

fn printed(serving: &Serving) -> String {
    let mut out = Vec::new();
    serving.print(&mut Report::plain(&mut out)).unwrap();
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn close(value: Option<f64>, expected: f64) {
    let value = value.unwrap();
    assert!((value - expected).abs() < 1e-9, "{value}, not {expected}");
}

#[test]
fn the_totals_are_those_of_answers_that_ended() {
    let serving = summed();
    assert_eq!((serving.completed, serving.failed), (3, 2));
    assert_eq!(
        (serving.total_input_tokens, serving.total_output_tokens),
        (35, 9)
    );
    close(serving.request_throughput, 1.5);
    close(serving.output_throughput, 4.5);
    close(serving.total_token_throughput, 22.0);
}

#[test]
fn latencies_are_as_computed_by_hand() {
    let serving = summed();
    // TTFT: 100, 200, 1100. TPOT: 150/2 and 80/4, the answer of one token has none.
    close(serving.ttft.mean, 1400.0 / 3.0);
    close(serving.ttft.median, 200.0);
    close(serving.ttft.p99, 200.0 + 0.98 * 900.0);
    close(
        serving.ttft.std,
        (((366.0 + 2.0 / 3.0_f64).powi(2)
            + (266.0 + 2.0 / 3.0_f64).powi(2)
            + (633.0 + 1.0 / 3.0_f64).powi(2))
            / 3.0)
            .sqrt(),
    );
    assert_eq!(serving.tpot.n, 2);
    close(serving.tpot.mean, 47.5);
    // ITL: 50, 100, and 20 four times.
    assert_eq!(serving.itl.n, 6);
    close(serving.itl.mean, 230.0 / 6.0);
    close(serving.itl.p90, 75.0);
    // E2EL: 250, 280, 1100.
    close(serving.e2el.median, 280.0);
    // Of all that had a step: 0, 40, 20, and 400 of the one that was cut off.
    close(serving.queue_time.mean, 115.0);
}

#[test]
fn the_busiest_second_is_counted_from_the_first_arrival() {
    // Eight tokens in the first second, one in the next.
    assert_eq!(summed().max_output_tokens_per_s, 8);
    let late = [
        served(900, 900, 1, &[950, 1850]),
        served(1000, 1000, 1, &[1850]),
    ];
    assert_eq!(busiest_second(&[&late[0], &late[1]]), 3);
}

#[test]
fn who_leaves_makes_room_for_who_comes_at_that_instant() {
    // The second leaves at 380, when the third comes.
    assert_eq!(summed().max_concurrent_requests, 2);
}

#[test]
fn goodput_counts_answers_within_all_limits() {
    // The first has a TPOT of 75 ms, the third a TTFT of 1100 ms.
    close(summed().request_goodput, 0.5);
    let met = |slo: &str, served: &Served| slo.parse::<Slo>().unwrap().is_met(served);
    let [first, second, third, ..] = &run()[..] else {
        panic!("three answers")
    };
    assert!(met("e2el=280", second) && !met("e2el=279.9", second));
    assert!(met("tpot=0.001", third), "one token has no gaps");
    assert!(met("ttft:100, tpot:75", first) && !met("ttft=99", first));
}

#[test]
fn limits_that_make_no_sense_are_refused_in_one_line() {
    let refused = [
        "",
        "ttft",
        "itl=5",
        "ttft=fast",
        "ttft=0",
        "ttft=-1",
        "ttft=nan",
        "ttft=1,ttft=2",
    ];
    let said = refused.map(|text| format!("{:#}", text.parse::<Slo>().unwrap_err()));
    insta::assert_snapshot!(said.join("\n"));
}

fn step(ms: f64, rows: usize, prompt_tokens: usize, kv_tokens: usize) -> ServedStep {
    ServedStep {
        seconds: ms / 1e3,
        rows,
        prompt_tokens,
        kv_tokens,
    }
}

fn steps() -> Vec<ServedStep> {
    vec![
        step(40.0, 0, 64, 64),
        step(10.0, 2, 0, 66),
        step(12.0, 2, 0, 68),
        step(14.0, 2, 0, 70),
        // 18 ms longer than the median of 12, then 8 ms longer than the nearest, then shorter.
        step(30.0, 2, 32, 100),
        step(20.0, 3, 32, 100),
        step(11.0, 1, 1, 100),
        step(13.0, 5, 0, 100),
    ]
}

#[test]
fn a_stall_is_what_a_prompt_adds_to_a_step_with_answers() {
    let steps = Steps::of(&steps(), 200);
    assert_eq!((steps.count, steps.stalls, steps.max_rows), (8, 3, 5));
    close(steps.mean_rows, 17.0 / 7.0);
    close(steps.max_stall_ms, 18.0);
    close(steps.mean_stall_ms, 26.0 / 3.0);
    close(steps.stalled_share, 26.0 / 110.0);
    close(steps.max_kv_use, 0.5);
    let kv =
        (40.0 * 64.0 + 660.0 + 12.0 * 68.0 + 980.0 + 3000.0 + 2000.0 + 1100.0 + 1300.0) / 150.0;
    close(steps.mean_kv_use, kv / 200.0);
}

#[test]
fn without_a_step_to_compare_with_a_stall_has_no_cost() {
    let steps = Steps::of(&[step(30.0, 2, 32, 100)], 0);
    assert_eq!(
        (steps.stalls, steps.max_stall_ms, steps.max_kv_use),
        (1, None, None)
    );
}

#[test]
fn the_block_reads_as_vllms_and_fits_the_frame() {
    let mut all = run();
    all[1].preemptions = 2;
    let slo = "ttft=250".parse().unwrap();
    let serving = Serving::of(POISSON, Some(&slo), MS(2000), &all).steps(&steps(), 200);
    let text = printed(&serving);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
    insta::assert_snapshot!(text);
}

#[test]
fn a_limit_of_concurrency_adds_the_time_before_sending() {
    let offered = Offered {
        request_rate: f64::INFINITY,
        burstiness: 1.0,
        max_concurrency: Some(2),
    };
    let mut all = run();
    all[2].due = MS(180);
    let serving = Serving::of(offered, None, MS(2000), &all);
    close(serving.client_queue_time.unwrap().mean, 200.0 / 3.0);
    insta::assert_snapshot!(printed(&serving));
}

#[test]
fn the_keys_are_vllms() {
    let json = summed().steps(&steps(), 200).json();
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap());
    let all = Serving::of(
        Offered {
            request_rate: f64::INFINITY,
            ..POISSON
        },
        None,
        MS(1),
        &[],
    )
    .json();
    assert_eq!(
        (&all["request_rate"], &all["request_goodput"]),
        (&json!("inf"), &Value::Null)
    );
}

#[test]
fn a_run_without_an_answer_has_dashes_and_nulls() {
    let serving = Serving::of(POISSON, None, Duration::ZERO, &[]);
    assert_eq!(serving.request_throughput, None);
    assert_eq!(serving.json()["mean_ttft_ms"], Value::Null);
    assert!(printed(&serving).contains("Mean TTFT (ms):                          –"));
}

#[test]
fn the_table_of_batches_reads_as_llama_cpps() {
    // The first row is one that llama-batched-bench printed: 780.56, 147.90 and 623.64, from times that it had
    // not rounded yet.
    let rows = [
        Batched {
            prompt: 2048,
            answer: 128,
            rows: 8,
            prompt_seconds: 20.990,
            answer_seconds: 6.924,
        },
        Batched {
            prompt: 64,
            answer: 32,
            rows: 1,
            prompt_seconds: 0.5,
            answer_seconds: 0.25,
        },
    ];
    let mut out = Vec::new();
    batched_table(&mut Report::plain(&mut out), &rows).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}
