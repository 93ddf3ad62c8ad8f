//! What guesses take of memory they give back, whatever becomes of them.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod engines;

use std::path::Path;
use std::time::Duration;

use console::cli::ModelArgs;
use engines::{limits, model, tiny, tokenizer};
use part6_pipeline::generate::Generator;
use part6_pipeline::kinds::CacheKind;
use part6_pipeline::limits::{Limits, Memory};
use part6_pipeline::model::Model;
use part6_pipeline::plan::SequenceId;
use part6_pipeline::speculate::{Speculation, Speculator, Way};
use shared::machine::active_bytes;
use shared::request::Request;
use shared::sampling::Sampling;
use tempfile::TempDir;

/// Tokens of the longest answers: the arrays of a row, of the model and of the draft, grow several times.
const LONG: usize = 700;

/// What differs from time to time: ids and masks, less than a few positions of one row take.
const CRUMBS: u64 = 16384;

/// What of the last step stays until the next one: beside crumbs the scores for up to three rows, 4,096 floats each.
const LAST_STEP: u64 = CRUMBS + 3 * 4096 * 4;

/// What is held when nobody is left.
#[derive(Debug)]
struct Held {
    /// By MLX, and the most of it after any step.
    bytes: u64,
    most: u64,
    /// By the tree of prefixes.
    prefixes: u64,
    /// By the rows that decode.
    rows: u64,
    kv_tokens: usize,
}

/// What became of guesses.
#[derive(Debug, Default, Clone, Copy)]
struct Guesses {
    guessed: usize,
    right: usize,
    preempted: usize,
}

fn draft(name: &str) -> Way {
    Way::Draft(ModelArgs {
        model: name.to_owned(),
        ..model()
    })
}

/// A draft model that says again what was said last: with such an epsilon its layers see hardly more than zeros.
fn parrot(place: &TempDir) -> Way {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/tiny-draft");
    for file in std::fs::read_dir(source).unwrap() {
        let file = file.unwrap().path();
        let to = place.path().join(file.file_name().unwrap());
        if file.ends_with("config.json") {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains("\"rms_norm_eps\": 1e-05"));
            std::fs::write(to, text.replace("1e-05", "0.999")).unwrap();
        } else {
            std::fs::copy(file, to).unwrap();
        }
    }
    draft(&place.path().display().to_string())
}

fn request(text: &str, max_tokens: usize) -> Request {
    let ids = tokenizer().encode_prompt(text, true).unwrap();
    Request {
        ids,
        max_tokens,
        stop_ids: Vec::new(),
        sampling: Sampling::default(),
    }
}

fn requests(tokens: usize) -> [Request; 3] {
    [
        "The sun rises in the east. The sun rises in",
        "Once upon a time there was a little dog",
        "fn add(a: u32, b: u32) -> u32 {",
    ]
    .map(|text| request(text, tokens))
}

/// Runs a generator for each way to guess, and compares what is held after the second and the third time that the same
/// has happened.
fn assert_flat(
    ways: &[Way],
    limits: &Limits,
    happens: impl Fn(&mut Generator<'_>, &mut dyn FnMut(&mut Generator<'_>, &[SequenceId])),
    is_right: impl Fn(&Guesses) -> bool,
) {
    let checkpoint = tiny();
    let model = Model::load(&checkpoint).unwrap();
    let config = &checkpoint.config;
    for way in ways {
        let kind = CacheKind::Prealloc;
        let mut generator = Generator::new(&model, config, kind, limits.clone()).unwrap();
        generator.remember(64 << 20);
        let how = Speculation {
            way: way.clone(),
            most: 5,
            always: true,
        };
        let speculator = Speculator::new(how, &tokenizer(), config.vocab_size, 4096).unwrap();
        generator.speculate(speculator).unwrap();
        let before = active_bytes().unwrap();
        let thirds = [(); 3].map(|()| {
            let (mut guesses, mut most) = (Guesses::default(), 0);
            let mut step = |generator: &mut Generator<'_>, leave: &[SequenceId]| {
                let step = generator.step(Duration::ZERO).unwrap();
                most = most.max(active_bytes().unwrap());
                guesses.preempted += step.plan.preempted.len();
                for tried in step.tried {
                    guesses.guessed += tried.guessed;
                    guesses.right += tried.right;
                }
                leave.iter().for_each(|id| generator.cancel(*id).unwrap());
            };
            happens(&mut generator, &mut step);
            assert!(is_right(&guesses), "{way:?}: {guesses:?}");
            let held = Held {
                bytes: active_bytes().unwrap(),
                most,
                prefixes: generator.known().bytes(),
                rows: generator.batch().cache().bytes(),
                kv_tokens: generator.scheduler().kv_tokens_used(),
            };
            println!("{guesses:?} {held:?}, {before} before");
            held
        });
        let [_, second, third] = &thirds;
        for held in &thirds {
            assert_eq!((held.rows, held.kv_tokens), (0, 0));
            let kept = before + held.prefixes;
            assert!(
                held.bytes.abs_diff(kept) < LAST_STEP,
                "{way:?}: {kept}, {held:?}"
            );
        }
        assert_eq!(second.prefixes, third.prefixes, "{way:?}");
        assert!(
            second.bytes.abs_diff(third.bytes) < 64,
            "{way:?}: {thirds:?}"
        );
        assert!(
            second.most.abs_diff(third.most) < CRUMBS,
            "{way:?}: {thirds:?}"
        );
    }
}

/// All at once, to the end.
fn answer(
    generator: &mut Generator<'_>,
    step: &mut dyn FnMut(&mut Generator<'_>, &[SequenceId]),
    requests: &[Request],
) {
    for request in requests {
        generator.submit(request.clone(), Duration::ZERO).unwrap();
    }
    while !generator.scheduler().is_idle() {
        generator.reuse().unwrap();
        step(generator, &[]);
    }
}

#[test]
fn long_answers_with_guesses_leave_the_memory_flat() {
    let ways = [Way::Lookup, draft("tiny-draft")];
    assert_flat(
        &ways,
        &limits(),
        |generator, step| {
            let [first, second, _] = requests(LONG);
            answer(generator, step, &[first]);
            answer(generator, step, &[second, request("The", 300)]);
        },
        |guesses| 0 < guesses.right && guesses.right < guesses.guessed,
    );
}

#[test]
fn guesses_that_are_rejected_at_every_step_leave_the_memory_flat() {
    let place = TempDir::new().unwrap();
    assert_flat(
        &[parrot(&place)],
        &limits(),
        |generator, step| answer(generator, step, &requests(280)),
        |guesses| guesses.guessed > 3000 && guesses.right * 100 < guesses.guessed,
    );
}

#[test]
fn rows_that_leave_while_guesses_are_tried_out_leave_the_memory_flat() {
    let ways = [Way::Lookup, draft("tiny-draft")];
    assert_flat(
        &ways,
        &limits(),
        |generator, step| {
            for steps in [1, 2, 5, 20, 60] {
                let submit = |request| generator.submit(request, Duration::ZERO).unwrap();
                let [first, second, third] = requests(LONG).map(submit);
                for _ in 0..steps {
                    generator.reuse().unwrap();
                    step(generator, &[]);
                }
                step(generator, &[first]);
                step(generator, &[]);
                step(generator, &[third, second]);
            }
        },
        |guesses| guesses.guessed > 50,
    );
}

#[test]
fn rows_that_lose_their_memory_while_they_guess_leave_it_flat() {
    let ways = [Way::Lookup, draft("tiny-draft")];
    let limits = Limits {
        kv_tokens: 400,
        memory: Memory::Preempt,
        ..limits()
    };
    assert_flat(
        &ways,
        &limits,
        |generator, step| answer(generator, step, &requests(LONG / 2)),
        |guesses| guesses.preempted > 1 && guesses.right > 0,
    );
}
