//! `GET /`: the page, which is part of the program.
//!
//! It comes in a few files, and without a key: nothing in it is secret. What it shows it asks for as any client does. Its
//! policy lets the browser run these files and nothing else: no script that an answer of the model could smuggle in.

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::App;
use crate::api::ApiError;

const HTML: &str = include_str!("../page/page.html");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Part 1's switch for the colours, as a module.
const THEME: &str = concat!(
    "import { find } from \"./dom.js\";\n",
    include_str!("../../../assets/pages/theme.js"),
    "export { theme, themeWatchers };\n",
);

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All other files of the page.
const FILES: [(&str, &str, &str); 18] = [
    ("page.css", STYLE, include_str!("../page/page.css")),
    ("live.css", STYLE, include_str!("../page/live.css")),
    ("theme.js", SCRIPT, THEME),
    ("page.js", SCRIPT, include_str!("../page/page.js")),
    ("dom.js", SCRIPT, include_str!("../page/dom.js")),
    ("server.js", SCRIPT, include_str!("../page/server.js")),
    ("markdown.js", SCRIPT, include_str!("../page/markdown.js")),
    ("store.js", SCRIPT, include_str!("../page/store.js")),
    (
        "conversation.js",
        SCRIPT,
        include_str!("../page/conversation.js"),
    ),
    ("chats.js", SCRIPT, include_str!("../page/chats.js")),
    ("answer.js", SCRIPT, include_str!("../page/answer.js")),
    ("message.js", SCRIPT, include_str!("../page/message.js")),
    ("settings.js", SCRIPT, include_str!("../page/settings.js")),
    ("live.js", SCRIPT, include_str!("../page/live.js")),
    ("gantt.js", SCRIPT, include_str!("../page/gantt.js")),
    ("panels.js", SCRIPT, include_str!("../page/panels.js")),
    ("load.js", SCRIPT, include_str!("../page/load.js")),
    ("what_if.js", SCRIPT, include_str!("../page/what_if.js")),
];

/// The page itself. It is told whether a key is needed: to ask first would be a fault in the browser's console.
pub(super) async fn html(State(app): State<App>) -> Response {
    let key = if app.settings().key.is_some() {
        "needed"
    } else {
        "none"
    };
    let html = HTML.replace("{{ key }}", key);
    file("text/html; charset=utf-8", html)
}

/// One of its files.
pub(super) async fn part(Path(name): Path<String>) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let missing = || ApiError::no_path(format!("The page has no file {name}."));
    let (_, kind, text) = found.ok_or_else(missing)?;
    Ok(file(kind, *text))
}

fn file(kind: &'static str, text: impl IntoResponse) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, kind);
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    // Another version of the program has another page.
    set(header::CACHE_CONTROL, "no-cache");
    response
}
