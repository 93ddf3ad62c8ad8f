//! Every answer has an end.
use std::time::{Duration, Instant};

use shared::hub::HubLimits;
use shared::testing::hub_server::{Says, Then};

use crate::setup::{Setup, WEIGHTS, assert_says, names};

/// The paths of the three kinds of requests that a download makes.
const ASKED: [&str; 4] = ["/revision/", "/tree/", "/resolve/", "/cdn/"];

/// What `work` gives, in a time that nobody would call for ever.
pub(crate) fn ends<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{what}: {:?}",
        start.elapsed()
    );
    result
}

#[test]
fn twenty_seconds_of_silence_are_twenty() {
    assert_eq!(HubLimits::default().silence, Duration::from_secs(20));
    for asked in ASKED {
        let setup = Setup::new();
        setup.says(asked, Says::nothing());
        let start = Instant::now();
        assert_says(&setup.error(), &["cannot reach", "no answer in time"]);
        // The limit once: a request that got no answer is not sent again.
        let limit = setup.settings().limits.silence;
        assert!(
            start.elapsed() >= limit && start.elapsed() < limit * 2,
            "{:?}",
            start.elapsed()
        );
        assert!(
            setup.requests_of(WEIGHTS) <= 2,
            "{:?}",
            setup.hub.requests()
        );
    }
}

#[test]
fn an_answer_that_falls_silent_or_drips_has_an_end() {
    for asked in ASKED {
        for then in [Then::Silence, Then::Drip] {
            let setup = Setup::new();
            setup.says(asked, Says::head(200, &[], then));
            let message = ends(asked, || setup.error());
            assert!(
                message.contains("broke off") || message.contains("another length"),
                "{message}"
            );
            setup.assert_untouched();
        }
    }
}

#[test]
fn an_answer_about_a_model_that_does_not_end_is_not_read_on() {
    for asked in ["/revision/", "/tree/"] {
        let setup = Setup::new();
        setup.says(asked, Says::head(200, &[], Then::Flood));
        let message = ends(asked, || setup.error());
        assert_says(&message, &["does not end"]);
        // What the sockets hold comes to the 16 MB.
        assert!(setup.hub.flooded() < 40 << 20, "{}", setup.hub.flooded());
    }
}

#[test]
fn of_a_refusal_only_the_head_is_read() {
    for asked in ASKED {
        let setup = Setup::new();
        setup.says(asked, Says::head(503, &[], Then::Flood));
        assert_says(&ends(asked, || setup.error()), &["503"]);
        assert!(setup.hub.flooded() < 24 << 20, "{}", setup.hub.flooded());
    }
}

#[test]
fn of_a_file_no_byte_more_than_listed_is_written() {
    let setup = Setup::new();
    setup.says("/cdn/", Says::head(200, &[], Then::Flood));
    assert_says(
        &ends("file", || setup.error()),
        &[WEIGHTS, "another length"],
    );
    assert!(setup.hub.flooded() < 64 << 20, "{}", setup.hub.flooded());
    for name in names(&setup.repository().join("blobs")) {
        let path = setup.repository().join("blobs").join(&name);
        assert!(path.metadata().unwrap().len() < 300_000, "{name}");
    }
    setup.assert_untouched();
}

#[test]
fn pages_that_lead_to_each_other_for_ever_have_an_end() {
    let setup = Setup::new();
    let next = "Link: <?cursor=again>; rel=\"next\"";
    setup.says("/tree/", Says::answer(200, &[next], b"[]"));
    assert_says(&ends("pages", || setup.error()), &["does not end"]);
    assert_eq!(
        setup.hub.requests().len(),
        1 + setup.settings().limits.pages
    );
}

#[test]
fn redirects_that_lead_to_each_other_for_ever_have_an_end() {
    for asked in ASKED {
        let setup = Setup::new();
        let location = format!("Location: {}{asked}x", setup.hub.url());
        setup.says(asked, Says::answer(302, &[&location], b""));
        assert_says(&ends(asked, || setup.error()), &["too many redirects"]);
        assert!(setup.hub.requests().len() < 60);
    }
}

#[test]
fn an_answer_of_another_kind_is_one_clear_line() {
    let deep = "[".repeat(100_000);
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "<html>",
        "\u{1b}[2J",
        "[{\"type\": 3}]",
        &deep,
    ] {
        for asked in ["/revision/", "/tree/"] {
            let setup = Setup::new();
            setup.says(asked, Says::answer(200, &[], body.as_bytes()));
            let message = setup.error();
            assert!(!message.contains('\u{1b}'), "{message}");
            setup.assert_untouched();
        }
    }
}
