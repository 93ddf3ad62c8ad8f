//! What people read: help and the report, at 80 columns.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use assert_cmd::Command;

#[test]
fn help_of_convert_fits_the_terminal() {
    let mut command = Command::cargo_bin("part4-quantization").unwrap();
    let output = command.args(["convert", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.lines().all(|line| line.chars().count() <= 80));
    insta::assert_snapshot!(help);
}

#[test]
fn the_report_of_a_conversion_fits_80_columns() {
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("part4-quantization").unwrap();
    command.args([
        "convert",
        "--mixed",
        "mixed_3_6",
        "--override",
        "embed_tokens=6",
    ]);
    command.args(["--compare-rounding", "--out", "tiny-3-6"]);
    let output = command.current_dir(place.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.starts_with("✓ converted tiny to tiny-3-6 "),
        "{stderr}"
    );
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.lines().all(|line| line.chars().count() <= 80));
    insta::assert_snapshot!(report);
}
