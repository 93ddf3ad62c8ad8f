use super::*;
use crate::interrupt::check_interrupted;
use anyhow::anyhow;
use signal_hook::consts::SIGINT;
use std::io::{self, BufRead};
use std::process::{Command, Output, Stdio};
use unicode_width::UnicodeWidthStr;

/// A part with all groups, as its readers meet it.
#[derive(Parser, Debug)]
#[command(name = "part", about = "A part of the series")]
struct All {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn parse(flags: &[&str]) -> Result<All, clap::Error> {
    All::try_parse_from([&["part"], flags].concat())
}

fn wrong(flags: &[&str]) -> String {
    let err = parse(flags).unwrap_err();
    assert_eq!(err.exit_code(), 2, "{flags:?}");
    err.to_string()
}

#[test]
fn without_flags_a_part_answers_the_question_of_the_series_greedily() {
    let all = parse(&[]).unwrap();
    assert_eq!(
        all.model,
        ModelArgs {
            model: "tiny".into(),
            revision: None,
            dtype: None
        }
    );
    let prompt = PromptArgs {
        prompt: "Explain black holes".into(),
        prompt_file: None,
        max_tokens: 128,
        raw: false,
        ignore_eos: false,
    };
    assert_eq!(all.prompt, prompt);
    let SamplingArgs {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
    } = all.sampling;
    assert_eq!((temperature, top_k, top_p, min_p), (0.0, 0, 1.0, 0.0));
    assert_eq!((repetition_penalty, seed), (1.0, 0));
    assert!(!all.output.json);
}

#[test]
fn the_ends_of_every_range_are_accepted() {
    let low = "--max-tokens 1 --temperature 0 --top-k 0 --top-p 0.001 --min-p 0 \
               --repetition-penalty 0.01 --seed 0";
    let high = "--max-tokens 2147483647 --temperature 1e9 --top-k 2147483647 --top-p 1 --min-p 1 \
                --repetition-penalty 9 --seed 18446744073709551615 --raw --json --revision main";
    for flags in [low, high] {
        parse(&flags.split_whitespace().collect::<Vec<_>>()).unwrap();
    }
}

#[test]
fn a_value_out_of_range_is_told_the_range() {
    let cases: [(&str, &[&str], &str); 7] = [
        (
            "--temperature",
            &["-1", "-0.5", "nan", "inf", "hot"],
            "a number of at least 0",
        ),
        (
            "--top-p",
            &["2", "0", "-1", "nan"],
            "a number above 0 and at most 1",
        ),
        ("--min-p", &["1.1", "-1", "nan"], "a number from 0 to 1"),
        (
            "--repetition-penalty",
            &["0", "-2", "inf"],
            "a number above 0",
        ),
        (
            "--max-tokens",
            &["0", "-1", "1.5", "2147483648", "99999999999999999999"],
            "from 1 to",
        ),
        ("--top-k", &["-1", "0.5", "2147483648"], "from 0 (off) to"),
        ("--seed", &["-1", "x", "18446744073709551616"], "from 0 to"),
    ];
    for (flag, values, range) in cases {
        for value in values {
            let message = wrong(&[flag, value]);
            let first = message.lines().next().unwrap();
            assert!(first.contains(flag) && first.contains(value), "{first}");
            assert!(first.contains(range), "{first}");
        }
    }
}

#[test]
fn an_unknown_flag_is_a_wrong_flag() {
    assert!(wrong(&["--temprature", "1"]).contains("--temperature"));
    wrong(&["stray"]);
}

#[test]
fn the_help_fits_the_frame() {
    let shown = command::<All>()
        .try_get_matches_from(["part", "--help"])
        .unwrap_err();
    assert_eq!(shown.exit_code(), 0);
    let help = shown.to_string();
    let widest = help.lines().map(UnicodeWidthStr::width).max().unwrap();
    assert!(widest <= WIDTH, "{widest} columns:\n{help}");
    insta::assert_snapshot!(help);
}

#[test]
fn an_outcome_has_its_exit_code() {
    assert_eq!(exit_code(Ok(()), false), 0);
    assert_eq!(exit_code(Ok(()), true), 130);
    assert_eq!(
        exit_code(Err(Interrupted).context("loading the weights"), true),
        130
    );
}

/// What a process does that is started by the tests below; chosen by the variable `CHILD`.
#[test]
#[ignore = "a child process of the tests below, not a test"]
fn child() {
    let Ok(role) = std::env::var("CHILD") else {
        return;
    };
    let flags = if role == "wrong-flag" {
        vec!["--top-p", "2"]
    } else {
        vec!["--seed", "1"]
    };
    let args = std::iter::once("part").chain(flags).map(OsString::from);
    let code = run_on(args, |_: All| {
        interrupt::watch()?;
        act(&role)
    });
    std::process::exit(code.into());
}

fn act(role: &str) -> Result<()> {
    let mut text = report::TextStream::stdout();
    match role {
        "fails" => Err(anyhow!("line one\nline two\x1b[2J")).context("reading config.json"),
        "loses the network" => {
            Err(io::Error::from(io::ErrorKind::BrokenPipe)).context("downloading tiny")
        }
        "endless" => loop {
            text.push("all work and no play\n")
                .context("writing the text")?;
        },
        "interrupted" | "interrupted twice" => {
            text.push("before ")?;
            signal_hook::low_level::raise(SIGINT)?;
            text.push(if interrupted() { "seen " } else { "unseen " })?;
            if role == "interrupted twice" {
                signal_hook::low_level::raise(SIGINT)?;
            }
            text.push("after")?;
            text.finish()?;
            Ok(())
        }
        "interrupted while loading" => {
            signal_hook::low_level::raise(SIGINT)?;
            check_interrupted().context("loading the weights")
        }
        "speaks on both" => {
            report::status("loading the weights");
            report::status("prefill");
            text.push("some text")?;
            report::status("never in the middle of a line");
            report::warn("the context is full");
            text.push("on\n")?;
            report::status("last status");
            Err(anyhow!("done"))
        }
        _ => Ok(()),
    }
}

/// Starts [`child`] in a process of its own.
fn child_command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "cli::tests::child", "--ignored", "--nocapture"])
        .env("CHILD", role);
    command
}

/// Exit code, stdout and stderr of a child.
fn outcome(role: &str) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = child_command(role).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_failure_is_one_line_on_stderr_and_exit_code_1() {
    let (code, _, stderr) = outcome("fails");
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr,
        "error: reading config.json: line one line two^[[2J\n"
    );
}

#[test]
fn without_a_terminal_every_status_is_a_line_of_stderr() {
    let (_, stdout, stderr) = outcome("speaks on both");
    assert!(stdout.ends_with("some texton\n"), "{stdout}");
    let lines: Vec<&str> = stderr.lines().collect();
    let expected = [
        "loading the weights",
        "prefill",
        "never in the middle of a line",
    ];
    assert_eq!(lines[..3], expected);
    assert_eq!(
        lines[3..],
        ["warning: the context is full", "last status", "error: done"]
    );
}

#[test]
fn a_broken_pipe_of_the_network_is_a_failure() {
    let (code, _, stderr) = outcome("loses the network");
    assert_eq!(
        (code, stderr.as_str()),
        (Some(1), "error: downloading tiny: broken pipe\n")
    );
}

#[test]
fn a_wrong_flag_is_exit_code_2() {
    let (code, _, stderr) = outcome("wrong-flag");
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--top-p"), "{stderr}");
}

#[test]
fn success_is_exit_code_0_and_silent() {
    let (code, _, stderr) = outcome("succeeds");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn ctrl_c_lets_the_work_end_and_exits_with_130() {
    let (code, stdout, stderr) = outcome("interrupted");
    assert!(stdout.ends_with("before seen after\n"), "{stdout}");
    assert_eq!((code, stderr.as_str()), (Some(130), ""));
}

#[test]
fn a_second_ctrl_c_ends_the_process_at_once() {
    let (code, stdout, stderr) = outcome("interrupted twice");
    assert!(stdout.ends_with("before seen "), "{stdout}");
    assert_eq!((code, stderr.as_str()), (Some(130), ""));
}

#[test]
fn work_with_nothing_to_show_is_interrupted_without_a_message() {
    let (code, _, stderr) = outcome("interrupted while loading");
    assert_eq!((code, stderr.as_str()), (Some(130), ""));
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_run_quietly() {
    let mut command = child_command("endless");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("no play")));
    drop(lines);
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!(
        (status.code(), String::from_utf8(stderr).unwrap().as_str()),
        (Some(0), "")
    );
}

#[test]
fn an_error_does_not_panic_when_stderr_is_closed_too() {
    let mut command = child_command("fails");
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
