//! Bad input: one clear line that says what to try next, exit code 1, and nothing half-written.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::path::Path;
use std::process;

use assert_cmd::Command;
use assert_cmd::cargo::cargo_bin;
use shared::testing::checkpoints::{Defect, broken, edit, intact};
use tempfile::TempDir;

/// The one line of the error; the place of the result is as empty as before.
fn refusal(place: &Path, code: i32, args: &[&str]) -> String {
    let before = std::fs::read_dir(place).unwrap().count();
    let mut command = Command::cargo_bin("part4-quantization").unwrap();
    command.env("HF_HOME", place).env("HF_HUB_OFFLINE", "1");
    command.arg("convert").args(args);
    let output = command.current_dir(place).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?}");
    let mut lines = stderr.lines().filter(|line| line.starts_with("error: "));
    let line = lines.next().unwrap_or_else(|| panic!("{args:?}: {stderr}"));
    assert_eq!(lines.next(), None, "{stderr}");
    let after = std::fs::read_dir(place).unwrap().count();
    assert_eq!(before, after, "{args:?} left something");
    line.to_owned()
}

#[test]
fn every_defect_of_a_checkpoint_is_refused_and_nothing_is_written() {
    for defect in Defect::ALL {
        let (model, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let path = broken(defect, model.path()).unwrap();
        if matches!(defect, Defect::NoTokenizer | Defect::RaisingTemplate) {
            continue; // weights alone can be converted
        }
        let args = ["--model", path.to_str().unwrap(), "--out", "new"];
        let line = refusal(place.path(), 1, &args);
        assert!(line.len() > 40, "{defect:?}: {line}");
    }
}

#[test]
fn a_number_that_is_none_is_named_with_its_place() {
    let (model, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    broken(Defect::NotANumber, model.path()).unwrap();
    let path = model.path().to_str().unwrap();
    let line = refusal(place.path(), 1, &["--model", path, "--out", "new"]);
    let says = "model.layers.3.mlp.down_proj.weight: row 0, column 0 is NaN";
    assert!(line.contains(says), "{line}");
}

#[test]
fn flags_and_recipes_that_cannot_be_are_refused() {
    let place = TempDir::new().unwrap();
    for (args, code, says) in [
        (&["--bits", "7"][..], 2, "must be one of [2, 3, 4, 5, 6, 8]"),
        (&["--group-size", "48"], 2, "must be one of [32, 64, 128]"),
        (
            &["--bits", "4", "--mixed", "mixed_3_4"],
            2,
            "cannot be used with",
        ),
        (&["--mixed", "mixed_1_2"], 2, "mixed_2_6"),
        (&["--override", "down_proj"], 2, "must be PATTERN=BITS"),
        (&["--override", "(=4"], 2, "is no regular expression"),
        (&["--override", "x=7"], 2, "MLX has 2, 3, 4, 5, 6 or 8 bits"),
        (
            &["--override", "experts=4"],
            1,
            "--override experts=4 matches none of the 57 modules; the first is model.",
        ),
        (&["--mode", "q4_k"], 2, "affine"),
        (
            &["--mode", "mxfp4", "--bits", "8"],
            1,
            "--mode mxfp4 has 4 bits in groups of 32: leave --bits and --group-size away",
        ),
        (
            &["--mode", "nvfp4", "--group-size", "32"],
            1,
            "--mode nvfp4 has 4 bits in groups of 16",
        ),
        (
            &["--mode", "mxfp8", "--mixed", "mixed_3_4"],
            1,
            "--mixed has two widths of affine codes",
        ),
        (
            &["--mode", "mxfp4", "--rounding", "gpu"],
            1,
            "--rounding is of affine codes",
        ),
        (
            &["--mode", "mxfp4", "--compare-rounding"],
            1,
            "--rounding is of affine codes",
        ),
        (
            &["--fit", "best"],
            1,
            "--fit chooses the scales of a float mode",
        ),
        (&["--override", "x=q4_k"], 2, "must be PATTERN=BITS"),
        (&["--rounding", "tpu"], 2, "must be cpu or gpu"),
    ] {
        let line = refusal(place.path(), code, &[&["--out", "new"], args].concat());
        // clap gives the possible values a line of their own.
        assert!(line.contains(says) || code == 2, "{args:?}: {line}");
    }
}

#[test]
fn a_group_that_does_not_divide_is_refused_with_one_that_does() {
    let place = TempDir::new().unwrap();
    let path = shared::testing::fixtures::directory().join("llama-tied");
    let args = [
        "--model",
        path.to_str().unwrap(),
        "--group-size",
        "128",
        "--out",
        "new",
    ];
    let line = refusal(place.path(), 1, &args);
    assert!(
        line.contains("groups of 128 do not divide the rows of "),
        "{line}"
    );
}

#[test]
fn a_place_that_is_taken_and_one_that_is_not_there_are_refused() {
    let place = TempDir::new().unwrap();
    for (out, says) in [
        (
            place.path().to_str().unwrap(),
            "is there already: give another name, or remove it",
        ),
        (
            "no/such/place",
            "there is no directory no/such: make it first",
        ),
        ("-", "`-` is no name"),
    ] {
        let line = refusal(place.path(), 1, &["--out", out]);
        assert!(line.contains(says), "{line}");
    }
}

#[test]
fn a_quantized_model_is_not_quantized_again() {
    let place = TempDir::new().unwrap();
    let once = place.path().join("once");
    let mut command = Command::cargo_bin("part4-quantization").unwrap();
    command
        .arg("convert")
        .arg("--out")
        .arg(&once)
        .assert()
        .success();
    let fixture = |name: &str| shared::testing::fixtures::directory().join(name);
    for model in [once, fixture("qwen3-8bit-mixed")] {
        let args = ["--model", model.to_str().unwrap(), "--out", "twice"];
        let line = refusal(place.path(), 1, &args);
        assert!(line.contains("is quantized already"), "{line}");
    }
}

#[test]
fn codes_that_are_taken_over_are_not_chosen_anew() {
    let place = TempDir::new().unwrap();
    let fixture = |name: &str| shared::testing::fixtures::directory().join(name);
    for (model, flags, says) in [
        (
            "gguf-k/model.gguf",
            "--bits 4",
            "its codes are taken over as they are",
        ),
        (
            "gguf-k/model.gguf",
            "--mode mxfp4",
            "its codes are taken over as they are",
        ),
        (
            "gguf-k/model.gguf",
            "--compare-rounding",
            "its codes are taken over as they are",
        ),
        (
            "gguf-k/model.gguf",
            "--requantize --override q_proj.*up_proj=4",
            "matches none of the 7 modules",
        ),
        (
            "gguf-llama/model.gguf",
            "--requantize",
            "has nothing of that: leave it away",
        ),
        ("llama", "--requantize", "is for the blocks of a GGUF file"),
    ] {
        let model = fixture(model);
        let mut args = vec!["--model", model.to_str().unwrap(), "--out", "new"];
        args.extend(flags.split(' '));
        let line = refusal(place.path(), 1, &args);
        assert!(line.contains(says), "{flags}: {line}");
    }
}

#[test]
fn a_model_of_an_unknown_kind_is_refused() {
    let (model, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    intact(model.path()).unwrap();
    edit(model.path(), "config.json", "model_type", "mamba".into()).unwrap();
    let path = model.path().to_str().unwrap();
    let line = refusal(place.path(), 1, &["--model", path, "--out", "new"]);
    assert!(line.contains("mamba"), "{line}");
}

/// A file system of 2 MB, where Linux lets us have one: then the weights do not fit, and nothing is left.
#[test]
fn a_full_disk_leaves_nothing() {
    let place = TempDir::new().unwrap();
    let script = r#"
        mount -t tmpfs -o size=2m tmpfs "$1" 2>/dev/null || exit 42
        "$2" convert --out "$1/new"
        code=$?
        test -z "$(ls -A "$1")" || exit 43
        exit $code
    "#;
    let mut command = process::Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
    ]);
    command
        .arg(place.path())
        .arg(cargo_bin("part4-quantization"));
    let Ok(output) = command.output() else {
        return; // not Linux
    };
    let stderr = String::from_utf8(output.stderr).unwrap();
    if stderr.contains("unshare") || output.status.code() == Some(42) {
        return; // not allowed here
    }
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: converting tiny to "), "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
}
