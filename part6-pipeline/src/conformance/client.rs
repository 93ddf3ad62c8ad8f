//! A client that takes nothing for granted.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use reqwest::Method;
use reqwest::blocking::RequestBuilder;
use serde_json::{Value, json};

/// Longer than any server needs for a few tokens.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server has no such path.
#[derive(Debug)]
pub(super) struct Missing;

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there is no such path")
    }
}

impl std::error::Error for Missing {}

/// One server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::blocking::Client,
    /// Without /v1.
    url: String,
    key: Option<String>,
    /// Who is to answer.
    pub(super) model: String,
}

/// A response.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) kind: String,
    pub(super) body: String,
}

impl Client {
    /// Finds out which model there is.
    ///
    /// # Errors
    /// If nobody answers.
    pub(super) fn open(url: &str, key: Option<String>, model: Option<String>) -> Result<Self> {
        let url = url.trim_end_matches('/');
        let url = url.strip_suffix("/v1").unwrap_or(url).to_owned();
        // A connection for each request: some servers close one after an answer, which is their right.
        let http = reqwest::blocking::Client::builder();
        let http = http.timeout(PATIENCE).pool_max_idle_per_host(0);
        let mut client = Self {
            http: http.build().context("starting the client")?,
            url,
            key,
            model: String::new(),
        };
        let listed = client.get("/v1/models");
        let listed =
            listed.with_context(|| format!("asking {}; is a server there?", client.url))?;
        let id = || Some(listed.json().ok()?["data"][0]["id"].as_str()?.to_owned());
        let model = model.or_else(id);
        client.model = model.context("the server lists no model; name one with --model-id")?;
        Ok(client)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(super) fn get(&self, path: &str) -> Result<Reply> {
        reply(self.request(Method::GET, path))
    }

    /// Bytes as they are.
    pub(super) fn post_bytes(&self, path: &str, body: Vec<u8>) -> Result<Reply> {
        let request = self.request(Method::POST, path);
        let request = request.header("content-type", "application/json");
        reply(request.body(body))
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.post_bytes(path, body.to_string().into_bytes())
    }

    /// A chat with these fields; the model and a conversation where they name none.
    pub(super) fn chat(&self, fields: Value) -> Result<Reply> {
        let said = json!([{"role": "user", "content": "Tell me a story."}]);
        let body = self.with(fields, "messages", said);
        self.post("/v1/chat/completions", &body)
    }

    /// The same for a completion.
    pub(super) fn complete(&self, fields: Value) -> Result<Reply> {
        let body = self.with(fields, "prompt", json!("Once upon a time"));
        self.post("/v1/completions", &body)
    }

    fn with(&self, mut fields: Value, name: &str, value: Value) -> Value {
        if let Some(object) = fields.as_object_mut() {
            object.entry("model").or_insert_with(|| json!(self.model));
            object.entry(name).or_insert(value);
        }
        fields
    }
}

fn reply(request: RequestBuilder) -> Result<Reply> {
    let response = request.send().context("no response")?;
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type");
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.to_owned();
    let body = response.text().context("the response ends early")?;
    Ok(Reply { status, kind, body })
}

impl Reply {
    pub(super) fn json(&self) -> Result<Value> {
        let parsed = serde_json::from_str(&self.body);
        parsed.with_context(|| format!("status {}, and the body is no JSON", self.status))
    }

    /// The JSON of an answer.
    pub(super) fn answer(self) -> Result<Value> {
        if matches!(self.status, 404 | 405 | 501) {
            bail!(Missing);
        }
        let start: String = self.body.chars().take(120).collect();
        ensure!(self.status == 200, "status {}: {start}", self.status);
        self.json()
    }

    /// The error in OpenAI's shape, if the status is this one.
    pub(super) fn refused(&self, status: u16) -> Result<Value> {
        ensure!(
            self.status == status,
            "status {}, not {status}",
            self.status
        );
        let error = self.json()?["error"].clone();
        ensure!(error.is_object(), "the body has no object \"error\"");
        ensure!(error["message"].is_string(), "the error has no message");
        ensure!(error["type"].is_string(), "the error has no type");
        Ok(error)
    }

    /// The events of a stream, without the last one, which must be [DONE].
    pub(super) fn chunks(self) -> Result<Vec<Value>> {
        ensure!(self.status == 200, "status {}", self.status);
        let lines = self.body.lines();
        let data = lines.filter_map(|line| line.strip_prefix("data:"));
        let mut data: Vec<&str> = data.map(str::trim).collect();
        ensure!(data.pop() == Some("[DONE]"), "the last event is not [DONE]");
        let parse =
            |text: &&str| serde_json::from_str(text).map_err(|_| anyhow!("no JSON: {text}"));
        data.iter().map(parse).collect()
    }
}

/// A text in an answer.
pub(super) fn text<'a>(value: &'a Value, place: &str) -> Result<&'a str> {
    let found = value.pointer(place).and_then(Value::as_str);
    found.with_context(|| format!("no text at {place}"))
}

/// A whole number in an answer.
pub(super) fn number(value: &Value, place: &str) -> Result<u64> {
    let found = value.pointer(place).and_then(Value::as_u64);
    found.with_context(|| format!("no number at {place}"))
}

/// A list in an answer.
pub(super) fn list<'a>(value: &'a Value, place: &str) -> Result<&'a Vec<Value>> {
    let found = value.pointer(place).and_then(Value::as_array);
    found.with_context(|| format!("no list at {place}"))
}
