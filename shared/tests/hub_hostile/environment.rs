//! What the environment says, to a process of its own.
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use shared::hub::{ModelFiles, locate};
use shared::testing::hub_server::{Fault, Says, Then};

use crate::ends::ends;
use crate::setup::{FOLDER, REPO, Setup, assert_says};

/// What the tests below run in a process of its own.
#[test]
#[ignore = "started by other tests, in a process of its own"]
fn locates() {
    if std::env::var_os("CTRL_C").is_some() {
        console::interrupt::Interrupt::of_process().set();
    }
    console::interrupt::watch().unwrap();
    match locate(REPO, None) {
        Ok(ModelFiles::Directory(path)) => println!("FOUND {}", path.display()),
        other => println!("FAILED {other:?}"),
    }
}

pub(crate) fn child(setup: &Setup, variables: &[(&str, &str)]) -> Output {
    command(setup, variables).output().unwrap()
}

fn command(setup: &Setup, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in [
        "HF_HOME",
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HUGGINGFACE_HUB_CACHE",
    ] {
        command.env_remove(name);
    }
    command
        .args([
            "--ignored",
            "--exact",
            "environment::locates",
            "--nocapture",
        ])
        .env("HF_HUB_CACHE", setup.home.path().join("hub"))
        .env("HF_ENDPOINT", setup.hub.url())
        .envs(variables.iter().copied());
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_token_with_a_line_break_at_its_end_is_sent_without_it() {
    for token in ["hf_abc\n", " hf_abc ", "hf_abc\r\n"] {
        let setup = Setup::new();
        setup.hub.fault(Fault::Gated {
            token: "hf_abc".into(),
        });
        assert_says(&stdout(&child(&setup, &[("HF_TOKEN", token)])), &["FOUND"]);
        assert!(setup.hub.tokens().iter().all(|token| token == "hf_abc"));
    }
}

#[test]
fn a_token_that_cannot_be_sent_is_said_and_nothing_is_asked() {
    let setup = Setup::new();
    let out = stdout(&child(&setup, &[("HF_TOKEN", "hf_a\nbc")]));
    assert_says(&out, &["FAILED", "the access token", "HF_TOKEN"]);
    assert!(!out.contains("hf_a"));
    assert!(setup.hub.requests().is_empty());
}

#[test]
fn a_home_with_a_tilde_is_in_the_home_directory() {
    for hf_home in ["~/hf", "$HOME/hf", "${HOME}/hf\n"] {
        let setup = Setup::new();
        let home = setup.home.path().to_str().unwrap();
        let variables = [("HOME", home), ("HF_HUB_CACHE", ""), ("HF_HOME", hf_home)];
        let expected = setup.home.path().join("hf/hub").join(FOLDER);
        assert_says(
            &stdout(&child(&setup, &variables)),
            &["FOUND", expected.to_str().unwrap()],
        );
    }
}

#[test]
fn a_password_in_the_endpoint_is_used_and_never_printed() {
    let setup = Setup::new();
    let endpoint = setup.hub.url().replace("http://", "http://me:s3cret@");
    let variables = [("HF_ENDPOINT", endpoint.as_str())];
    for asked in ["nothing", "/revision/", "/tree/", "/resolve/"] {
        for says in [
            Says::answer(503, &[], b""),
            Says::answer(404, &[], b""),
            Says::answer(200, &[], b"?"),
            Says::answer(401, &["X-Error-Code: GatedRepo"], b""),
            Says::head(200, &[], Then::End),
        ] {
            setup.hub.clear_faults();
            let _ = std::fs::remove_dir_all(setup.repository());
            setup.says(asked, says);
            let output = child(&setup, &variables);
            let all = stdout(&output) + &String::from_utf8(output.stderr).unwrap();
            assert!(
                all.contains(if asked == "nothing" {
                    "FOUND"
                } else {
                    "FAILED"
                }),
                "{all}"
            );
            assert!(!all.contains("s3cret") && !all.contains("me:"), "{all}");
        }
    }
    assert!(
        setup
            .hub
            .tokens()
            .iter()
            .all(|token| token == "Basic bWU6czNjcmV0")
    );
    assert!(!setup.hub.tokens().is_empty());
    let nobody = [("HF_ENDPOINT", "http://me:s3cret@127.0.0.1:1")];
    let out = stdout(&child(&setup, &nobody));
    assert_says(&out, &["FAILED", "cannot reach http://127.0.0.1:1"]);
}

#[test]
fn a_download_that_is_interrupted_ends_and_goes_on_later() {
    let setup = Setup::new();
    let out = stdout(&child(&setup, &[("CTRL_C", "")]));
    assert_says(&out, &["FAILED", "interrupted by Ctrl-C"]);
    assert!(
        !setup
            .hub
            .requests()
            .iter()
            .any(|request| request.contains("/resolve/"))
    );
    setup.assert_whole();
}

#[test]
fn ctrl_c_while_the_hub_is_asked_for_what_is_new_ends_the_program() {
    let setup = Setup::new();
    setup.assert_whole();
    std::fs::remove_dir_all(setup.repository().join(".no_exist")).unwrap();
    setup.says("/revision/", Says::nothing());
    let out = stdout(&child(&setup, &[("CTRL_C", "")]));
    assert_says(&out, &["FAILED", "interrupted by Ctrl-C"]);
}

#[test]
fn a_download_that_waits_for_another_one_ends_by_one_ctrl_c() {
    let setup = Setup::new();
    let locks = setup.home.path().join("hub/.locks").join(FOLDER);
    std::fs::create_dir_all(&locks).unwrap();
    let lock = std::fs::File::create(locks.join("download.lock")).unwrap();
    lock.lock().unwrap();
    let mut command = command(&setup, &[]);
    let mut waiting = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut stderr = BufReader::new(waiting.stderr.take().unwrap());
    while !told.contains("Waiting for another process that downloads") {
        assert!(stderr.read_line(&mut told).unwrap() > 0, "{told}");
    }
    let pid = waiting.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let out = ends("Ctrl-C", || waiting.wait_with_output().unwrap());
    assert_says(&stdout(&out), &["FAILED", "interrupted by Ctrl-C"]);
}

#[test]
fn a_hub_that_answered_is_not_said_to_be_the_one_that_cannot_be_reached() {
    let setup = Setup::new();
    let location = "Location: http://somebody:s3cret@127.0.0.1:1/file?token=s3cret";
    setup.says("/resolve/", Says::answer(302, &[location], b""));
    let message = setup.error();
    assert_says(
        &message,
        &["cannot reach", "or the host that it sends to for"],
    );
    assert!(!message.contains("s3cret"), "{message}");
}

#[test]
fn an_endpoint_that_is_no_address_of_a_hub_is_told_with_what_would_be_one() {
    let setup = Setup::new();
    for endpoint in [
        "huggingface.co",
        "ftp://me:s3cret@mirror",
        "http://",
        "file:///etc",
    ] {
        let out = stdout(&child(&setup, &[("HF_ENDPOINT", endpoint)]));
        assert_says(&out, &["FAILED", "HF_ENDPOINT is", "http:// or https://"]);
        assert!(!out.contains("s3cret"), "{out}");
    }
}
