//! A client of the server, on a thread of its own: it reads events as any client does.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use console::metrics::FinishReason;
use part5_batching::load::Load;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Builder;

use super::drive::{Done, Got, drive};

/// Bytes of an event: ours have some hundred.
const LONGEST: usize = 1 << 20;

/// What sends requests.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    model: String,
}

#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
    finish_reason: Option<FinishReason>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    completion_tokens: usize,
}

impl Client {
    /// For a server of this model.
    pub(super) fn new(url: &str, model: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build();
        Ok(Self {
            http: http.context("starting the client")?,
            url: format!("{url}/v1/completions"),
            model: model.to_owned(),
        })
    }

    /// Sends a load.
    ///
    /// # Errors
    /// If a request fails.
    pub(super) fn run(&self, load: &Load, prompts: &[Vec<u32>]) -> Result<Done> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("starting the clients")?;
        runtime.block_on(drive(load, |at| {
            let body = json!({
                "model": self.model,
                "prompt": prompts[at],
                "max_tokens": load.requests[at].output_tokens,
                "temperature": 0,
                "ignore_eos": true,
                "stream": true,
                "stream_options": {"include_usage": true},
            });
            let request = self.http.post(&self.url).body(body.to_string());
            read(request.header("content-type", "application/json"))
        }))
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Got> {
    let mut response = request.send().await.context("asking the server")?;
    if !response.status().is_success() {
        let status = response.status();
        bail!("the server says {status}: {}", response.text().await?);
    }
    let mut heard = Heard::default();
    while let Some(bytes) = response.chunk().await.context("reading an answer")? {
        let now = Instant::now();
        heard.pending.extend_from_slice(&bytes);
        while let Some(line) = heard.line() {
            heard.take(&line, now)?;
        }
        ensure!(
            heard.pending.len() <= LONGEST,
            "an event of the server does not end"
        );
    }
    heard.finish()
}

/// What came until now.
#[derive(Debug, Default)]
struct Heard {
    pending: Vec<u8>,
    instants: Vec<Instant>,
    text: String,
    reason: Option<FinishReason>,
    tokens: Option<usize>,
}

impl Heard {
    fn line(&mut self) -> Option<String> {
        let end = self.pending.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.pending.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn take(&mut self, line: &str, now: Instant) -> Result<()> {
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            return Ok(());
        };
        let chunk: Chunk = serde_json::from_str(data).context("reading an event of the server")?;
        if let Some(error) = chunk.error {
            bail!("the server says {error}");
        }
        for choice in chunk.choices {
            if !choice.text.is_empty() {
                self.instants.push(now);
                self.text.push_str(&choice.text);
            }
            self.reason = choice.finish_reason.or(self.reason);
        }
        self.tokens = chunk
            .usage
            .map(|usage| usage.completion_tokens)
            .or(self.tokens);
        Ok(())
    }

    /// Several tokens may make one character, and come with it. How many there were is told at the end.
    fn finish(mut self) -> Result<Got> {
        let tokens = self
            .tokens
            .context("the server did not say how many tokens there were")?;
        let last = self.instants.last().copied();
        let last = last.context("an answer without a text")?;
        self.instants.resize(tokens, last);
        Ok((self.instants, self.text, self.reason))
    }
}
