//! Step times: learnt from steps whose true times are known, and computed from data sheets.

use part5_batching::machines::{Chip, Shape};
use part5_batching::plan::{Piece, Plan, SequenceId, Why};
use part5_batching::step_times::{Sample, StepTimes, Table, Work};
use proptest::prelude::*;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// A machine whose times are known: rows cost what 4-bit weights cost on a Mac.
fn truth() -> StepTimes {
    StepTimes {
        host: 2e-4,
        rows: Table::new(vec![
            (1, 1e-3),
            (2, 1.85e-3),
            (4, 3.27e-3),
            (8, 6.15e-3),
            (16, 6.3e-3),
            (32, 6.4e-3),
        ]),
        context: 2e-7,
        pieces: Table::new(vec![(8, 6e-3), (32, 7e-3), (64, 1.1e-2), (128, 2.2e-2)]),
        piece_context: 3e-9,
    }
}

/// Steps as a calibration measures them, and what else comes in a run; each off by up to `noise` of its time.
fn samples(count: usize, noise: f64, seed: u64) -> Vec<Sample> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut draw = |from: &[usize]| from[random.random_range(0..from.len())];
    let works: Vec<Work> = (0..count)
        .map(|_| {
            let rows = draw(&[0, 1, 2, 4, 8, 16, 32]);
            let pieces = (0..draw(&[0, 0, 1, 1, 2]))
                .map(|_| (draw(&[8, 32, 64, 128]), draw(&[0, 64, 512, 2048])))
                .collect();
            Work {
                rows,
                context: rows * draw(&[16, 64, 512, 2000]),
                pieces,
            }
        })
        .filter(|work| work.rows > 0 || !work.pieces.is_empty())
        .collect();
    let time = |work: Work| {
        let error = 1.0 + noise * random.random_range(-1.0..1.0);
        Sample {
            seconds: truth().seconds(&work) * error,
            work,
        }
    };
    works.into_iter().map(time).collect()
}

#[test]
fn what_is_learnt_is_what_was_there() {
    let (found, unseen) = StepTimes::calibrate(&samples(400, 0.0, 1)).unwrap();
    let errors = unseen.errors;
    assert!(errors.mean < 1e-6, "{errors:?}");
    let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-4;
    let truth = truth();
    assert!(close(found.host, truth.host), "{found:?}");
    assert!(close(found.context, truth.context) && close(found.piece_context, truth.piece_context));
    for (table, known) in [(&found.rows, &truth.rows), (&found.pieces, &truth.pieces)] {
        let pairs = table.points().iter().zip(known.points());
        assert!(
            table.len() == known.len()
                && pairs
                    .into_iter()
                    .all(|(a, b)| a.0 == b.0 && close(a.1, b.1))
        );
    }
}

#[test]
fn noise_is_averaged_out_and_its_size_is_told() {
    let (found, unseen) = StepTimes::calibrate(&samples(600, 0.1, 2)).unwrap();
    let errors = unseen.errors;
    assert!((0.03..0.07).contains(&errors.mean), "{errors:?}");
    assert!(
        errors.p90 > errors.median && errors.bias.abs() < 0.02,
        "{errors:?}"
    );
    for Sample { work, .. } in samples(200, 0.0, 3) {
        let off = found.seconds(&work) / truth().seconds(&work) - 1.0;
        assert!(off.abs() < 0.05, "{off} for {work:?}");
    }
}

#[test]
fn errors_are_those_of_steps_that_had_no_part_in_the_model() {
    let mut slower = samples(400, 0.0, 1);
    for sample in slower.iter_mut().skip(3).step_by(4) {
        sample.seconds *= 2.0;
    }
    let (_, unseen) = StepTimes::calibrate(&slower).unwrap();
    let close = |ratio: &f64| (ratio / 2.0 - 1.0).abs() < 1e-4;
    assert!(unseen.ratios.len() == slower.len() / 4 && unseen.ratios.iter().all(close));
    assert!((unseen.errors.median - 0.5).abs() < 1e-4);
}

#[test]
fn pieces_of_every_length_are_learnt_from_short_to_long() {
    // Up to a number of tokens a piece costs what reading the weights costs.
    let seconds = |tokens: usize| 1e-3 * (tokens as f64 / 32.0).max(1.0);
    let sample = |tokens: usize| Sample {
        work: Work {
            pieces: vec![(tokens, 0)],
            ..Work::default()
        },
        seconds: seconds(tokens),
    };
    let all: Vec<Sample> = (1..=200).map(sample).collect();
    let found = StepTimes::fit(&all).unwrap();
    for Sample { work, seconds } in &all {
        let off = found.seconds(work) / seconds - 1.0;
        assert!(off.abs() < 0.1, "{off} for {work:?}");
    }
}

#[test]
fn a_step_in_which_the_machine_did_something_else_does_not_bend_the_model() {
    let mut disturbed = samples(400, 0.02, 4);
    for sample in disturbed.iter_mut().step_by(20) {
        sample.seconds *= 10.0;
    }
    let found = StepTimes::fit(&disturbed).unwrap();
    let errors = found.errors(&samples(200, 0.0, 5));
    assert!(errors.mean < 0.03, "{errors:?}");
}

#[test]
fn no_part_of_a_step_takes_less_than_no_time() {
    // Attention costs nothing here: noise alone would make it negative half of the time.
    for seed in 0..20 {
        let mut free = samples(120, 0.2, seed);
        for sample in &mut free {
            let work = Work {
                context: 0,
                ..sample.work.clone()
            };
            sample.seconds *= truth().seconds(&work) / truth().seconds(&sample.work);
        }
        let found = StepTimes::fit(&free).unwrap();
        let tables = found.rows.points().iter().chain(found.pieces.points());
        assert!(
            tables.into_iter().all(|(_, seconds)| *seconds >= 0.0),
            "{found:?}"
        );
        assert!(
            found.host >= 0.0 && found.context >= 0.0 && found.piece_context >= 0.0,
            "{found:?}"
        );
    }
}

#[test]
fn few_steps_are_refused() {
    let refused = StepTimes::fit(&samples(12, 0.0, 1)[..8])
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("8 measured steps are too few for "),
        "{refused}"
    );
    let mut stopped = samples(400, 0.0, 1);
    stopped[7].seconds = 0.0;
    assert!(StepTimes::fit(&stopped).is_err());
    assert!(StepTimes::fit(&[]).is_err());
}

#[test]
fn one_kind_of_step_is_enough_for_that_kind() {
    let decodes: Vec<Sample> = samples(900, 0.0, 6)
        .into_iter()
        .filter(|sample| sample.work.pieces.is_empty())
        .collect();
    let found = StepTimes::fit(&decodes).unwrap();
    assert!(found.errors(&decodes).mean < 1e-6);
}

#[test]
fn what_was_not_measured_is_said() {
    let work = |rows, tokens| Work {
        rows,
        context: 0,
        pieces: vec![(tokens, 0)],
    };
    let truth = truth();
    assert_eq!(truth.beyond(&work(32, 128)), None);
    assert_eq!(
        truth.beyond(&work(33, 128)).unwrap(),
        "33 rows, measured up to 32"
    );
    assert_eq!(
        truth.beyond(&work(2, 129)).unwrap(),
        "a piece of 129 tokens, measured up to 128"
    );
}

#[test]
fn a_table_is_straight_between_its_places_and_goes_on_beyond_them() {
    let table = Table::new(vec![(8, 10.0), (2, 4.0), (4, 6.0)]);
    let at = [1, 2, 3, 4, 6, 8, 10].map(|count| table.at(count));
    assert_eq!(at, [4.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0]);
    let falling = Table::new(vec![(1, 5.0), (2, 3.0)]);
    assert_eq!(falling.at(9), 3.0);
    assert_eq!(
        (
            Table::new(vec![(4, 7.0)]).at(1),
            Table::new(vec![(4, 7.0)]).at(9)
        ),
        (7.0, 7.0)
    );
    assert_eq!(Table::default().at(3), 0.0);
}

#[test]
fn the_work_of_a_plan_is_its_rows_and_its_pieces() {
    let piece = |id, range, why| Piece {
        id: SequenceId(id),
        range,
        last: true,
        why,
    };
    let pieces = vec![
        piece(0, 40..41, Why::Decode),
        piece(1, 32..64, Why::Prompt),
        piece(2, 9..10, Why::Decode),
        piece(3, 0..16, Why::Again),
    ];
    let work = Work::of(&Plan {
        pieces,
        ..Plan::default()
    });
    assert_eq!(
        work,
        Work {
            rows: 2,
            context: 51,
            pieces: vec![(32, 32), (16, 0)]
        }
    );
    assert_eq!(work.prompt_tokens(), 48);
}

proptest! {
    #[test]
    fn steps_are_written_as_they_are_read(seed in 0..1000_u64) {
        let written = samples(20, 0.3, seed);
        let text = serde_json::to_string(&written).unwrap();
        let read: Vec<Sample> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read.len(), written.len());
        for (read, written) in read.iter().zip(&written) {
            prop_assert_eq!(&read.work, &written.work);
            prop_assert!((read.seconds / written.seconds - 1.0).abs() < 1e-14);
        }
    }
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!(
        (found / expected - 1.0).abs() < 1e-3,
        "{found}, not {expected}"
    );
}

fn decode(rows: usize) -> Work {
    Work {
        rows,
        context: 0,
        pieces: Vec::new(),
    }
}

#[test]
fn a_lone_row_takes_what_its_bytes_take() {
    let shape = Shape::named("llama-3.1-8b-4bit").unwrap();
    // 32 layers of 4096·(32+8)·128·2 + 3·4096·14336, and a head of 4096·128256.
    close(
        shape.parameters,
        32.0 * (41_943_040.0 + 176_160_768.0) + 525_336_576.0,
    );
    close(shape.kv_bytes_per_token, 131_072.0);
    close(shape.flops_per_pair, 4.0 * 32.0 * 32.0 * 128.0);
    let times = Chip::named("m4-max").unwrap().step_times(&shape);
    close(
        times.seconds(&decode(1)),
        shape.parameters * 4.5 / 8.0 / 546e9,
    );
    close(times.context, 131_072.0 / 546e9);
}

#[test]
fn rows_of_4_bit_weights_pay_up_to_the_eighth_on_a_mac_and_those_of_16_bits_once() {
    let mac = Chip::named("M4-Max").unwrap();
    let ratio = |model: &str, chip: &Chip, rows: usize| {
        let times = chip.step_times(&Shape::named(model).unwrap());
        times.seconds(&decode(rows)) / times.seconds(&decode(1))
    };
    close(ratio("qwen3-4b-4bit", &mac, 8), 6.15);
    close(ratio("qwen3-4b-4bit", &mac, 32), 6.34);
    close(ratio("qwen3-4b", &mac, 2), 2.0);
    close(ratio("qwen3-4b", &mac, 32), 2.0);
    let other = Chip::named("h100").unwrap();
    close(ratio("qwen3-4b-4bit", &other, 32), 1.0);
}

#[test]
fn a_long_piece_takes_what_its_operations_take() {
    let shape = Shape::named("qwen3-4b-4bit").unwrap();
    let chip = Chip::named("bandwidth=100, tflops=4").unwrap();
    let times = chip.step_times(&shape);
    let piece = Work {
        rows: 0,
        context: 0,
        pieces: vec![(512, 0)],
    };
    let pairs = 512.0 * 513.0 / 2.0;
    close(
        times.seconds(&piece),
        (2.0 * shape.parameters * 512.0 + shape.flops_per_pair * pairs) / 4e12,
    );
}

#[test]
fn machines_and_models_that_are_not_known_are_refused_in_one_line() {
    let machines = [
        "m9",
        "",
        "bandwidth=5",
        "bandwidth=0,tflops=3",
        "bandwidth=x,tflops=3",
    ];
    let mut said = machines
        .map(|name| format!("{:#}", Chip::named(name).unwrap_err()))
        .to_vec();
    said.push(format!("{:#}", Shape::named("gpt-7").unwrap_err()));
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_config_gives_the_shape_that_its_name_gives() {
    let fixture = shared::testing::fixtures::directory().join("llama-4bit-tied");
    let checkpoint = shared::checkpoint::Checkpoint::open(
        "fixture",
        shared::hub::ModelFiles::Directory(fixture),
    )
    .unwrap();
    let config = &checkpoint.config;
    let shape = Shape::of(config);
    let group = config.quantization.as_ref().unwrap().default;
    close(shape.bits_per_weight, 4.0 + 32.0 / group.group_size as f64);
    close(
        shape.kv_bytes_per_token,
        config.kv_bytes_per_token(2) as f64,
    );
}
