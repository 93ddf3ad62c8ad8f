//! A server in a process of its own, and a client that sends exactly the bytes that a test wants.

#![allow(dead_code)] // each test file uses some of it

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longer than anything here takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A server that runs until it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Lines of stderr.
    told: Mutex<Receiver<String>>,
}

/// A response, whole.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The field that is wrong, of an error in OpenAI's shape.
    pub(crate) fn param(&self) -> String {
        self.error()["param"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The error, whose keys must all be there.
    pub(crate) fn error(&self) -> Value {
        let error = self.json()["error"].clone();
        for key in ["message", "type", "param", "code"] {
            assert!(error.get(key).is_some(), "no {key}: {self:?}");
        }
        error
    }

    /// The data of each event.
    pub(crate) fn events(&self) -> Vec<String> {
        let lines = self
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        lines.map(str::to_owned).collect()
    }

    /// The same without [DONE], which must be the last one.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{self:?}");
        events
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect()
    }
}

impl Server {
    /// The embedded model, ready.
    pub(crate) fn start(args: &[&str]) -> Self {
        let server = Self::spawn(args);
        server.wait_for("is ready");
        server
    }

    /// A server that may still be loading.
    pub(crate) fn spawn(args: &[&str]) -> Self {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_part6-pipeline")));
        command.args(["serve", "--port", "0"]).args(args);
        Self::of(command)
    }

    /// The same of any program that says where it listens.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, told) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server = Self {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            told: Mutex::new(told),
        };
        let line = server.wait_for("listening on http://");
        server.address = line.rsplit("http://").next().unwrap().parse().unwrap();
        server
    }

    /// The first line of stderr that has a text.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.told_until(text).pop().unwrap()
    }

    /// All lines of stderr up to that one.
    pub(crate) fn told_until(&self, text: &str) -> Vec<String> {
        let mut all = Vec::new();
        while !all.last().is_some_and(|line: &String| line.contains(text)) {
            match self.told.lock().unwrap().recv_timeout(PATIENCE) {
                Ok(line) => all.push(line),
                Err(error) => panic!("{error}: no {text:?} in {all:#?}"),
            }
        }
        all
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends these bytes, and reads until the server closes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may answer and close before it has read all.
        let _ = stream.write_all(bytes);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let reply = self.raw(&request(self.address, method, path, headers, body));
        parse(&reply).unwrap_or_else(|| panic!("no response: {reply:?}"))
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, "", body.to_string().as_bytes())
    }

    pub(crate) fn chat(&self, body: Value) -> Reply {
        self.post("/v1/chat/completions", &with_messages(body))
    }

    /// A stream whose headers and first event have come.
    pub(crate) fn begin(&self, path: &str, body: &Value) -> BufReader<TcpStream> {
        let mut stream = self.connect();
        let bytes = request(self.address, "POST", path, "", body.to_string().as_bytes());
        stream.write_all(&bytes).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "no event");
        }
        reader
    }

    /// A number of /metrics.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("pipeline_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    }

    /// Waits until nothing runs and nothing waits.
    pub(crate) fn wait_until_idle(&self) {
        let end = Instant::now() + PATIENCE;
        while self.metric("running") + self.metric("waiting") > 0.0 {
            assert!(Instant::now() < end, "rows are still in use");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Still answers as it should.
    pub(crate) fn assert_alive(&self) {
        let reply = self.chat(json!({"max_tokens": 3, "temperature": 0}));
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json()["usage"]["completion_tokens"], 3);
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn exit(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the server does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bytes of the process in memory, where the system tells.
    pub(crate) fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kilobytes * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was made by mlx-lm.
pub(crate) fn fixture(name: &str) -> Value {
    let path = format!("{}/../assets/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The conversation that a test needs when it does not matter which.
pub(crate) fn with_messages(mut body: Value) -> Value {
    let said = json!([{"role": "user", "content": "Tell me a story."}]);
    body.as_object_mut()
        .unwrap()
        .entry("messages")
        .or_insert(said);
    body
}

pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A response that was read to the end of its connection.
pub(crate) fn parse(text: &str) -> Option<Reply> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let chunked = headers
        .iter()
        .any(|(key, value)| key == "transfer-encoding" && value == "chunked");
    let body = if chunked {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Some(Reply {
        status,
        headers,
        body,
    })
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap_or(0);
        let Some(chunk) = rest.get(..length) else {
            return whole + rest;
        };
        whole.push_str(chunk);
        body = rest.get(length + 2..).unwrap_or_default();
    }
    whole
}
