//! Who may ask at all: looked at before any handler.
//!
//! A server on localhost is not private. A page in the user's browser can send requests to it, and a page whose name
//! was bound again to 127.0.0.1 can read the answers, too. So the name by which we are called must be one of ours, and
//! a page that asks must be one that we were told of.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::settings::Settings;
use super::{App, unavailable};
use crate::api::ApiError;
use crate::handle;

/// What anybody may ask, with a key or without: whether the server is there, and the page, which then asks for the key.
const OPEN: [&str; 2] = ["/health", "/"];
const PAGE: &str = "/page/";

pub(super) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match admit(&app, &request) {
        Err(error) => error.into_response(),
        Ok(()) if is_preflight(&request) => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).await,
    };
    if let Some(origin) = origin
        && listed(&app.settings().origins, &origin)
    {
        share(response.headers_mut(), origin);
    }
    if app.is_draining() {
        // Whoever asks again needs another connection, to another server.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    let status = response.status();
    app.metrics().count(&path, status.as_u16());
    let ms = started.elapsed().as_millis();
    tracing::info!(%method, path, status = status.as_u16(), ms, "request");
    response
}

fn admit(app: &App, request: &Request) -> Result<(), ApiError> {
    let settings = app.settings();
    check_host(settings, request)?;
    check_origin(settings, request)?;
    if is_preflight(request) {
        return Ok(());
    }
    let path = request.uri().path();
    if !OPEN.contains(&path) && !path.starts_with(PAGE) {
        check_key(settings, request.headers())?;
    }
    if app.is_draining() && request.method() == Method::POST {
        return Err(unavailable(&handle::State::Draining));
    }
    Ok(())
}

/// The name by which a client calls us must be an address, or a name that is ours.
fn check_host(settings: &Settings, request: &Request) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let told = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse().ok()),
        (None, _) => request.uri().authority().cloned(),
        _ => None,
    };
    let Some(host) = told else {
        return Err(ApiError::request("The request needs one header Host."));
    };
    let name = name_of(&host);
    let is_address = name.parse::<IpAddr>().is_ok();
    let is_ours = |ours: &&str| ours.eq_ignore_ascii_case(name);
    let mut ours = settings
        .hosts
        .iter()
        .map(String::as_str)
        .chain(["localhost"]);
    if is_address || ours.any(|host| is_ours(&host)) {
        return Ok(());
    }
    Err(ApiError::forbidden(format!(
        "This server is not called {name:?}. If it is, start it with --allow-host {name}."
    )))
}

fn name_of(host: &Authority) -> &str {
    let name = host.host();
    name.strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name)
}

/// Browsers say which page asks, other programs say nothing.
fn check_origin(settings: &Settings, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let page = origin.as_bytes().strip_prefix(b"http://");
    let is_own = page.is_some() && page == host;
    if is_own || listed(&settings.origins, origin) {
        return Ok(());
    }
    Err(ApiError::forbidden(
        "Pages in a browser may not ask this server. Start it with --cors ORIGIN for those that may.",
    ))
}

fn listed(origins: &[String], origin: &HeaderValue) -> bool {
    let is = |listed: &String| listed == "*" || listed.as_bytes() == origin.as_bytes();
    origins.iter().any(is)
}

/// A browser asks whether it may ask.
fn is_preflight(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn share(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    let methods = HeaderValue::from_static("GET, POST");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let allowed = HeaderValue::from_static("authorization, content-type, *");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
}

fn check_key(settings: &Settings, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(key) = &settings.key else {
        return Ok(());
    };
    let told = headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let told = told.and_then(|told| {
        let (scheme, key) = told.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    if told.is_some_and(|told| key.matches(told.trim_ascii())) {
        Ok(())
    } else {
        Err(ApiError::unauthorized())
    }
}
