//! The token goes to the endpoint and to nobody else.
use serde_json::Value;
use shared::testing::hub_server::{HubServer, Says};

use crate::setup::{REPO, Setup, WEIGHTS, assert_says, model};

#[test]
fn the_token_goes_to_no_other_host() {
    let elsewhere = HubServer::start(REPO, model().path());
    let setup = Setup::new();
    let next = format!(
        "Link: <{}/api/models/{REPO}/tree/main>; rel=\"next\"",
        elsewhere.url()
    );
    setup.says("/tree/", Says::answer(200, &[&next], b"[]"));
    assert_says(&setup.error(), &["goes on at another address"]);
    assert!(elsewhere.requests().is_empty());

    for asked in ["/revision/", "/tree/", "/resolve/"] {
        for status in [301, 302, 303, 307, 308] {
            setup.hub.clear_faults();
            let location = format!("Location: {}/api/models/{REPO}{asked}main", elsewhere.url());
            setup.says(asked, Says::answer(status, &[&location], b""));
            let _ = setup.locate();
            let _ = std::fs::remove_dir_all(setup.repository());
        }
    }
    assert_eq!(elsewhere.tokens(), Vec::<String>::new());
    assert!(elsewhere.requests().len() >= 15);
    assert!(setup.hub.tokens().len() >= 15);
}

#[test]
fn a_list_of_several_pages_on_the_same_host_is_read_whole() {
    let setup = Setup::new();
    let of = |weights: bool| {
        move |entries: &mut Vec<Value>| {
            entries.retain(|entry| (entry["path"] == WEIGHTS) == weights);
        }
    };
    let absolute = format!("{}/api/models/{REPO}/tree/main?cursor=x", setup.hub.url());
    for next in [absolute.as_str(), "?cursor=x", "?cursor=x,y"] {
        setup.hub.clear_faults();
        setup.says("cursor=", setup.listing(of(true)));
        let next = format!("Link: <https://other.example/>; rel=\"prev\", <{next}>; rel=\"next\"");
        let mut first = setup.listing(of(false));
        let head = String::from_utf8(first.bytes).unwrap();
        first.bytes = head
            .replacen("\r\n", &format!("\r\n{next}\r\n"), 1)
            .into_bytes();
        setup.says("/tree/", first);
        setup.assert_whole();
        std::fs::remove_dir_all(setup.repository()).unwrap();
    }
}
