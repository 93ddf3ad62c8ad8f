//! Answers that a test makes up, as a broken or a hostile server would give them.
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::Shared;

/// What comes instead of the model's own answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Says {
    /// The bytes on the wire, status line and headers included.
    pub bytes: Vec<u8>,
    /// What follows them.
    pub then: Then,
}

/// How an answer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The connection ends.
    End,
    /// A byte ten times a second, for ever.
    Drip,
    /// As many bytes as are taken, for ever.
    Flood,
    /// Nothing more, with the connection open.
    Silence,
}

impl Says {
    /// An answer with a body and its length, after which the connection ends. Each of `headers` is
    /// a whole line without its end.
    pub fn answer(status: u16, headers: &[&str], body: &[u8]) -> Self {
        let length = format!("Content-Length: {}", body.len());
        let mut says = Self::head(status, &[headers, &[&length]].concat(), Then::End);
        says.bytes.extend_from_slice(body);
        says
    }

    /// The head of an answer, with what follows it instead of a body.
    pub fn head(status: u16, headers: &[&str], then: Then) -> Self {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!("HTTP/1.1 {status} x\r\n{lines}Connection: close\r\n\r\n");
        Self {
            bytes: head.into_bytes(),
            then,
        }
    }

    /// Nothing at all.
    pub fn nothing() -> Self {
        Self {
            bytes: Vec::new(),
            then: Then::Silence,
        }
    }

    pub(super) fn speak(&self, stream: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
        stream.write_all(&self.bytes)?;
        stream.flush()?;
        let flood = [b' '; 1 << 16];
        while self.then != Then::End && !shared.state().stopping {
            match self.then {
                Then::End => {}
                Then::Drip => stream.write_all(b" ")?,
                Then::Flood => {
                    stream.write_all(&flood)?;
                    shared.state().flooded += flood.len() as u64;
                    continue;
                }
                Then::Silence => {}
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}
