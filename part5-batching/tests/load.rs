//! The load: what is drawn, what is replayed, and what is refused.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use clap::Parser;
use part5_batching::load::{Feed, Lengths, Load, LoadArgs};

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    load: LoadArgs,
}

fn flags(text: &str) -> LoadArgs {
    Flags::parse_from(["load"].into_iter().chain(text.split_whitespace())).load
}

fn load(text: &str, seed: u64) -> Load {
    Load::new(&flags(text), seed).expect("a load that makes sense")
}

fn refused(text: &str) -> String {
    let args = Flags::try_parse_from(["load"].into_iter().chain(text.split_whitespace()));
    match args {
        Err(error) => error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
        Ok(args) => format!("{:#}", Load::new(&args.load, 0).expect_err(text)),
    }
}

fn gaps(load: &Load) -> Vec<f64> {
    let dues: Vec<f64> = load
        .requests
        .iter()
        .map(|request| request.due.as_secs_f64())
        .collect();
    dues.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Squared coefficient of variation: 1/shape for gaps of a gamma distribution.
fn variation(gaps: &[f64]) -> f64 {
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    gaps.iter()
        .map(|gap| (gap / mean - 1.0).powi(2))
        .sum::<f64>()
        / gaps.len() as f64
}

#[test]
fn the_last_request_comes_when_the_rate_says() {
    for seed in 0..20 {
        for shape in ["0.3", "1", "5", "inf"] {
            let load = load(
                &format!("--rate 4 --requests 50 --burstiness {shape}"),
                seed,
            );
            let last = load.requests.last().unwrap().due.as_secs_f64();
            assert!((last - 12.5).abs() < 1e-6, "{last}");
            assert!(load.requests.is_sorted_by_key(|request| request.due));
        }
    }
}

#[test]
fn burstiness_is_the_shape_of_the_gaps() {
    for (shape, expected) in [("0.25", 4.0), ("1", 1.0), ("4", 0.25)] {
        let load = load(
            &format!("--rate 10 --requests 20000 --burstiness {shape}"),
            7,
        );
        let found = variation(&gaps(&load));
        assert!(
            (found / expected - 1.0).abs() < 0.1,
            "{found}, not {expected}"
        );
    }
    let even = gaps(&load("--rate 10 --requests 100 --burstiness inf", 7));
    assert!(even.iter().all(|gap| (gap - 0.1).abs() < 1e-8));
}

#[test]
fn an_infinite_rate_sends_all_at_once() {
    let load = load("--requests 10000", 0);
    assert_eq!(load.requests.len(), 10_000);
    assert!(load.requests.iter().all(|request| request.due.is_zero()));
}

#[test]
fn the_same_seed_gives_the_same_load_and_another_one_another() {
    let flags = "--rate 3 --requests 40 --prompt-tokens 5..90 --output-tokens lognormal:20:0.8";
    assert_eq!(load(flags, 1), load(flags, 1));
    assert_ne!(load(flags, 1).requests, load(flags, 2).requests);
}

#[test]
fn other_lengths_leave_the_arrivals_as_they_are() {
    let due = |flags: &str| -> Vec<Duration> {
        load(flags, 3)
            .requests
            .iter()
            .map(|request| request.due)
            .collect()
    };
    assert_eq!(
        due("--rate 3"),
        due("--rate 3 --prompt-tokens 1..900 --output-tokens 1..7")
    );
}

#[test]
fn the_load_of_a_seed_stays_what_it_was() {
    let load = load(
        "--rate 2 --requests 4 --prompt-tokens 16..256 --output-tokens lognormal:32:0.5",
        42,
    );
    insta::assert_snapshot!(load.to_trace());
}

#[test]
fn lengths_are_as_asked_for() {
    let lengths = |text: &str| -> Vec<usize> {
        let load = load(&format!("--requests 20000 --prompt-tokens {text}"), 5);
        load.requests
            .iter()
            .map(|request| request.prompt_tokens)
            .collect()
    };
    assert!(lengths("77").iter().all(|length| *length == 77));
    let even = lengths("10..19");
    let each = |length: usize| even.iter().filter(|drawn| **drawn == length).count();
    assert!((10..=19).all(|length| (1800..2200).contains(&each(length))));
    let mut skew = lengths("lognormal:100:1:1000");
    skew.sort_unstable();
    assert!((95..=105).contains(&skew[10_000]), "{}", skew[10_000]);
    // One standard deviation above: e times the median.
    assert!((258..=286).contains(&skew[16_827]), "{}", skew[16_827]);
    assert_eq!((skew[0] >= 1, skew[19_999]), (true, 1000));
}

#[test]
fn lengths_are_written_as_they_are_read() {
    for text in ["64", "16..256", "lognormal:64:0.8", "lognormal:64:0.8:512"] {
        assert_eq!(text.parse::<Lengths>().unwrap().to_string(), text);
    }
}

#[test]
fn prompts_are_distinct_from_their_first_token_on() {
    let load = load("--requests 500 --prompt-tokens 1..40", 9);
    let ids: Vec<u32> = (100..1100).collect();
    let prompts: Vec<Vec<u32>> = (0..500).map(|request| load.prompt(request, &ids)).collect();
    let firsts: HashSet<u32> = prompts.iter().map(|prompt| prompt[0]).collect();
    assert_eq!(firsts.len(), 500);
    for (prompt, request) in prompts.iter().zip(&load.requests) {
        assert_eq!(prompt.len(), request.prompt_tokens);
        assert!(prompt.iter().all(|id| ids.contains(id)));
    }
    assert_eq!(load.prompt(3, &ids), prompts[3]);
}

#[test]
fn another_rate_moves_the_same_arrivals() {
    let slow = load("--rate 2 --requests 30 --burstiness 0.5", 1);
    let fast = slow.at_rate(8.0).unwrap();
    for (slow, fast) in slow.requests.iter().zip(&fast.requests) {
        assert!((slow.due.as_secs_f64() / 4.0 - fast.due.as_secs_f64()).abs() < 1e-8);
    }
    assert_eq!(fast.offered.request_rate, 8.0);
    assert!(load("--requests 3", 1).at_rate(2.0).is_err());
    assert!(slow.at_rate(0.0).is_err() && slow.at_rate(f64::NAN).is_err());
}

#[test]
fn a_trace_is_replayed_as_it_was_written() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("trace.jsonl");
    let drawn = load("--rate 5 --requests 200 --prompt-tokens 3..50", 4);
    fs::write(&path, drawn.to_trace()).unwrap();
    let replayed = load(&format!("--trace {} --concurrency 3", path.display()), 0);
    let close = |a: Duration, b: Duration| a.abs_diff(b) <= Duration::from_nanos(1);
    for (a, b) in drawn.requests.iter().zip(&replayed.requests) {
        assert!(close(a.due, b.due) && a.prompt_tokens == b.prompt_tokens);
    }
    assert_eq!(replayed.offered.max_concurrency, Some(3));
    assert!((replayed.offered.request_rate - 5.0).abs() < 0.01);
    assert!((0.7..1.4).contains(&replayed.offered.burstiness));
}

#[test]
fn a_trace_of_others_may_have_more_keys_and_empty_lines() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("trace.jsonl");
    let text = "{\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1, 2]}\n\n\
                {\"timestamp\": 3052, \"input_length\": 7, \"output_length\": 5}";
    fs::write(&path, text).unwrap();
    let load = load(&format!("--trace {}", path.display()), 0);
    let second = load.requests[1];
    assert_eq!(
        (second.due, second.prompt_tokens, second.output_tokens),
        (Duration::from_millis(3052), 7, 5)
    );
}

#[test]
fn a_broken_line_of_a_trace_is_named() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("trace.jsonl");
    let good = "{\"timestamp\": 10, \"input_length\": 5, \"output_length\": 5}\n";
    let broken = [
        "{\"timestamp\": 10, \"input_length\": 5",
        "hello",
        "{\"timestamp\": 10, \"input_length\": 5}",
        "{\"timestamp\": 10, \"input_length\": -5, \"output_length\": 5}",
        "{\"timestamp\": 10, \"input_length\": 0, \"output_length\": 5}",
        "{\"timestamp\": 10, \"input_length\": 5, \"output_length\": 0}",
        "{\"timestamp\": 9, \"input_length\": 5, \"output_length\": 5}",
        "{\"timestamp\": -1, \"input_length\": 5, \"output_length\": 5}",
        "{\"timestamp\": 1e300, \"input_length\": 5, \"output_length\": 5}",
    ];
    let said = broken.map(|line| {
        fs::write(&path, format!("{good}{line}\n")).unwrap();
        refused(&format!("--trace {}", path.display())).replace(&path.display().to_string(), "FILE")
    });
    fs::write(&path, "\n").unwrap();
    let empty = refused(&format!("--trace {}", path.display()))
        .replace(&path.display().to_string(), "FILE");
    insta::assert_snapshot!(format!("{}\n{empty}", said.join("\n")));
}

#[test]
fn flags_that_make_no_sense_are_refused_in_one_line() {
    let wrong = [
        "--rate 0",
        "--rate=-1",
        "--rate nan",
        "--rate 1e-300 --requests 2",
        "--rate fast",
        "--rate 1 --burstiness 0",
        "--rate 1 --burstiness nan",
        "--rate 1 --burstiness 1e-9 --requests 2",
        "--concurrency 0",
        "--requests 0",
        "--requests 1000001",
        "--prompt-tokens 0",
        "--prompt-tokens 9..3",
        "--prompt-tokens x..3",
        "--prompt-tokens lognormal:64",
        "--prompt-tokens lognormal:64:-1",
        "--prompt-tokens lognormal:64:1:32",
        "--output-tokens 99999999999",
        "--trace /no/such/file",
    ];
    let said = wrong.map(|flags| format!("{flags}: {}", refused(flags)));
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn requests_are_sent_when_they_are_due_and_no_more_than_allowed() {
    let load = load("--rate 1 --requests 4 --burstiness inf --concurrency 2", 0);
    let mut feed = Feed::new(&load);
    let at = Duration::from_secs;
    assert_eq!(feed.wake(), Some(at(1)));
    assert_eq!(feed.send(Duration::ZERO), None);
    assert_eq!(feed.send(at(3)).unwrap().0, 0);
    assert_eq!(feed.send(at(3)).unwrap().0, 1);
    // The third is due, but two are on their way.
    assert_eq!((feed.send(at(3)), feed.wake()), (None, None));
    feed.ended();
    assert_eq!(feed.send(at(3)).unwrap().0, 2);
    assert!(!feed.is_done());
    feed.ended();
    assert_eq!(feed.wake(), Some(at(4)));
    assert_eq!(feed.send(at(9)).unwrap().0, 3);
    assert!(feed.is_done() && feed.wake().is_none());
}
