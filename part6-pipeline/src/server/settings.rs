//! What a server allows.

use std::fmt;
use std::time::Duration;

use subtle::ConstantTimeEq;

/// What a server allows, and for how long.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names of the model beside its own; the first one is told.
    pub aliases: Vec<String>,
    /// What clients must know.
    pub key: Option<Key>,
    /// Names of this machine, beside `localhost` and its addresses, by which it may be called.
    pub hosts: Vec<String>,
    /// Pages that may ask from a browser: `https://example.org`, or `*` for all.
    pub origins: Vec<String>,
    /// Connections at a time. Later ones wait in the system's queue.
    pub connections: usize,
    /// Bytes of a body.
    pub body: usize,
    /// Answers to one prompt.
    pub most_answers: usize,
    /// Prompts of one request.
    pub most_prompts: usize,
    /// Where a request names no temperature.
    pub temperature: f32,
    /// For the headers of a request, and between two requests of a connection.
    pub header_time: Duration,
    /// For the body of a request.
    pub body_time: Duration,
    /// For a client to take what is sent.
    pub write_time: Duration,
    /// After so long without an event a stream says that it is still there.
    pub keep_alive: Duration,
    /// For answers that are not complete when the server is told to end.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            aliases: Vec::new(),
            key: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            connections: 512,
            body: 4 << 20,
            most_answers: 16,
            most_prompts: 256,
            temperature: 1.0,
            header_time: Duration::from_secs(15),
            body_time: Duration::from_secs(60),
            write_time: Duration::from_secs(30),
            keep_alive: Duration::from_secs(5),
            grace: Duration::from_secs(60),
        }
    }
}

/// What clients must know. It is never printed.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// A key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// Whether it is the same. The time tells at most how long the key is: not how much of a guess was right.
    pub(super) fn matches(&self, other: &[u8]) -> bool {
        bool::from(self.0.as_bytes().ct_eq(other))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
