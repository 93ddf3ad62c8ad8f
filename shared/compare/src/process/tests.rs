use console::interrupt::Interrupted;

use super::*;
use std::time::Instant;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Whether the system still knows a process of that number.
fn is_there(id: u32) -> bool {
    let mut kill = shell(&format!("kill -0 {id}"));
    kill.stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn what_a_program_says_comes_as_it_is_said() {
    let mut pieces = 0;
    let mut command = shell("echo one; sleep 0.2; echo two; echo three >&2; exit 3");
    let output = run(&mut command, &Interrupt::default(), || pieces += 1).unwrap();
    assert_eq!(output.stdout, b"one\ntwo\n");
    assert_eq!(output.stderr, b"three\n");
    assert_eq!((output.status.code(), pieces), (Some(3), 2));
}

#[test]
fn whoever_drops_a_process_ends_it() {
    let (sender, events) = channel();
    let process = Process::start(&mut shell("echo up; exec sleep 60"), 7, &sender).unwrap();
    let id = process.id();
    let event = events.recv().unwrap();
    assert_eq!(event.lane, 7);
    assert!(matches!(event.said, Said::Out(bytes) if bytes == b"up\n"));
    assert!(is_there(id));
    drop(process);
    assert!(!is_there(id));
}

#[test]
fn an_interrupt_ends_the_program_that_is_waited_for() {
    let interrupt = Interrupt::default();
    let later = interrupt.clone();
    let start = Instant::now();
    let mut ids = Vec::new();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        later.set();
    });
    let mut command = shell("echo $$; exec sleep 60");
    let (sender, events) = channel();
    let process = Process::start(&mut command, 0, &sender).unwrap();
    ids.push(process.id());
    let error = loop {
        if let Err(error) = next(&events, &interrupt) {
            break error;
        }
    };
    assert!(error.is::<Interrupted>());
    drop(process);
    assert!(!is_there(ids[0]) && start.elapsed() < Duration::from_secs(30));
    assert!(
        run(&mut command, &interrupt, || ())
            .unwrap_err()
            .is::<Interrupted>()
    );
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let error = run(
        &mut Command::new("no-such-program"),
        &Interrupt::default(),
        || (),
    );
    let text = format!("{:#}", error.unwrap_err());
    assert!(
        text.starts_with("cannot start `no-such-program`: "),
        "{text}"
    );
}
