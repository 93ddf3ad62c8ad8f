//! The whole program with the real parts. Cargo is asked for their release builds; here it hands out
//! those of the tests, which need no second compilation of everything.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What the tests have instead of Cargo: `build` names the test profile's program (which is built if
/// nobody did so yet), anything else is Cargo's.
struct Bench {
    folder: TempDir,
    cargo: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cargo = folder.path().join("cargo");
        let real = std::env::var("CARGO").unwrap();
        let target = assert_cmd::cargo::cargo_bin("compare");
        let target = target.parent().unwrap().display();
        let script = format!(
            r#"#!/bin/sh
[ "$1" = build ] || exec "{real}" "$@"
for word in "$@"; do case "$word" in part*) part=$word;; esac; done
[ "$part" != "$BROKEN" ] || {{ echo "error[E0425]: cannot find it" >&2; exit 101; }}
[ -x "{target}/$part" ] || "{real}" build --bin "$part" >&2 || exit
[ "$part" != "$DYING" ] || {{
  echo "{{\"target\":{{\"name\":\"$part\"}},\"executable\":\"$DIES\"}}"
  exit
}}
echo "{{\"target\":{{\"name\":\"$part\"}},\"executable\":\"{target}/$part\"}}"
"#
        );
        fs::write(&cargo, script).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, cargo }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("compare"));
        command.args(args).env("CARGO", &self.cargo);
        command.current_dir(self.folder.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Exit code 1 and the last line of stderr.
    fn failure(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr.trim_end().lines().next_back().unwrap().to_owned()
    }
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_ladder_is_measured_written_and_replaced_on_the_same_day() {
    let bench = Bench::new();
    let args = [
        "--rounds",
        "2",
        "--max-tokens",
        "6",
        "--all",
        "--out",
        "found",
    ];
    for _ in 0..2 {
        let output = bench.run(&args);
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            stdout.contains("= the 6 tokens of part 2, every one"),
            "{stdout}"
        );
        assert!(!stdout.contains('\u{1b}'), "{stdout}");
    }
    let folder = bench.folder.path().join("found");
    let names = files(&folder);
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(
        names[0].contains("-tiny-2") && names[0].ends_with(".json"),
        "{names:?}"
    );
    assert_eq!(names[1], names[0].replace(".json", ".svg"));
    let [(_, results)] = &console::results::read_all(&folder).unwrap()[..] else {
        panic!("one file");
    };
    assert_eq!(
        (results.n, results.new_tokens, results.prompt_tokens),
        (2, 6, 12)
    );
    let rungs: Vec<&str> = results.rungs().map(|step| step.variant.as_str()).collect();
    let guessed = "8 rows, lookup";
    assert_eq!(rungs, ["naive", "prealloc", "4-bit", "8 rows", guessed]);
    assert!(results.steps.len() > rungs.len());
    for step in &results.steps {
        assert!(step.ttft_ms.median > 0.0 && step.decode_tps.median > 0.0);
        assert!(step.throughput_tps.median > 0.0);
        if step.number == 4 {
            assert!(
                step.weight_bytes < Some(14_688_768),
                "{:?}",
                step.weight_bytes
            );
        } else {
            // What quantizing does to a token is measured; all the others compute the same.
            assert_eq!(step.first_difference, None, "{}", step.variant);
            assert_eq!(step.weight_bytes, Some(14_688_768));
        }
        assert_eq!(step.rows, if step.number < 5 { 1 } else { 8 });
    }
    assert_eq!(results.steps[0].kv_bytes, Some(0));
    assert_eq!(results.steps[0].ratio_to_part2, Some(1.0));
}

#[test]
fn an_answer_with_another_token_has_the_margin_that_the_model_as_it_is_gives_it() {
    let bench = Bench::new();
    // In 4 bits the embedded model says something else here.
    let args = ["--rounds", "1", "--parts", "3,4", "--out", "found"];
    let asked = ["--prompt", "Hello", "--max-tokens", "48"];
    let output = bench.run(&[&args[..], &asked].concat());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stdout.contains(" ≠ 4 4-bit: differs from part 3 at token "),
        "{stdout}"
    );
    let [(_, results)] =
        &console::results::read_all(&bench.folder.path().join("found")).unwrap()[..]
    else {
        panic!("one file");
    };
    let step = &results.steps[1];
    assert!(step.first_difference.is_some());
    // The reference took its likeliest token, so no other one is preferred to it.
    assert!(step.margin_nats.unwrap() >= 0.0, "{step:?}");
    assert_eq!(results.steps[0].margin_nats, None);
}

/// Whether `cargo xtask fetch mlx-lm` was run here; says so if not, and fails with `CI=true`.
fn has_mlx_lm() -> bool {
    let workspace = console::workspace::Workspace::find().unwrap();
    let there = compare::against::MlxLm::find(&workspace).is_ok();
    if !there {
        let reason = "needs mlx-lm: `cargo xtask fetch mlx-lm`";
        let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!in_ci, "{reason}");
        // Not `eprintln`, whose text the test runner hides when a test passes.
        let _ = writeln!(std::io::stderr(), "skipped: {reason}");
    }
    there
}

#[test]
fn every_part_gives_the_tokens_of_mlx_lm() {
    if !has_mlx_lm() {
        return;
    }
    let bench = Bench::new();
    let output = bench.run(&[
        "--against",
        "mlx-lm",
        "--rounds",
        "1",
        "--max-tokens",
        "6",
        "--prompt-tokens",
        "9,33",
        "--json",
        "found.json",
    ]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let same = "Tokens: the same 6 in all answers of both.";
    assert!(stdout.matches(same).count() >= 4, "{stdout}");
    let text = fs::read_to_string(bench.folder.path().join("found.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let lengths = found.as_array().unwrap().iter();
    let lengths: Vec<u64> = lengths
        .map(|one| one["prompt_tokens"].as_u64().unwrap())
        .collect();
    assert!(
        lengths.starts_with(&[9, 9]) && lengths.ends_with(&[33, 33]),
        "{lengths:?}"
    );
}

#[test]
fn on_a_pipe_the_race_is_lines_with_the_part_in_front() {
    let bench = Bench::new();
    let output = bench.run(&["--live", "--max-tokens", "24"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for number in 2..=6 {
        let text = format!("{number} │ A black hole is a place in space");
        let end = format!("{number} │ ── finished as number ");
        assert!(stdout.contains(&text) && stdout.contains(&end), "{stdout}");
    }
    assert!(
        stdout.contains("gave the tokens of part 2, every one"),
        "{stdout}"
    );
    assert!(
        !stdout.contains('\u{1b}') && !stdout.contains(" model  "),
        "{stdout}"
    );
}

#[test]
fn a_mistake_is_told_in_one_line() {
    let bench = Bench::new();
    let missing = bench.failure(&["--model", "no-such-folder/x.gguf"]);
    assert!(missing.starts_with("error: part 2: "), "{missing}");
    assert!(missing.contains("no-such-folder/x.gguf"), "{missing}");
    let live = bench.failure(&["--live", "--parts", "3", "--model", "no-such-folder/x.gguf"]);
    assert!(
        live.starts_with("error: part 3: ") && live.contains("x.gguf"),
        "{live}"
    );
    let part = bench.failure(&["--parts", "1"]);
    assert!(
        part.starts_with("error: there is no part 1 to compare: --parts takes 2, 3, 4, 5, 6"),
        "{part}"
    );
    let file = bench.failure(&["--prompt-file", "none.txt"]);
    assert_eq!(
        file,
        "error: there is no file none.txt to take the prompt from"
    );
    fs::write(bench.folder.path().join("taken"), "").unwrap();
    let out = bench.failure(&[
        "--parts",
        "3",
        "--rounds",
        "1",
        "--max-tokens",
        "2",
        "--out",
        "taken",
    ]);
    assert!(
        out.starts_with("error: cannot make the folder taken"),
        "{out}"
    );
    let wrong = bench.run(&["--max-tokens", "1"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_part_that_does_not_build_is_named() {
    let bench = Bench::new();
    let output = bench
        .command(&[])
        .env("BROKEN", "part3-kv-cache")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("error[E0425]"), "{stderr}");
    let last = stderr.trim_end().lines().next_back().unwrap();
    assert_eq!(
        last,
        "error: part3-kv-cache does not build; cargo's message is above"
    );
}

#[test]
fn a_lane_that_dies_does_not_end_the_others_and_is_told_at_the_end() {
    let bench = Bench::new();
    let dies = bench.folder.path().join("dies");
    fs::write(&dies, "#!/bin/sh\nprintf 'A black'\nkill -9 $$\n").unwrap();
    fs::set_permissions(&dies, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = bench.command(&["--live", "--parts", "3,5", "--max-tokens", "8"]);
    command.env("DYING", "part5-batching").env("DIES", &dies);
    let output = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stdout.contains("3 │ ── finished as number 1: 8 tokens"),
        "{stdout}"
    );
    assert!(stdout.contains("5 │ ── failed"), "{stdout}");
    assert!(stdout.contains("Only part 3 finished"), "{stdout}");
    let last = stderr.trim_end().lines().next_back().unwrap();
    assert_eq!(last, "error: part 5: it ended with signal: 9 (SIGKILL)");
}

/// Processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let ps = Command::new("ps")
        .args(["-A", "-o", "ppid=,pid="])
        .output()
        .unwrap();
    let text = String::from_utf8(ps.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| {
        let (parent, child) = line.trim().split_once(' ')?;
        Some((parent.parse().ok()?, child.trim().parse().ok()?))
    });
    let own = pairs.filter(|(of, _): &(u32, u32)| *of == parent);
    own.map(|(_, child)| child).collect()
}

fn is_there(id: u32) -> bool {
    let kill = Command::new("kill")
        .args(["-0", &id.to_string()])
        .stderr(Stdio::null())
        .status();
    kill.unwrap().success()
}

/// Waits, but not for ever.
fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "it did not happen in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends the signal and waits for the end of the program and of `parts`.
fn ends_by(mut program: Child, signal: &str, parts: &[u32]) {
    let id = program.id().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &id])
            .status()
            .unwrap()
            .success()
    );
    let status = until(|| program.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    assert!(
        !parts.iter().any(|part| is_there(*part)),
        "a part outlives the comparison"
    );
}

#[test]
fn whoever_ends_the_comparison_ends_the_parts() {
    let bench = Bench::new();
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut command = bench.command(&["--live", "--parts", "2,3", "--max-tokens", "2000"]);
        let mut program = command.spawn().unwrap();
        // Text has come: both run, and nothing else is a child any more.
        let mut stdout = program.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 8]).unwrap();
        let parts = until(|| Some(children(program.id())).filter(|parts| parts.len() == 2));
        ends_by(program, signal, &parts);
    }
    let mut command = bench.command(&["--parts", "3", "--max-tokens", "2000"]);
    let program = command.spawn().unwrap();
    let is_part = |id: u32| {
        let ps = Command::new("ps")
            .args(["-o", "args=", "-p", &id.to_string()])
            .output()
            .unwrap();
        let args = String::from_utf8(ps.stdout).unwrap();
        args.contains("part3-kv-cache") && args.contains("--json")
    };
    let part = until(|| children(program.id()).into_iter().find(|id| is_part(*id)));
    ends_by(program, "-INT", &[part]);
}

#[test]
fn a_reader_that_leaves_early_ends_all_quietly() {
    let bench = Bench::new();
    let mut program = bench
        .command(&["--live", "--parts", "2,3", "--max-tokens", "2000"])
        .spawn()
        .unwrap();
    let mut stdout = program.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 8]).unwrap(); // as `| head -c 8` does
    let parts = children(program.id());
    drop(stdout);
    let status = until(|| program.try_wait().unwrap());
    let mut stderr = String::new();
    program
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(!parts.iter().any(|part| is_there(*part)));
}
