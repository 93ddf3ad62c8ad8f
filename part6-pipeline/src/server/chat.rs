//! `POST /v1/chat/completions`

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use console::metrics::FinishReason;
use serde_json::{Value, json};

use super::answers::{Got, Whole};
use super::begin::{self, Head, Job};
use super::calls::{self, Calls, Delta, Reader};
use super::events::{self, Chunks, data};
use super::{App, tokens};
use crate::api::{
    ApiError, Chat, ChatChoice, ChatChunk, ChatDelta, ChatLogprobs, ChatMessage, ChatRequest,
    ErrorBody, Logprob, UsageObject, reason_name,
};
use crate::ask::{Event, TokenInfo};
use crate::handle::Opened;

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
    let (mut answers, job) = begin::begin(&app, request, read).await?;
    if job.stream {
        let chunks = ChatChunks {
            head: job.head,
            logprobs: job.logprobs,
            usage: job.include_usage,
            calls: job.rest,
            begun: BTreeMap::new(),
        };
        return events::respond(&app, answers, chunks).await;
    }
    let got = answers.whole(1, job.n).await?;
    Ok(Json(chat(job, got, answers.usage())).into_response())
}

/// A request, with the tools that an answer may call.
type ChatJob = Job<Option<Calls>>;

fn read(app: &App, opened: &Opened, bytes: &Bytes) -> Result<ChatJob, ApiError> {
    let request = ChatRequest::read(bytes)?;
    let mut ask = request.ask(&app.bounds(opened))?;
    let mut calls = Calls::read(opened, &request)?;
    match (&mut calls, &ask.grammar) {
        (Some(calls), _) => calls.constrain(opened, &mut ask)?,
        (None, Some(grammar)) => calls::check(opened, grammar, "response_format")?,
        (None, None) => {}
    }
    let offered = calls.as_ref().map_or(&[][..], Calls::for_template);
    let ids = tokens::encode_chat(opened, &request.messages()?, offered)?;
    let asks = vec![app.fill(opened, &ask, ids, "messages")?];
    let job = Job::new(app, opened, &request.options, "chatcmpl", &ask, calls)?;
    Ok(Job { asks, ..job })
}

fn chat(job: ChatJob, got: Vec<Got>, usage: &UsageObject) -> Chat {
    let answers = got.into_iter().flat_map(|got| got.answers).enumerate();
    let choice = |(index, whole)| choice(index, whole, job.rest.as_ref(), job.logprobs);
    Chat {
        id: job.head.id,
        object: "chat.completion",
        created: job.head.created,
        model: job.head.model,
        choices: answers.map(choice).collect(),
        usage: usage.clone(),
    }
}

fn choice(index: usize, whole: Whole, calls: Option<&Calls>, logprobs: bool) -> ChatChoice {
    let (text, calls) = calls::whole(calls, whole.text);
    let nothing = text.is_empty() && !calls.is_empty();
    ChatChoice {
        index,
        logprobs: logprobs_of(whole.tokens, logprobs),
        finish_reason: whole.reason.map(|reason| name(reason, calls.len())),
        stop_reason: whole.stop,
        message: ChatMessage {
            role: "assistant",
            content: (!nothing).then_some(text),
            refusal: None,
            tool_calls: (!calls.is_empty()).then(|| calls.into()),
        },
    }
}

/// Why an answer with so many calls has ended.
fn name(reason: FinishReason, calls: usize) -> String {
    let name = match reason_name(reason) {
        "stop" if calls > 0 => "tool_calls",
        name => name,
    };
    name.to_owned()
}

fn logprobs_of(tokens: Vec<TokenInfo>, wanted: bool) -> Option<ChatLogprobs> {
    let tokens = wanted.then(|| tokens.into_iter().map(Logprob::from).collect());
    tokens.map(ChatLogprobs::new)
}

struct ChatChunks {
    head: Head,
    logprobs: bool,
    usage: bool,
    calls: Option<Calls>,
    /// Answers that have said who speaks.
    begun: BTreeMap<usize, Begun>,
}

/// An answer on its way.
struct Begun {
    reader: Reader,
    /// Tokens of text that may still become a call.
    tokens: Vec<TokenInfo>,
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
        let wanted = self.logprobs && !tokens.is_empty();
        ChatDelta {
            index,
            delta,
            logprobs: logprobs_of(tokens, wanted),
            finish_reason: None,
            stop_reason: None,
        }
    }

    /// The first chunk of an answer says who speaks, and no later one does.
    fn begin(&mut self, index: usize) -> Option<Bytes> {
        if self.begun.contains_key(&index) {
            return None;
        }
        let begun = Begun {
            reader: Reader::new(self.calls.as_ref()),
            tokens: Vec::new(),
        };
        self.begun.insert(index, begun);
        let role = json!({"role": "assistant", "content": ""});
        Some(self.chunk(vec![self.delta(index, role, Vec::new())], None))
    }

    /// A chunk for each piece, the first of which takes the tokens. They are told, too, where there is no text: of a
    /// character that is not complete.
    fn more(&self, index: usize, pieces: Vec<Delta>, tokens: &mut Vec<TokenInfo>) -> Vec<Bytes> {
        let mut pieces = pieces;
        if pieces.is_empty() && self.calls.is_none() && self.logprobs && !tokens.is_empty() {
            pieces.push(Delta::Content(String::new()));
        }
        let delta = |piece| match piece {
            Delta::Content(text) => json!({"content": text}),
            Delta::Call(call) => json!({"tool_calls": [call]}),
        };
        let chunk = |piece| {
            let delta = self.delta(index, delta(piece), std::mem::take(tokens));
            self.chunk(vec![delta], None)
        };
        pieces.into_iter().map(chunk).collect()
    }

    /// What an answer has got, and what it ended of if it has.
    fn read(&mut self, index: usize, text: String, new: Vec<TokenInfo>, ended: bool) -> Vec<Bytes> {
        let begin = self.begin(index);
        let Some(mut begun) = self.begun.remove(&index) else {
            return Vec::new();
        };
        let mut pieces = begun.reader.push(text);
        if ended {
            pieces.extend(begun.reader.finish());
        }
        begun.tokens.extend(new);
        let more = self.more(index, pieces, &mut begun.tokens);
        self.begun.insert(index, begun);
        begin.into_iter().chain(more).collect()
    }
}

impl Chunks for ChatChunks {
    fn of(&mut self, _prompt: usize, event: Event) -> Vec<Bytes> {
        match event {
            Event::Delta {
                choice,
                text,
                tokens,
            } => self.read(choice, text, tokens, false),
            Event::End {
                choice,
                reason,
                stop,
            } => {
                let mut chunks = self.read(choice, String::new(), Vec::new(), true);
                // The end of a call is no piece of it, but its tokens were asked for.
                let begun = self.begun.get_mut(&choice);
                let (calls, rest) = begun.map_or((0, Vec::new()), |begun| {
                    (begun.reader.calls(), std::mem::take(&mut begun.tokens))
                });
                chunks.push(self.chunk(
                    vec![ChatDelta {
                        finish_reason: Some(name(reason, calls)),
                        stop_reason: stop,
                        ..self.delta(choice, json!({}), rest)
                    }],
                    None,
                ));
                chunks
            }
            _ => Vec::new(),
        }
    }

    fn usage(&mut self, usage: &UsageObject) -> Option<Bytes> {
        self.usage
            .then(|| self.chunk(Vec::new(), Some(usage.clone())))
    }
}
