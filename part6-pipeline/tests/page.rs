//! The page in a real browser, on a real server.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

#[allow(dead_code)] // part 1's page has more to try
#[path = "../../part1-walkthrough/tests/browser/mod.rs"]
mod browser;
mod serving;

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use browser::{Page, browse};
use serde_json::{Value, json};
use serving::{PATIENCE, Server};

/// The page of a server, if there is a browser.
fn opened(server: &Server) -> Option<Page> {
    let page = browse(&format!("http://{}/", server.address))?;
    page.wait_for("document.querySelector('.bar .state').dataset.state === 'ready'");
    page.wait_for("document.querySelector('.model').textContent === 'tiny'");
    Some(page)
}

/// As a person does who has no mouse: the focus is in the field from the beginning.
fn say(page: &Page, text: &str) {
    page.type_text(text);
    page.press("Enter");
}

fn count(page: &Page, selector: &str) -> f64 {
    page.number(&format!("document.querySelectorAll({selector:?}).length"))
}

const LAST: &str = "document.querySelector('.message:last-child')";

fn wait_for_answer(page: &Page) {
    page.wait_for(&format!("{LAST}?.matches('.assistant:not(.waits)')"));
}

/// Answers become so long that there is time to do something meanwhile.
fn long_answers(page: &Page) {
    let settings = json!({"max_tokens": 900, "temperature": 1.5, "seed": "1"});
    page.act(&format!(
        "localStorage['pipeline.settings'] = JSON.stringify({settings})"
    ));
}

fn no_complaints(page: &Page) {
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn a_chat_needs_a_keyboard_and_nothing_else() {
    let server = Server::start(&[]);
    let Some(page) = opened(&server) else { return };
    assert_eq!(page.focused("id"), "say");
    say(&page, "Tell me a story.");
    wait_for_answer(&page);
    assert_eq!(page.text(".message.user .body"), "Tell me a story.");
    let first = page.text(".message.assistant .body");
    assert!(!first.trim().is_empty());
    let note = page.text(".message.assistant .note");
    assert!(
        note.contains("tokens") && note.contains("first after"),
        "{note}"
    );

    say(&page, "And then?");
    page.wait_for("document.querySelectorAll('.message').length === 4");
    wait_for_answer(&page);
    let note = page.text(".message:last-child .note");
    assert!(note.contains("prompt tokens cached"), "{note}");
    assert!(
        !note.contains(" 0 of"),
        "the second turn begins with the first: {note}"
    );

    // What was said last is said in another way.
    page.focus("#say");
    page.press("ArrowUp");
    assert_eq!(page.focused("value"), "And then?");
    page.type_text(" Tell me more.");
    page.press("Enter");
    page.wait_for(
        "document.querySelectorAll('.message.user .body')[1]?.textContent === 'And then? Tell me more.'",
    );
    wait_for_answer(&page);
    assert_eq!(count(&page, ".message"), 4.0);
    assert_eq!(page.text(".message.assistant .body"), first);
    assert_eq!(page.text("#chats .name"), "Tell me a story.");

    everything_can_be_reached(&page);
    no_complaints(&page);
}

fn everything_can_be_reached(page: &Page) {
    page.focus("#say");
    let mut reached = Vec::new();
    for _ in 0..40 {
        page.press("Tab");
        reached.push(page.focused("outerHTML.slice(0, 160)"));
    }
    for what in [
        "open-settings",
        "theme",
        "new",
        "again",
        "edit",
        "pause",
        "users",
    ] {
        let is = |name: &&String| name.contains(what);
        assert!(
            reached.iter().any(|name| is(&name)),
            "{what} is not in {reached:?}"
        );
    }
}

#[test]
fn stop_ends_an_answer_and_frees_its_row_and_what_came_is_kept() {
    let server = Server::start(&[]);
    let Some(page) = opened(&server) else { return };
    long_answers(&page);
    say(&page, "Tell me a story.");
    page.wait_for(&format!(
        "{LAST}?.matches('.waits') && {LAST}.textContent.length > 60"
    ));
    page.press("Escape");
    wait_for_answer(&page);
    server.wait_until_idle();
    let text = page.text(".message.assistant .body");
    assert!(
        page.text(".message.assistant .note")
            .starts_with("Stopped.")
    );
    page.reload();
    assert_eq!(page.text(".message.assistant .body"), text);
    assert!(
        page.text(".message.assistant .note")
            .starts_with("Stopped.")
    );
    no_complaints(&page);
}

#[test]
fn a_page_that_is_loaded_again_while_an_answer_comes_keeps_what_came_and_can_ask_again() {
    let server = Server::start(&[]);
    let Some(page) = opened(&server) else { return };
    long_answers(&page);
    say(&page, "Tell me a story.");
    page.wait_for(&format!(
        "{LAST}?.matches('.waits') && {LAST}.textContent.length > 60"
    ));
    page.reload();
    assert!(page.text(".message.assistant .body").len() > 20);
    let note = page.text(".message.assistant .note");
    assert!(note.starts_with("Not complete"), "{note}");
    server.wait_until_idle();
    page.wait_for("document.querySelector('.bar .state').dataset.state === 'ready'");
    page.act("localStorage.removeItem('pipeline.settings')");
    page.click(".message.assistant .again");
    page.wait_for(&format!(
        "{LAST}.textContent.includes('first after') && !{LAST}.matches('.waits')"
    ));
    assert_eq!(count(&page, ".message"), 2.0);
    no_complaints(&page);
}

#[test]
fn two_windows_write_at_once_and_each_has_the_chats_of_both() {
    let server = Server::start(&[]);
    let Some(one) = opened(&server) else { return };
    let two = one.another(&format!("http://{}/", server.address));
    two.wait_for("document.querySelector('.bar .state').dataset.state === 'ready'");
    two.click("#chats .new");
    say(&two, "What is a black hole?");
    one.act("document.querySelector('#say').value = 'Tell me a story.'");
    one.act("document.querySelector('.composer').requestSubmit()");
    for page in [&one, &two] {
        wait_for_answer(page);
        page.wait_for("document.querySelectorAll('#chats .name').length === 2");
    }
    assert_eq!(one.text(".message.user .body"), "Tell me a story.");
    assert_eq!(two.text(".message.user .body"), "What is a black hole?");
    // A chat that is shown in both grows in both.
    two.act(
        "[...document.querySelectorAll('#chats .name')].find((name) => name.title === 'Tell me a story.').click()",
    );
    let answer = |page: &Page| page.text(".message:last-child .body");
    two.wait_for(
        "document.querySelector('.message.user .body').textContent === 'Tell me a story.'",
    );
    assert_eq!(answer(&two), answer(&one));
    one.act("document.querySelector('#say').value = 'And then?'");
    one.act("document.querySelector('.composer').requestSubmit()");
    one.wait_for("document.querySelectorAll('.message').length === 4");
    wait_for_answer(&one);
    two.wait_for("document.querySelectorAll('.message').length === 4");
    wait_for_answer(&two);
    assert_eq!(answer(&two), answer(&one));
    no_complaints(&one);
    no_complaints(&two);
}

/// What would run, ask somebody, or look like a part of the page if anything of it were taken for HTML.
const HOSTILE: &str = "<img src=x onerror=\"window.ran=1\"><script>window.ran=1</script>\n\n\
    <iframe src=\"https://example.org\"></iframe>\n\n[a link](javascript:window.ran=1) [b](data:text/html,x) \
    ![picture](https://example.org/spy.png)\n\n```html\n<script>window.ran=1</script>\n```\n\n\
    - <b onclick=\"window.ran=1\">item</b>\n\n| a | b |\n|---|---|\n| <svg onload=\"window.ran=1\"> | c |\n\n\
    > <style>* { display: none }</style>\n\n**<a href=\"javascript:window.ran=1\">x</a>**";

#[test]
fn html_in_a_prompt_and_in_an_answer_is_text() {
    let server = Server::start(&[]);
    let Some(page) = opened(&server) else { return };
    page.act(&format!(
        "document.querySelector('#say').value = {}",
        json!(HOSTILE)
    ));
    page.act("document.querySelector('.composer').requestSubmit()");
    wait_for_answer(&page);
    assert_eq!(page.text(".message.user .body"), HOSTILE);
    let title = page.text("#chats .name");
    assert!(title.starts_with("<img src=x"), "{title}");

    // An answer like this, as if the model had written it.
    let chat = json!({"id": "hostile", "title": HOSTILE, "system": "", "changed": 9e15, "messages": [
        {"role": "user", "text": HOSTILE, "state": "done"},
        {"role": "assistant", "text": HOSTILE, "state": "done"},
    ]});
    page.act(&format!(
        "localStorage['pipeline.chat.hostile'] = JSON.stringify({chat}); sessionStorage['pipeline.open'] = 'hostile'"
    ));
    page.reload();
    let inside = |what: &str| count(&page, &format!(".messages :is({what})"));
    assert_eq!(inside("img, script, iframe, svg, style, b, object"), 0.0);
    assert_eq!(inside("table"), 1.0);
    assert_eq!(inside("pre code"), 1.0);
    assert_eq!(
        page.text(".messages pre code"),
        "<script>window.ran=1</script>"
    );
    let links: Vec<String> =
        page.json("[...document.querySelectorAll('.messages a')].map((a) => a.href)");
    // What looks like an address, and the picture, which is not fetched: the others lead nowhere.
    assert_eq!(
        links,
        ["https://example.org/", "https://example.org/spy.png"]
    );
    assert!(page.json::<bool>("window.ran === undefined"));
    no_complaints(&page);
}

#[test]
fn markdown_that_grows_letter_by_letter_becomes_what_it_is_as_a_whole() {
    let server = Server::start(&[]);
    let Some(page) = opened(&server) else { return };
    let text = "# Title\n\nSome *em*, **strong**, `code` and ~~gone~~ words,\nin two lines. A_name_here.\n\n\
                1. one\n2. two\n   - inner `x`\n   - more\n3. three\n\n```rust\nfn main() {\n\n    // * no list\n}\n```\n\n\
                > quoted\n> **twice**\n\n---\n\n| a | b |\n|:--|--:|\n| 1 | `2` |\n\nhttps://example.org/a_b and [x](http://example.org).\n\n\
                Unclosed **strong and `code\n\n~~~\nlast";
    let result: Value = page.promised(&format!(
        "import('/page/markdown.js').then(({{ show }}) => {{
           const text = {};
           const [grown, whole] = [document.createElement('div'), document.createElement('div')];
           for (let at = 0; at <= text.length; at++) show(grown, text.slice(0, at));
           show(whole, text);
           return JSON.stringify([grown.innerHTML === whole.innerHTML, whole.innerHTML]);
         }})",
        json!(text)
    ));
    let (same, html): (bool, String) = serde_json::from_str(result.as_str().unwrap()).unwrap();
    assert!(same);
    insta::assert_snapshot!(html.replace("</p>", "</p>\n").replace("</li>", "</li>\n"));
    // Marks without an end take no time that grows with their square.
    let ms: f64 = page.promised(
        "import('/page/markdown.js').then(({ show }) => {
           const begun = performance.now();
           for (const mark of ['*', '_', '`', '[', '**a', '~~', '> ', '- ', '``a', '![a](', '|', '#'])
             show(document.createElement('div'), mark.repeat(20000 / mark.length));
           const blanks = ' '.repeat(3000);
           show(document.createElement('div'), '# ' + blanks + 'x\\u2028x');
           show(document.createElement('div'), 'a|b\\n' + blanks + '|'.repeat(3000) + 'x');
           return performance.now() - begun;
         })",
    );
    assert!(ms < 5000.0, "{ms} ms");
    no_complaints(&page);
}

#[test]
fn chats_at_once_become_a_batch_and_the_page_shows_its_rows_its_prefixes_and_what_if() {
    let server = Server::start(&[]);
    let Some(page) = opened(&server) else { return };
    page.act("document.querySelector('.load select').value = '16'");
    page.click(".load [type=submit]");
    page.wait_for("document.querySelectorAll('.squares .decode').length >= 12");
    let frames: f64 = page.promised(
        "new Promise((done) => {
           const [begun, gaps] = [performance.now(), []];
           let last = begun;
           const frame = (now) => {
             gaps.push(now - last);
             last = now;
             if (performance.now() - begun < 1500) requestAnimationFrame(frame);
             else done((1000 * (gaps.length - 1)) / (last - begun));
           };
           requestAnimationFrame(frame);
         })",
    );
    println!("{frames:.0} frames a second beside a model that has all cores");
    assert!(frames > 10.0, "{frames} frames a second");
    page.wait_for("!document.querySelector('.load [type=submit]').disabled");
    page.wait_for("document.querySelector('.rows dd').textContent === '0 of 16'");
    assert_eq!(count(&page, ".said .done"), 16.0);
    assert_eq!(count(&page, ".starts li"), 8.0);
    let summary = page.text(".prefix .summary");
    assert!(summary.contains("of 16 prompts found"), "{summary}");
    let why = page.text(".starts");
    assert!(why.contains(" is ") && why.contains(", and was "), "{why}");
    assert!(page.text(".tiles .ttft").contains("16 answers"));

    page.wait_for("!document.querySelector('.what-if [type=submit]').disabled");
    page.click(".what-if [type=submit]");
    page.wait_for("document.querySelectorAll('.what-if tbody tr').length > 0 || document.querySelector('.what-if .fault')");
    let cells: Vec<Vec<String>> = page.json(
        "[...document.querySelectorAll('.what-if tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent))",
    );
    assert_eq!(cells.len(), 7, "{}", page.text(".what-if .told"));
    assert_eq!(cells[0][0], "tokens/s");
    let number = |text: &str| text.replace(',', "").parse::<f64>().unwrap();
    let throughput: Vec<f64> = cells[0][1..].iter().map(|cell| number(cell)).collect();
    assert!(throughput.iter().all(|tokens| *tokens > 0.0), "{cells:?}");
    no_complaints(&page);
}

#[test]
fn guesses_are_shown_where_they_are_made_with_what_was_kept_of_them() {
    let plain = Server::start(&[]);
    let Some(page) = opened(&plain) else { return };
    say(
        &page,
        "the cat and the dog and the cat and the dog and the cat and the dog",
    );
    wait_for_answer(&page);
    assert!(page.number("Number(document.querySelector('.guesses').hidden)") > 0.0);
    no_complaints(&page);
    drop(page);

    let server = Server::start(&["--lookup", "--always-guess"]);
    let Some(page) = opened(&server) else { return };
    let settings = json!({"max_tokens": 120, "temperature": 0});
    page.act(&format!(
        "localStorage['pipeline.settings'] = JSON.stringify({settings})"
    ));
    page.reload();
    page.wait_for("document.querySelector('.bar .state').dataset.state === 'ready'");
    say(
        &page,
        "the cat and the dog and the cat and the dog and the cat and the dog",
    );
    page.wait_for("!document.querySelector('.guesses').hidden");
    wait_for_answer(&page);
    page.wait_for("document.querySelectorAll('.guessers li').length === 1");
    thread::sleep(Duration::from_millis(500)); // the last steps are on their way
    let numbers = |text: &str| -> Vec<u64> {
        let text = text.replace(',', "");
        text.split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    let summary = page.text(".guesses .summary");
    let all = numbers(&summary);
    assert!(all[1] <= all[0] && all[0] > 0, "{summary}");
    assert!(
        summary.contains("No request has stopped guessing."),
        "{summary}"
    );
    let own = numbers(&page.text(".guessers .why"));
    assert_eq!((own[0], own[1]), (all[1], all[0]));
    assert_eq!(count(&page, ".legend .guess:not([hidden])"), 2.0);
    no_complaints(&page);
}

#[test]
fn a_server_that_goes_away_is_missed_and_one_that_comes_back_is_found() {
    let server = Server::start(&[]);
    let Some(page) = opened(&server) else { return };
    let address = server.address;
    long_answers(&page);
    say(&page, "Tell me a story.");
    page.wait_for(&format!(
        "{LAST}?.matches('.waits') && {LAST}.textContent.length > 60"
    ));
    drop(server);
    page.wait_for("document.querySelector('.bar .state').dataset.state === 'gone'");
    page.wait_for(&format!("{LAST}.matches('.failed')"));
    let fault = page.text(".message.assistant .note");
    assert!(fault.contains("broke before"), "{fault}");
    say(&page, "Are you there?");
    page.wait_for("document.querySelectorAll('.message').length === 4");
    wait_for_answer(&page);
    let fault = page.text(".message:last-child .note");
    assert!(fault.contains("does not answer"), "{fault}");

    let _again = serve_at(address.port());
    page.wait_for("document.querySelector('.bar .state').dataset.state === 'ready'");
    page.click(".message:last-child .again");
    page.wait_for(&format!("{LAST}.textContent.includes('first after')"));
    // The browser itself says that it found nobody.
    let complaints = page.complaints();
    let others: Vec<_> = complaints
        .iter()
        .filter(|said| !said.contains("net::ERR_"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Ends with the test.
struct Again(Child);

impl Drop for Again {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Another server, where one was.
fn serve_at(port: u16) -> Again {
    let child = Command::new(Path::new(env!("CARGO_BIN_EXE_part6-pipeline")))
        .args(["serve", "--port", &port.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "no server at {port}");
        thread::sleep(Duration::from_millis(20));
    }
    Again(child)
}

#[test]
fn a_key_is_asked_for_until_it_is_right_and_remembered() {
    let server = Server::start(&["--api-key", "open sesame"]);
    let Some(page) = browse(&format!("http://{}/", server.address)) else {
        return;
    };
    page.wait_for("document.querySelector('#key').open");
    for key in ["wrong", "open sesame"] {
        page.type_text(key);
        page.press("Enter");
        if key == "wrong" {
            page.wait_for(
                "document.querySelector('#key[open] .why')?.textContent.includes('does not know')",
            );
        }
    }
    page.wait_for("document.querySelector('.bar .state').dataset.state === 'ready'");
    page.reload();
    page.wait_for("document.querySelector('.bar .state').dataset.state === 'ready'");
    assert!(!page.json::<bool>("document.querySelector('#key').open"));
    say(&page, "Tell me a story.");
    wait_for_answer(&page);
    let said = page.text(".message.assistant");
    assert!(said.contains("first after"), "{said}");
}

#[test]
fn nothing_is_cut_off_on_a_phone_and_one_of_both_views_is_shown() {
    let server = Server::start(&[]);
    let Some(page) = opened(&server) else { return };
    say(&page, "Tell me a story.");
    wait_for_answer(&page);
    page.phone(360);
    let fits = || {
        let width = page.number("document.documentElement.scrollWidth");
        assert!(width <= 360.0, "{width} pixels");
        let beyond: Vec<String> = page.json(
            "[...document.querySelectorAll('button, select, .tiles > div, h2, h3, textarea')]
               .filter((e) => e.offsetParent && !e.closest('#chats') && e.getBoundingClientRect().right > 361)
               .map((e) => e.className || e.tagName)",
        );
        assert_eq!(beyond, Vec::<String>::new());
    };
    assert!(page.json::<bool>("document.querySelector('#live').offsetParent === null"));
    fits();
    page.click(".views [data-view=live]");
    assert!(page.json::<bool>("document.querySelector('#chat').offsetParent === null"));
    assert!(page.number("document.querySelector('.gantt canvas').clientWidth") > 250.0);
    fits();
    no_complaints(&page);
}
