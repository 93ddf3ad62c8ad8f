//! One request to the hub, and an answer that has an end: in bytes, in seconds, at one rate at least.
//!
//! hf-hub's own requests have no such ends: it reads a body into memory however long it is, follows
//! a list to whatever host its next page is said to be on, with the token, and makes a path of the etag
//! that the server sends. So it is asked for what it can tell without a network, the meaning of the
//! hub's answers, and the transfer is here.
use std::io::{self, Read};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use reqwest::Url;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RANGE};

use super::settings::{HubLimits, HubSettings, check_token};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The largest part of an answer that is looked at in one piece.
pub(super) const PIECE: usize = 1 << 16;

/// Why there is no answer, or none that can be used.
#[derive(Debug)]
pub(super) enum Failure {
    /// The status of the answer and its `X-Error-Code`.
    Refused(u16, String),
    /// No answer began, with the reason.
    Unreachable(String),
    /// The answer ended too early, with the reason: worth another try.
    Cut(String),
    /// The answer came so slowly that it was not waited for, with the reason.
    Slow(String),
    /// A file came with another length or another content than the hub lists.
    Differs(&'static str),
    /// An answer that is not followed, with what it says.
    Senseless(String),
    /// What stands in the cache is not a file of the cache, with what it is: it is left alone.
    Foreign(String),
    /// The cache cannot be written.
    Disk(io::Error),
    /// Another program has been writing the same file for long.
    Busy,
    /// Another file of the same download has failed.
    Stopped,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// A hub to ask.
pub(super) struct Hub {
    http: Client,
    base: Url,
    /// For the endpoint alone: reqwest drops it when an answer leads to another host or port.
    authorization: HeaderMap,
    limits: HubLimits,
}

impl Hub {
    pub(super) fn new(settings: &HubSettings) -> Result<Self> {
        let shown = settings.shown_endpoint();
        let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.host().is_some();
        let base = Url::parse(&settings.endpoint).ok().filter(is_web);
        let base = base.with_context(|| {
            format!(
                "HF_ENDPOINT is {shown}, which is no address that begins with http:// or https://: set \
                 it to one, or unset it for https://huggingface.co"
            )
        })?;
        let authorization = settings
            .token
            .as_deref()
            .map(bearer)
            .transpose()?
            .unwrap_or_default();
        let http = Client::builder()
            .user_agent(concat!("llm-inference-mlx/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_LIMIT.min(settings.limits.silence))
            // In reqwest's blocking client: until the answer begins, and for each read of it.
            .timeout(settings.limits.silence)
            .build()
            .with_context(|| format!("cannot make requests to {shown}"))?;
        let limits = settings.limits.clone();
        Ok(Self {
            http,
            base,
            authorization,
            limits,
        })
    }

    /// An address below the endpoint; each of `parts` is one component, whatever is in it.
    pub(super) fn address(&self, parts: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// Whether `url` is on the endpoint's own host, port included.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    pub(super) fn limits(&self) -> &HubLimits {
        &self.limits
    }

    /// The bytes of an answer about a model, and its headers. All such answers share `budget`.
    pub(super) fn text(
        &self,
        url: Url,
        budget: &mut Budget,
    ) -> Result<(Vec<u8>, HeaderMap), Failure> {
        budget.check_time()?;
        let response = send(self.request(url))?;
        let headers = response.headers().clone();
        let bytes = budget.read(response)?;
        Ok((bytes, headers))
    }

    /// The content at `url` from byte `start` of `size`, and whether it really begins there: a
    /// server that does not know ranges begins at 0.
    pub(super) fn content(&self, url: Url, start: u64, size: u64) -> Result<(Body, bool), Failure> {
        let mut request = self.request(url);
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-{}", size - 1));
        }
        let response = send(request)?;
        let from_start = start > 0 && response.status() == 206;
        let expected = if from_start { size - start } else { size };
        if response
            .content_length()
            .is_some_and(|length| length != expected)
        {
            return Err(Failure::Differs("length"));
        }
        Ok((Body::new(response, &self.limits), from_start))
    }

    /// Of a name and a password in the endpoint's address reqwest makes a header; a token replaces it.
    fn request(&self, mut url: Url) -> RequestBuilder {
        debug_assert!(self.is_own(&url));
        // The address of a next page comes without them. An address with a host takes them.
        let _ = url.set_username(self.base.username());
        let _ = url.set_password(self.base.password());
        self.http.get(url).headers(self.authorization.clone())
    }
}

fn bearer(token: &str) -> Result<HeaderMap> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", check_token(token)?))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

/// The beginning of a good answer. Of a refusal only the head is read.
fn send(request: RequestBuilder) -> Result<Response, Failure> {
    let response = request.send().map_err(|error| {
        let why = if error.is_timeout() {
            "no answer in time".to_string()
        } else {
            root_cause(&error)
        };
        if error.is_redirect() {
            Failure::Senseless(why)
        } else {
            Failure::Unreachable(why)
        }
    })?;
    if response.status().is_success() {
        return Ok(response);
    }
    let code = response.headers().get("x-error-code");
    let code = code.and_then(|code| code.to_str().ok()).unwrap_or_default();
    Err(Failure::Refused(
        response.status().as_u16(),
        code.to_string(),
    ))
}

/// The innermost cause: the outer ones repeat the address.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    console::text::one_line(&cause.to_string())
}

/// What is left of the bytes and the seconds in which the hub may speak of a model.
pub(super) struct Budget {
    bytes: u64,
    until: Instant,
}

impl Budget {
    pub(super) fn new(limits: &HubLimits) -> Self {
        Self {
            bytes: limits.listing_bytes,
            until: Instant::now() + limits.listing,
        }
    }

    fn check_time(&self) -> Result<(), Failure> {
        if Instant::now() < self.until {
            return Ok(());
        }
        Err(Failure::Slow(
            "its answer about the files took too long".to_string(),
        ))
    }

    fn read(&mut self, mut from: impl Read) -> Result<Vec<u8>, Failure> {
        let (mut bytes, mut piece) = (Vec::new(), vec![0; PIECE]);
        loop {
            let count = from
                .read(&mut piece)
                .map_err(|error| Failure::Cut(root_cause(&error)))?;
            if count == 0 {
                return Ok(bytes);
            }
            let left = self.bytes.checked_sub(count as u64);
            self.bytes = left.ok_or_else(|| {
                Failure::Senseless("the answer about its files does not end".to_string())
            })?;
            self.check_time()?;
            bytes.extend_from_slice(&piece[..count]);
        }
    }
}

/// The content of a file as it comes, at one rate at least.
pub(super) struct Body {
    response: Response,
    window: Duration,
    window_bytes: u64,
    /// When the window began, and what has come in it.
    began: Instant,
    came: u64,
}

impl Body {
    fn new(response: Response, limits: &HubLimits) -> Self {
        Self {
            response,
            window: limits.window,
            window_bytes: limits.window_bytes,
            began: Instant::now(),
            came: 0,
        }
    }

    /// The next bytes; 0 at the end.
    pub(super) fn read(&mut self, piece: &mut [u8]) -> Result<usize, Failure> {
        let cut = |error: io::Error| Failure::Cut(root_cause(&error));
        let count = self.response.read(piece).map_err(cut)?;
        self.came += count as u64;
        if self.began.elapsed() >= self.window {
            if self.came < self.window_bytes {
                let seconds = self.window.as_secs();
                let why = format!(
                    "less than {} kB came in {seconds} s",
                    self.window_bytes / 1000
                );
                return Err(Failure::Slow(why));
            }
            (self.began, self.came) = (Instant::now(), 0);
        }
        Ok(count)
    }
}
