//! A hub on loopback: a real HTTP server that answers what hf-hub asks, and can fail on purpose.
//!
//! It serves the files of a directory as one model. As on the real hub, a small file comes from
//! another path of the same host (relative redirect), a large one from a "CDN" (absolute redirect,
//! with `X-Linked-Etag` and `X-Linked-Size` on the way), and the etag of a large file is its
//! SHA-256. Every connection carries one request. What a hostile server would say, a test makes up.
mod hostile;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

use crate::prompt_cache::hex;
pub use hostile::{Says, Then};

/// From this many bytes on a file is "large": LFS, behind the CDN.
const LARGE: u64 = 100_000;

/// What goes wrong. `file` is a name in the served directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut after `byte` bytes of the file's content, once.
    CutAt {
        /// Which file.
        file: String,
        /// Bytes of its content that are sent.
        byte: u64,
    },
    /// The content stops after `byte` bytes with the connection open, once, until
    /// [`HubServer::release`].
    HoldAt {
        /// Which file.
        file: String,
        /// Bytes of its content that are sent before the pause.
        byte: u64,
    },
    /// Half of the content comes, with a `Content-Length` that says that this is all, once.
    WrongLength {
        /// Which file.
        file: String,
    },
    /// Every request for the file is answered with this status. An empty name: every request for
    /// the model, its listing too.
    Status {
        /// Which file, or empty for all.
        file: String,
        /// For example 401, 404, 503.
        code: u16,
    },
    /// The listing is open, but files need this token: 401 without one, 403 with another one.
    Gated {
        /// The token that opens it.
        token: String,
    },
    /// The content ignores `Range` and comes whole with status 200.
    NoRanges,
    /// Every request whose path has `path` in it gets an answer that the test makes up.
    Says {
        /// Part of the path of a request.
        path: String,
        /// The answer.
        says: Says,
    },
}

/// The server. It stops when it is dropped.
#[derive(Debug)]
pub struct HubServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    repo: String,
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    revisions: Vec<Revision>,
    faults: Vec<Fault>,
    requests: Vec<String>,
    tokens: Vec<String>,
    /// Bytes that were taken of answers without an end.
    flooded: u64,
    released: bool,
    stopping: bool,
}

#[derive(Debug, Clone)]
struct Revision {
    name: String,
    commit: String,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    path: PathBuf,
    size: u64,
    etag: String,
}

impl HubServer {
    /// Serves the files of `dir` as branch `main` of `repo` (`owner/name`), on a free port.
    ///
    /// # Panics
    /// If the directory cannot be read or no port can be had: this is for tests.
    pub fn start(repo: &str, dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            repo: repo.to_string(),
            state: Mutex::default(),
            released: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || accept(&listener, &accepting));
        let server = Self {
            address,
            shared,
            thread: Some(thread),
        };
        server.add_revision("main", dir);
        server
    }

    /// Serves `dir` as a branch of another name. Returns its commit.
    ///
    /// # Panics
    /// If the directory cannot be read.
    pub fn add_revision(&self, name: &str, dir: &Path) -> String {
        let revision = Revision::read(name, dir).expect("the served directory can be read");
        let commit = revision.commit.clone();
        self.shared.state().revisions.push(revision);
        commit
    }

    /// What to set `HF_ENDPOINT` to.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a fault. The same one can be added several times to happen several times.
    pub fn fault(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// Takes all faults back.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// Lets a transfer go on that stands still because of [`Fault::HoldAt`].
    pub fn release(&self) {
        self.shared.state().released = true;
        self.shared.released.notify_all();
    }

    /// All requests so far, as `METHOD path`, with ` bytes=…` behind it if a range was asked for.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    /// All tokens that were shown so far, one for each request that had one.
    pub fn tokens(&self) -> Vec<String> {
        self.shared.state().tokens.clone()
    }

    /// How many bytes were taken of answers without an end ([`Then::Flood`]).
    pub fn flooded(&self) -> u64 {
        self.shared.state().flooded
    }

    /// The commit of a revision, and the etag of one of its files.
    ///
    /// # Panics
    /// If there is no such revision or no such file.
    pub fn etag(&self, revision: &str, file: &str) -> (String, String) {
        let state = self.shared.state();
        let revision = state.revision(revision).expect("the revision is served");
        (revision.commit.clone(), revision.files[file].etag.clone())
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.release();
        // One connection more wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Revision {
    fn read(name: &str, dir: &Path) -> std::io::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let (Some(name), true) = (path.file_name(), path.is_file()) else {
                continue;
            };
            let bytes = std::fs::read(&path)?;
            let hash = hex(&Sha256::digest(&bytes));
            let size = bytes.len() as u64;
            let etag = if size >= LARGE {
                hash
            } else {
                hash[..40].to_string()
            };
            files.insert(
                name.to_string_lossy().into_owned(),
                Entry { path, size, etag },
            );
        }
        let all: String = files
            .iter()
            .map(|(name, entry)| name.clone() + &entry.etag)
            .collect();
        let commit = hex(&Sha256::digest(name.to_string() + &all))[..40].to_string();
        Ok(Self {
            name: name.to_string(),
            commit,
            files,
        })
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.state().stopping {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A client that hangs up is part of the game, so errors end the connection and no more.
        std::thread::spawn(move || drop(serve(stream, &shared)));
    }
}

/// One request, as far as this server cares.
struct Asked {
    head: bool,
    path: String,
    range: Option<Range<u64>>,
    token: Option<String>,
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(asked) = Asked::read(&mut reader)? else {
        return Ok(());
    };
    let answer = asked.answer(shared, stream.local_addr()?);
    let mut stream = stream;
    match answer {
        Answer::MadeUp(says) => says.speak(&mut stream, shared)?,
        Answer::Head(status, headers, body) => {
            let length = format!("Content-Length: {}\r\n", body.len());
            write!(
                stream,
                "HTTP/1.1 {status} x\r\n{headers}{length}Connection: close\r\n\r\n"
            )?;
            if !asked.head {
                stream.write_all(body.as_bytes())?;
            }
        }
        Answer::Content(name, commit, entry) => {
            asked.send(&mut stream, shared, &name, &commit, &entry)?;
        }
    }
    stream.flush()
}

/// What to send: status, headers and a short text, or the content of a file.
enum Answer {
    Head(u16, String, String),
    MadeUp(Says),
    /// A file by name, the commit it belongs to, and where it is.
    Content(String, String, Entry),
}

impl Asked {
    fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Ok(None);
        };
        let mut asked = Self {
            head: method == "HEAD",
            path: path.to_string(),
            range: None,
            token: None,
        };
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "range" => asked.range = parse_range(value),
                "authorization" => {
                    asked.token = Some(value.strip_prefix("Bearer ").unwrap_or(value).to_string());
                }
                _ => {}
            }
        }
        Ok(Some(asked))
    }

    fn answer(&self, shared: &Shared, address: SocketAddr) -> Answer {
        let mut state = shared.state();
        let method = if self.head { "HEAD" } else { "GET" };
        let range = self.range.as_ref();
        let range = range
            .map(|r| format!(" bytes={}-{}", r.start, r.end - 1))
            .unwrap_or_default();
        state
            .requests
            .push(format!("{method} {}{range}", self.path));
        state.tokens.extend(self.token.clone());
        if let Some(says) = state.made_up(&self.path) {
            return Answer::MadeUp(says);
        }
        let path = decoded(self.path.split('?').next().unwrap_or_default());
        if let Some(rest) = path
            .strip_prefix("/cdn/")
            .or(path.strip_prefix("/api/resolve-cache/"))
        {
            return state.content(rest);
        }
        let repo = &shared.repo;
        let api = path.strip_prefix(&format!("/api/models/{repo}"));
        let resolve = path.strip_prefix(&format!("/{repo}/resolve/"));
        match (api, resolve) {
            (Some(rest), _) => state.api(repo, rest),
            (_, Some(rest)) => state.resolve(rest, self.token.as_deref(), address),
            // An unknown model is not told apart from a private one unless a token is shown.
            _ if self.token.is_none() => error(401, "RepoNotFound"),
            _ => error(404, "RepoNotFound"),
        }
    }

    /// Sends a file's content, or what a fault leaves of it.
    fn send(
        &self,
        stream: &mut TcpStream,
        shared: &Shared,
        name: &str,
        commit: &str,
        entry: &Entry,
    ) -> std::io::Result<()> {
        let ranges = !shared.state().faults.contains(&Fault::NoRanges);
        let mut part = self
            .range
            .clone()
            .filter(|_| ranges)
            .unwrap_or(0..entry.size);
        let fault = if self.head {
            None
        } else {
            shared.state().take_fault(name, &part)
        };
        let status = if part == (0..entry.size) { 200 } else { 206 };
        if let Some(Fault::WrongLength { .. }) = fault {
            part.end = part.start + (part.end - part.start) / 2;
        }
        write!(
            stream,
            "HTTP/1.1 {status} x\r\nETag: \"{}\"\r\nX-Repo-Commit: {commit}\r\n\
             Content-Length: {}\r\nContent-Range: bytes {}-{}/{}\r\nConnection: close\r\n\r\n",
            entry.etag,
            part.end - part.start,
            part.start,
            part.end.saturating_sub(1),
            entry.size
        )?;
        match fault {
            _ if self.head => Ok(()),
            Some(Fault::CutAt { byte, .. }) => copy(stream, &entry.path, part.start..byte),
            Some(Fault::HoldAt { byte, .. }) => {
                copy(stream, &entry.path, part.start..byte)?;
                shared.wait_for_release();
                copy(stream, &entry.path, byte..part.end)
            }
            _ => copy(stream, &entry.path, part),
        }
    }
}

/// A path without its percent-encoding.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or(("", part));
        bytes.extend(u8::from_str_radix(code, 16));
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parse_range(value: &str) -> Option<Range<u64>> {
    let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
    Some(start.parse().ok()?..end.parse::<u64>().ok()? + 1)
}

fn copy(stream: &mut TcpStream, path: &Path, part: Range<u64>) -> std::io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(part.start))?;
    std::io::copy(&mut file.take(part.end.saturating_sub(part.start)), stream)?;
    stream.flush()
}

fn error(status: u16, code: &str) -> Answer {
    let headers = format!("X-Error-Code: {code}\r\nX-Error-Message: refused by the test hub\r\n");
    Answer::Head(
        status,
        headers,
        "{\"error\":\"refused by the test hub\"}".to_string(),
    )
}

impl Shared {
    fn wait_for_release(&self) {
        let state = self.state();
        drop(self.released.wait_while(state, |state| !state.released));
    }
}

impl State {
    fn revision(&self, name: &str) -> Option<&Revision> {
        self.revisions
            .iter()
            .find(|r| r.name == name || r.commit == name)
    }

    /// `/revision/<name>` and `/tree/<name>` below the model's API address.
    fn api(&self, repo: &str, rest: &str) -> Answer {
        if let Some(code) = self.status_fault("") {
            return error(code, "");
        }
        let (what, name) = rest
            .trim_start_matches('/')
            .split_once('/')
            .unwrap_or((rest, "main"));
        let Some(revision) = self.revision(name) else {
            return error(404, "RevisionNotFound");
        };
        let json = match what {
            "tree" => serde_json::Value::from_iter(revision.files.iter().map(|(name, entry)| {
                let lfs = (entry.size >= LARGE)
                    .then(|| serde_json::json!({"oid": entry.etag, "size": entry.size}));
                serde_json::json!({"type": "file", "oid": &entry.etag[..40], "size": entry.size,
                    "path": name, "lfs": lfs})
            })),
            _ => serde_json::json!({"id": repo, "sha": revision.commit}),
        };
        Answer::Head(
            200,
            "Content-Type: application/json\r\n".to_string(),
            json.to_string(),
        )
    }

    /// `<revision>/<file>`: never the content itself, but where it is.
    fn resolve(&self, rest: &str, token: Option<&str>, address: SocketAddr) -> Answer {
        let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(code) = self.status_fault(file).or_else(|| self.status_fault("")) {
            return error(
                code,
                if matches!(code, 401 | 403) {
                    "GatedRepo"
                } else {
                    ""
                },
            );
        }
        for fault in &self.faults {
            match (fault, token) {
                (Fault::Gated { .. }, None) => return error(401, "GatedRepo"),
                (Fault::Gated { token: good }, Some(token)) if good != token => {
                    return error(403, "GatedRepo");
                }
                _ => {}
            }
        }
        let Some(revision) = self.revision(revision) else {
            return error(404, "RevisionNotFound");
        };
        let Some(entry) = revision.files.get(file) else {
            return error(404, "EntryNotFound");
        };
        let commit = &revision.commit;
        let (status, location) = if entry.size >= LARGE {
            (302, format!("http://{address}/cdn/{commit}/{file}"))
        } else {
            (307, format!("/api/resolve-cache/{commit}/{file}"))
        };
        let headers = format!(
            "Location: {location}\r\nX-Repo-Commit: {commit}\r\nX-Linked-Size: {}\r\n\
             X-Linked-Etag: \"{}\"\r\n",
            entry.size, entry.etag
        );
        Answer::Head(status, headers, String::new())
    }

    /// `<commit>/<file>` on the CDN or in the cache of small files.
    fn content(&self, rest: &str) -> Answer {
        let found = rest.split_once('/').and_then(|(commit, file)| {
            let entry = self.revision(commit)?.files.get(file)?;
            Some(Answer::Content(
                file.to_string(),
                commit.to_string(),
                entry.clone(),
            ))
        });
        found.unwrap_or_else(|| error(404, "EntryNotFound"))
    }

    fn made_up(&self, asked: &str) -> Option<Says> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Says { path, says } if asked.contains(path) => Some(says.clone()),
            _ => None,
        })
    }

    fn status_fault(&self, name: &str) -> Option<u16> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Status { file, code } if file == name => Some(*code),
            _ => None,
        })
    }

    /// The first fault that concerns the transfer of this part of a file; each happens once.
    fn take_fault(&mut self, name: &str, part: &Range<u64>) -> Option<Fault> {
        let concerns = |fault: &Fault| match fault {
            Fault::CutAt { file, byte } | Fault::HoldAt { file, byte } => {
                file == name && part.contains(byte)
            }
            Fault::WrongLength { file } => file == name,
            _ => false,
        };
        let index = self.faults.iter().position(concerns)?;
        Some(self.faults.remove(index))
    }
}
