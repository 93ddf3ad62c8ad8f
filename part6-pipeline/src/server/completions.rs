//! `POST /v1/completions`

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::App;
use super::answers::{Got, Whole};
use super::begin::{self, Head, Job};
use super::events::{self, Chunks, data};
use crate::api::{
    ApiError, Completion, CompletionChoice, CompletionLogprobs, CompletionRequest, ErrorBody,
    Prompt, UsageObject, reason_name,
};
use crate::ask::{Event, TokenInfo};
use crate::handle::Opened;

/// Goes on with texts.
#[utoipa::path(
    post,
    path = "/v1/completions",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The answers, or with `stream` events of the same shape", content(
            (Completion = "application/json"),
            (Completion = "text/event-stream"),
        )),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn create(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (mut answers, job) = begin::begin(&app, request, read).await?;
    let Job {
        n,
        head,
        logprobs,
        rest: echoes,
        ..
    } = job;
    if job.stream {
        let places = echoes.iter().map(|_| vec![Place::default(); n]).collect();
        let chunks = CompletionChunks {
            head,
            n,
            logprobs,
            usage: job.include_usage,
            echoes,
            places,
        };
        return events::respond(&app, answers, chunks).await;
    }
    let got = answers.whole(echoes.len(), n).await?;
    let both = got.into_iter().zip(echoes);
    let choices = both.flat_map(|(got, echo)| choices(got, echo, logprobs));
    let numbered = choices
        .enumerate()
        .map(|(index, choice)| CompletionChoice { index, ..choice });
    let completion = Completion {
        id: head.id,
        object: "text_completion",
        created: head.created,
        model: head.model,
        choices: numbered.collect(),
        usage: Some(Some(answers.usage().clone())),
    };
    Ok(Json(completion).into_response())
}

/// A request, with what the answers to each prompt begin with, if that is the prompt.
type CompletionJob = Job<Vec<Option<String>>>;

fn read(app: &App, opened: &Opened, bytes: &Bytes) -> Result<CompletionJob, ApiError> {
    let request = CompletionRequest::read(bytes)?;
    let bounds = app.bounds(opened);
    let ask = request.ask(&bounds)?;
    let mut job = Job::new(app, opened, &request.options, "cmpl", &ask, Vec::new())?;
    for prompt in request.prompts(&bounds)? {
        let (ids, text) = encode(opened, prompt, request.echo())?;
        job.asks.push(app.fill(opened, &ask, ids, "prompt")?);
        job.rest.push(text);
    }
    Ok(job)
}

/// The ids of a prompt, and its text if that is to be sent back.
fn encode(
    opened: &Opened,
    prompt: Prompt,
    echo: bool,
) -> Result<(Vec<u32>, Option<String>), ApiError> {
    let refused = |error: anyhow::Error| ApiError::invalid("prompt", format!("{error:#}"));
    match prompt {
        Prompt::Text(text) => {
            let ids = opened.tokenizer.encode_raw(&text).map_err(refused)?;
            Ok((ids, echo.then_some(text)))
        }
        Prompt::Ids(ids) => {
            let text = echo.then(|| opened.tokenizer.decode(&ids, false));
            Ok((ids, text.transpose().map_err(refused)?))
        }
    }
}

/// All answers to one prompt.
fn choices(got: Got, echo: Option<String>, logprobs: bool) -> Vec<CompletionChoice> {
    let Got { prompt, answers } = got;
    let begin = begin_of(echo.as_deref(), &prompt);
    let choice = |whole: Whole| {
        let tokens = [prompt.clone(), whole.tokens].concat();
        CompletionChoice {
            index: 0,
            text: echo.clone().unwrap_or_default() + &whole.text,
            logprobs: logprobs.then(|| CompletionLogprobs::of(&tokens, begin).0),
            finish_reason: whole.reason.map(|reason| reason_name(reason).to_owned()),
            stop_reason: whole.stop,
        }
    };
    answers.into_iter().map(choice).collect()
}

/// Where the first token begins, which is one of the prompt if that is echoed.
fn begin_of(echo: Option<&str>, prompt: &[TokenInfo]) -> isize {
    echo.map_or(0, |text| CompletionLogprobs::echo_offset(text, prompt))
}

struct CompletionChunks {
    head: Head,
    n: usize,
    logprobs: bool,
    usage: bool,
    echoes: Vec<Option<String>>,
    /// By prompt and answer.
    places: Vec<Vec<Place>>,
}

/// How far one answer has come.
#[derive(Debug, Clone, Default)]
struct Place {
    begun: bool,
    /// Characters so far.
    offset: isize,
    /// Tokens of the prompt that are still to be sent.
    prompt: Vec<TokenInfo>,
}

impl CompletionChunks {
    fn chunk(&self, choices: Vec<CompletionChoice>, usage: Option<UsageObject>) -> Bytes {
        data(&Completion {
            id: self.head.id.clone(),
            object: "text_completion",
            created: self.head.created,
            model: self.head.model.clone(),
            choices,
            usage: self.usage.then_some(usage),
        })
    }

    /// More of an answer. The first time, the prompt comes along if it was asked for.
    fn more(
        &mut self,
        prompt: usize,
        choice: usize,
        text: String,
        tokens: Vec<TokenInfo>,
    ) -> CompletionChoice {
        let place = &mut self.places[prompt][choice];
        let echo = self.echoes[prompt].as_deref().filter(|_| !place.begun);
        let text = echo.unwrap_or_default().to_owned() + &text;
        let mut all = std::mem::take(&mut place.prompt);
        all.extend(tokens);
        let (logprobs, offset) = CompletionLogprobs::of(&all, place.offset);
        (place.begun, place.offset) = (true, offset);
        CompletionChoice {
            index: prompt * self.n + choice,
            text,
            logprobs: Some(logprobs).filter(|lists| self.logprobs && !lists.tokens.is_empty()),
            finish_reason: None,
            stop_reason: None,
        }
    }
}

impl Chunks for CompletionChunks {
    fn of(&mut self, prompt: usize, event: Event) -> Vec<Bytes> {
        match event {
            Event::Prompt(tokens) => {
                let offset = begin_of(self.echoes[prompt].as_deref(), &tokens);
                for place in &mut self.places[prompt] {
                    place.prompt.clone_from(&tokens);
                    place.offset = offset;
                }
                Vec::new()
            }
            Event::Delta {
                choice,
                text,
                tokens,
            } => {
                let more = self.more(prompt, choice, text, tokens);
                let empty = more.text.is_empty() && more.logprobs.is_none();
                let chunk = (!empty).then(|| self.chunk(vec![more], None));
                chunk.into_iter().collect()
            }
            Event::End {
                choice,
                reason,
                stop,
            } => {
                let more = self.more(prompt, choice, String::new(), Vec::new());
                let last = CompletionChoice {
                    finish_reason: Some(reason_name(reason).to_owned()),
                    stop_reason: stop,
                    ..more
                };
                vec![self.chunk(vec![last], None)]
            }
            _ => Vec::new(),
        }
    }

    fn usage(&mut self, usage: &UsageObject) -> Option<Bytes> {
        self.usage
            .then(|| self.chunk(Vec::new(), Some(usage.clone())))
    }
}
