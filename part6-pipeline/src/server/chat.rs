//! `POST /v1/chat/completions`

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answers::{Answers, Got, Whole};
use super::events::{self, Chunks, data};
use super::{App, body, now};
use crate::api::{
    ApiError, Chat, ChatChoice, ChatChunk, ChatDelta, ChatLogprobs, ChatMessage, ChatRequest,
    ErrorBody, Logprob, UsageObject, reason_name,
};
use crate::ask::{Ask, Event, TokenInfo};

/// Goes on with a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answers, or with `stream` events of ChatChunk", content(
            (Chat = "application/json"),
            (ChatChunk = "text/event-stream"),
        )),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn create(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    app.opened()?;
    let bytes = body::read(&app, request).await?;
    let job = app
        .encode(move |app, opened| Job::read(app, opened, &bytes))
        .await?;
    let n = job.ask.n;
    let mut answers = Answers::submit(&app, vec![job.ask])?;
    if job.stream {
        let chunks = ChatChunks {
            head: job.head,
            logprobs: job.logprobs,
            usage: job.include_usage,
            begun: BTreeSet::new(),
        };
        return events::respond(&app, answers, chunks).await;
    }
    let got = answers.whole(1, n).await?;
    let chat = job.head.whole(got, job.logprobs, answers.usage());
    Ok(Json(chat).into_response())
}

/// A request, read and encoded.
struct Job {
    ask: Ask,
    head: Head,
    stream: bool,
    include_usage: bool,
    logprobs: bool,
}

impl Job {
    fn read(app: &App, opened: &crate::handle::Opened, bytes: &Bytes) -> Result<Self, ApiError> {
        let request = ChatRequest::read(bytes)?;
        app.check_model(opened, request.options.model.as_deref())?;
        let include_usage = request.options.include_usage()?;
        let ask = request.ask(&app.bounds(opened))?;
        refuse_tools(&request)?;
        if let Some(grammar) = &ask.grammar {
            let vocabulary = opened
                .vocabulary()
                .map_err(|why| ApiError::fault(format!("{why:#}")))?;
            let checked = vocabulary.check(grammar);
            checked.map_err(|why| ApiError::invalid("response_format", format!("{why:#}")))?;
        }
        let ids = super::tokens::encode_chat(opened, &request.messages()?)?;
        Ok(Self {
            ask: app.fill(opened, &ask, ids, "messages")?,
            head: Head::new("chatcmpl", app.model(opened)),
            stream: request.options.streams(),
            include_usage,
            logprobs: ask.logprobs.is_some(),
        })
    }
}

/// Tools can be offered and forbidden at the same time: then nothing is missing.
fn refuse_tools(request: &ChatRequest) -> Result<(), ApiError> {
    let offered = match &request.body.tools {
        None => false,
        Some(tools) => tools != &json!([]),
    };
    let forbidden = request.body.tool_choice == Some(json!("none"));
    if offered && !forbidden {
        let message = "'tools': the chat template of this model has no tools.";
        return Err(ApiError::invalid("tools", message));
    }
    Ok(())
}

/// What all objects of one request have in common.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

impl Head {
    /// A request of this kind that was asked now.
    pub(super) fn new(kind: &str, model: String) -> Self {
        use std::hash::{BuildHasher, RandomState};
        // Not a secret: it only has to be another one than all others.
        let random = [0, 1].map(|part| RandomState::new().hash_one(part));
        Self {
            id: format!("{kind}-{:016x}{:016x}", random[0], random[1]),
            created: now(),
            model,
        }
    }

    fn whole(self, got: Vec<Got>, logprobs: bool, usage: &UsageObject) -> Chat {
        let answers = got.into_iter().flat_map(|got| got.answers).enumerate();
        Chat {
            id: self.id,
            object: "chat.completion",
            created: self.created,
            model: self.model,
            choices: answers
                .map(|(index, whole)| choice(index, whole, logprobs))
                .collect(),
            usage: usage.clone(),
        }
    }
}

fn choice(index: usize, whole: Whole, logprobs: bool) -> ChatChoice {
    ChatChoice {
        index,
        message: ChatMessage {
            role: "assistant",
            content: Some(whole.text),
            refusal: None,
            tool_calls: None,
        },
        logprobs: logprobs_of(whole.tokens, logprobs),
        finish_reason: whole.reason.map(|reason| reason_name(reason).to_owned()),
        stop_reason: whole.stop,
    }
}

fn logprobs_of(tokens: Vec<TokenInfo>, wanted: bool) -> Option<ChatLogprobs> {
    let tokens = wanted.then(|| tokens.into_iter().map(Logprob::from).collect());
    tokens.map(ChatLogprobs::new)
}

struct ChatChunks {
    head: Head,
    logprobs: bool,
    usage: bool,
    /// Answers that have said who speaks.
    begun: BTreeSet<usize>,
}

impl ChatChunks {
    fn chunk(&self, choices: Vec<ChatDelta>, usage: Option<UsageObject>) -> Bytes {
        data(&ChatChunk {
            id: self.head.id.clone(),
            object: "chat.completion.chunk",
            created: self.head.created,
            model: self.head.model.clone(),
            choices,
            usage: self.usage.then_some(usage),
        })
    }

    fn delta(&self, index: usize, delta: Value, tokens: Vec<TokenInfo>) -> ChatDelta {
        ChatDelta {
            index,
            delta,
            logprobs: logprobs_of(tokens, self.logprobs).filter(|logprobs| {
                logprobs
                    .content
                    .as_ref()
                    .is_some_and(|tokens| !tokens.is_empty())
            }),
            finish_reason: None,
            stop_reason: None,
        }
    }

    /// The first chunk of an answer says who speaks, and no later one does.
    fn begin(&mut self, index: usize) -> Option<Bytes> {
        let role = json!({"role": "assistant", "content": ""});
        let first = self.begun.insert(index);
        first.then(|| self.chunk(vec![self.delta(index, role, Vec::new())], None))
    }
}

impl Chunks for ChatChunks {
    fn of(&mut self, _prompt: usize, event: Event) -> Vec<Bytes> {
        match event {
            Event::Delta {
                choice,
                text,
                tokens,
            } => {
                let begin = self.begin(choice);
                let empty = text.is_empty() && (tokens.is_empty() || !self.logprobs);
                let delta = self.delta(choice, json!({"content": text}), tokens);
                let more = (!empty).then(|| self.chunk(vec![delta], None));
                begin.into_iter().chain(more).collect()
            }
            Event::End {
                choice,
                reason,
                stop,
            } => {
                let begin = self.begin(choice);
                let last = ChatDelta {
                    finish_reason: Some(reason_name(reason).to_owned()),
                    stop_reason: stop,
                    ..self.delta(choice, json!({}), Vec::new())
                };
                let last = self.chunk(vec![last], None);
                begin.into_iter().chain([last]).collect()
            }
            _ => Vec::new(),
        }
    }

    fn usage(&mut self, usage: &UsageObject) -> Option<Bytes> {
        self.usage
            .then(|| self.chunk(Vec::new(), Some(usage.clone())))
    }
}
