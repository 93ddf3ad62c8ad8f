//! The engine on the network: OpenAI's API over HTTP/1.1.
//!
//! Nothing of MLX is here. A handler reads a body, makes an [`Ask`] of it, hands it to the engine's
//! thread and writes what comes back: so a slow client costs a task of some kilobytes and no step of the model.
//!
//! Every resource that a client can take has a limit: connections, time for headers and bodies and for taking what is
//! sent, bytes, asks, threads that encode. A production server has the same ones in a proxy before it.

mod answers;
mod begin;
mod body;
mod calls;
mod chat;
mod completions;
mod events;
mod guard;
mod info;
mod listen;
mod live;
mod metrics;
mod openapi;
mod page;
mod settings;
mod tokens;
mod what_if;
mod write_timeout;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::api::{ApiError, Bounds};
use crate::ask::{Ask, Fault};
use crate::handle::{Handle, Opened, Refusal, State};
use crate::live::Live;
use metrics::Metrics;

pub use listen::{Listening, serve};
pub use openapi::description;
pub use settings::{Key, Settings};

/// Threads that read JSON, run the chat template and encode. More would take the cores from the model.
const ENCODERS: usize = 4;

/// What all handlers share.
#[derive(Debug, Clone)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    handle: Handle,
    live: Live,
    settings: Settings,
    encoders: Arc<Semaphore>,
    simulations: Arc<Semaphore>,
    metrics: Metrics,
    /// Seconds since 1970.
    started: u64,
    draining: AtomicBool,
}

impl App {
    /// A server for an engine, which may still be loading.
    pub fn new(handle: Handle, live: Live, settings: Settings) -> Self {
        Self(Arc::new(Shared {
            handle,
            live,
            settings,
            encoders: Arc::new(Semaphore::new(ENCODERS)),
            simulations: Arc::new(Semaphore::new(1)),
            metrics: Metrics::default(),
            started: now(),
            draining: AtomicBool::new(false),
        }))
    }

    fn handle(&self) -> &Handle {
        &self.0.handle
    }

    fn live(&self) -> &Live {
        &self.0.live
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// From now on new requests are refused.
    fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
        self.0.handle.drain();
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// The model, unless it is still being loaded or there is none any more.
    fn opened(&self) -> Result<&Opened, ApiError> {
        match self.handle().status().state {
            State::Ready => self
                .handle()
                .opened()
                .ok_or_else(|| unavailable(&State::Loading)),
            state => Err(unavailable(&state)),
        }
    }

    /// The name of the model in requests and answers.
    fn model(&self, opened: &Opened) -> String {
        let alias = self.settings().aliases.first();
        alias.unwrap_or(&opened.name).clone()
    }

    /// Refuses a request for another model. One that names none means this one.
    fn check_model(&self, opened: &Opened, asked: Option<&str>) -> Result<(), ApiError> {
        let aliases = &self.settings().aliases;
        match asked {
            None | Some("") => Ok(()),
            Some(asked) if asked == opened.name || aliases.iter().any(|name| name == asked) => {
                Ok(())
            }
            Some(asked) => Err(ApiError::no_model(asked, &self.model(opened))),
        }
    }

    fn bounds(&self, opened: &Opened) -> Bounds {
        let settings = self.settings();
        Bounds {
            n: settings.most_answers,
            prompts: settings.most_prompts,
            temperature: settings.temperature,
            vocabulary: opened.config.vocab_size,
        }
    }

    /// Tokens that a prompt and its answer may have together.
    fn context(&self, opened: &Opened) -> usize {
        let memory = self.handle().status().kv_limit;
        let context = opened.config.max_position_embeddings;
        if memory == 0 {
            context
        } else {
            context.min(memory)
        }
    }

    /// Work that takes a while, on one of a few threads: a handler must not hold up the others.
    async fn encode<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, &Opened) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.opened()?;
        let app = self.clone();
        let ended = |_| ApiError::unavailable("The server is shutting down.", 5);
        let permit = Arc::clone(&self.0.encoders).acquire_owned().await;
        let permit = permit.map_err(ended)?;
        // The permit goes along: the work goes on if the client leaves.
        let work = move || {
            let result = app.opened().and_then(|opened| work(&app, opened));
            drop(permit);
            result
        };
        let result = tokio::task::spawn_blocking(work).await;
        match result {
            // Ctrl-C ends a template that runs, too.
            Ok(Err(_)) if self.is_draining() => Err(unavailable(&State::Draining)),
            Ok(result) => result,
            Err(_) => Err(ApiError::fault("Reading the request failed.")),
        }
    }

    /// Why an ask has failed. Only another engine could do better with the same one.
    fn failed(&self, fault: &Fault) -> ApiError {
        match fault {
            Fault::Ask(why) => ApiError::request(why),
            Fault::Engine(_) if self.is_draining() => match self.handle().status().state {
                dead @ State::Dead(_) => unavailable(&dead), // which is why it drains
                _ => unavailable(&State::Draining),
            },
            Fault::Model(why) | Fault::Engine(why) => ApiError::fault(why),
        }
    }

    /// Puts a prompt into an ask, whose answers become as long as there is room for at most.
    fn fill(
        &self,
        opened: &Opened,
        ask: &Ask,
        ids: Vec<u32>,
        param: &str,
    ) -> Result<Ask, ApiError> {
        let context = self.context(opened);
        if ids.is_empty() {
            let message = format!("'{param}' gives no tokens: there is nothing to go on with.");
            return Err(ApiError::invalid(param, message));
        }
        // With no token to come, the prompt may fill the context.
        let most = context.saturating_sub(usize::from(ask.max_tokens > 0));
        if ids.len() > most {
            // In OpenAI's words, by which some clients know it.
            let message = format!(
                "'{param}' has {} tokens. This model's maximum context length is {context} tokens, the answer included.",
                ids.len()
            );
            return Err(ApiError::too_long(param, message));
        }
        let room = context - ids.len();
        Ok(Ask {
            max_tokens: ask.max_tokens.min(room),
            ids,
            ..ask.clone()
        })
    }
}

/// Why the engine takes no asks, as a client is told.
fn unavailable(state: &State) -> ApiError {
    match state {
        State::Loading | State::Ready => ApiError::unavailable("The model is being loaded.", 1),
        State::Draining | State::Stopped => {
            ApiError::unavailable("The server is shutting down.", 5)
        }
        State::Dead(why) => ApiError::fault(format!("The engine has failed: {why}")),
    }
}

fn refused(refusal: &Refusal) -> ApiError {
    match refusal {
        Refusal::Unavailable(state) => unavailable(state),
        Refusal::QueueFull(most) => ApiError::busy(format!(
            "{most} requests are being answered or wait already: try again later."
        )),
    }
}

/// All paths.
pub fn router(app: App) -> Router {
    let guarded = Router::new()
        .route("/", get(page::html))
        .route("/page/{file}", get(page::part))
        .route("/live", get(live::watch))
        .route("/what-if", post(what_if::simulate))
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/models", get(info::models))
        .route("/v1/models/{*model}", get(info::model))
        .route("/v1/responses", post(info::no_responses))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .route("/apply-template", post(tokens::apply_template))
        .route("/health", get(info::health))
        .route("/metrics", get(info::metrics))
        .route("/openapi.json", get(openapi::document));
    guarded
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard::check))
        .with_state(app)
}

async fn no_path(request: Request) -> ApiError {
    ApiError::no_path(format!("There is nothing at {}.", request.uri().path()))
}

async fn no_method(request: Request) -> ApiError {
    ApiError::no_method(request.method().as_str(), request.uri().path())
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
