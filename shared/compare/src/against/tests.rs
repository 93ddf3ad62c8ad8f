use console::report::Report;

use super::*;
use crate::testing::{PREALLOC, contestant, report};
use unicode_width::UnicodeWidthStr;

const SETTING: Setting = Setting {
    threads: 2,
    wait_policy: String::new(),
    blas: None,
    blas_path: None,
};

/// An answer as recorded, at another speed.
fn measured(decode_tps: f64, whole: f64) -> Measured {
    let mut run = report(PREALLOC).run().clone();
    run.prefill_tps = Some(1000.0);
    run.decode_tps = Some(decode_tps);
    Measured {
        run,
        first: whole / 2.0,
        whole,
    }
}

/// Three rounds of a part, and of mlx-lm with another last token if so asked.
fn beside(other: bool) -> Beside {
    let ours = [30.0, 10.0, 20.0].map(|tps| (report(PREALLOC), measured(tps, 1.0)));
    let versions = TheirVersions {
        mlx: "0.32.2".into(),
        mlx_lm: "0.32.2".into(),
    };
    let mut theirs = [15.0, 10.0, 40.0].map(|tps| (versions.clone(), measured(tps, 2.0)));
    if other {
        *theirs[2].1.run.tokens.last_mut().unwrap() += 1;
    }
    let ask = Ask {
        model: "tiny".into(),
        revision: None,
        dtype: Some("f32".into()),
        prompt: "\u{1b}[2J Explain\nblack holes ".repeat(20),
        prompt_file: None,
        max_tokens: None,
        raw: false,
    };
    let setting = Setting {
        wait_policy: "passive".into(),
        blas: Some("libblas-12345678.so.3.11.0".into()),
        ..SETTING
    };
    let bench = Bench {
        mlx_lm: &MlxLm::at("python3".into(), "answer.py".into()),
        ask: &ask,
        max_tokens: 8,
        rounds: 3,
        setting: &setting,
        interrupt: &Interrupt::default(),
    };
    bench
        .beside(&contestant(3, &[], true), &ours, &theirs)
        .unwrap()
}

fn shown(beside: &Beside) -> String {
    let mut text = Vec::new();
    print(&mut Report::plain(&mut text), beside).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_ratio_is_that_of_each_round_and_has_a_spread() {
    let beside = beside(false);
    let decode = &beside.rows[1];
    assert_eq!(decode.name, "decode tok/s");
    let expected = Summary {
        median: 1.0,
        half_iqr: 0.375,
        min: 0.5,
        max: 2.0,
    };
    assert_eq!(decode.ratio, expected);
    assert_eq!((decode.ours.median, decode.theirs.median), (20.0, 15.0));
    assert_eq!(beside.rows[3].ratio.median, 0.5);
    assert_eq!(beside.first_difference, None);
}

#[test]
fn a_table_has_medians_with_their_spread_in_80_columns() {
    let text = shown(&beside(false));
    assert!(text.lines().all(|line| line.width() <= 80), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn one_answer_with_another_token_is_told() {
    let text = shown(&beside(true));
    assert!(text.contains("DIFFERENT from token 8 of 8 on"), "{text}");
}

#[test]
fn both_programs_get_the_same_threads_and_the_same_way_of_waiting() {
    let mut command = Command::new("x");
    let setting = Setting {
        wait_policy: "passive".into(),
        ..SETTING
    };
    setting.apply(&mut command);
    let envs: Vec<(String, String)> = command
        .get_envs()
        .map(|(key, value)| (text(key), text(value.unwrap_or_default())))
        .collect();
    let expected = [("OMP_NUM_THREADS", "2"), ("OMP_WAIT_POLICY", "passive")];
    assert_eq!(
        envs,
        expected.map(|(key, value)| (key.into(), value.into()))
    );
}

fn text(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}

#[test]
fn a_checkout_without_mlx_lm_says_how_to_get_it() {
    let place = tempfile::tempdir().unwrap();
    let error = MlxLm::find(&Workspace::at(place.path())).unwrap_err();
    assert!(error.to_string().ends_with("`cargo xtask fetch mlx-lm`"));
}
