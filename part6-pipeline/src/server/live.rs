//! `GET /live`: what the engine does, as it does it.
//!
//! A task collects reports for a moment and writes them as one event: a browser draws 60 times a second at most, whatever
//! the number of steps. A client that does not read holds up this task, which then finds that reports were lost.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use super::App;
use super::events::{self, Gone};
use crate::api::{ApiError, ErrorBody};
use crate::handle;
use crate::live::Report;

/// Windows that may be open at the same time. Each costs a task that writes some hundred kilobytes a second.
const MOST_READERS: usize = 16;

/// So long reports are collected.
const FRAME: Duration = Duration::from_millis(33);

/// Steps, and how many reports before them did not reach this client.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Steps<'a> {
    /// Reports that were lost since the last event.
    lost: u64,
    /// In order.
    #[schema(value_type = Vec<Report>)]
    reports: Vec<&'a Report>,
}

/// How the engine is, and what does not change: what a page needs once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EngineState {
    /// `loading`, `ready`, `draining`, `stopped` or `dead`.
    state: &'static str,
    /// Of what it died.
    why: Option<String>,
    /// Null while it loads.
    limits: Option<EngineLimits>,
    /// Seconds since 1970 at the start of the server.
    began: u64,
}

/// For how much a step has room.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EngineLimits {
    rows: usize,
    tokens_per_step: usize,
    piece: usize,
    kv_tokens: usize,
}

/// The data of an event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum LiveData<'a> {
    State(EngineState),
    Steps(Steps<'a>),
}

/// What the engine does, step by step: `event: state` when it has changed, `event: steps` while it works.
#[utoipa::path(
    get,
    path = "/live",
    responses(
        (status = 200, description = "Events, until the client leaves", body = LiveData<'_>, content_type = "text/event-stream"),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn watch(State(app): State<App>) -> Result<Response, ApiError> {
    if app.live().readers() >= MOST_READERS {
        let message = format!("{MOST_READERS} others watch already: try again later.");
        return Err(ApiError::busy(message));
    }
    let reports = app.live().listen();
    let (sender, response) = events::stream();
    let watcher = Watcher {
        app,
        reports,
        sender,
        lost: 0,
        collected: Vec::new(),
    };
    tokio::spawn(async move {
        let _ = watcher.run().await; // gone, or the engine has ended
    });
    Ok(response)
}

struct Watcher {
    app: App,
    reports: broadcast::Receiver<Arc<Report>>,
    sender: mpsc::Sender<Bytes>,
    lost: u64,
    collected: Vec<Arc<Report>>,
}

impl Watcher {
    async fn run(mut self) -> Result<(), Gone> {
        let handle = self.app.handle().clone();
        let mut said = None;
        let mut spoke = Instant::now();
        let keep_alive = self.app.settings().keep_alive;
        loop {
            let state = handle.status().state;
            if said.as_ref() != Some(&state) {
                self.send(event("state", &LiveData::State(self.state(&state))))
                    .await?;
                let ended = matches!(state, handle::State::Stopped | handle::State::Dead(_));
                (said, spoke) = (Some(state), Instant::now());
                if ended {
                    return Ok(());
                }
            }
            tokio::select! {
                () = self.sender.closed() => return Err(Gone),
                report = self.reports.recv() => self.take(report),
                // Also what the channel of reports does not say: that the engine has ended.
                () = sleep(FRAME * 8) => {}
            }
            if !self.collected.is_empty() {
                sleep(FRAME).await;
                self.collect();
                self.send(self.steps()).await?;
                (self.lost, self.collected) = (0, Vec::new());
                spoke = Instant::now();
            } else if spoke.elapsed() > keep_alive {
                self.send(Bytes::from_static(events::STILL_THERE)).await?;
                spoke = Instant::now();
            }
        }
    }

    fn take(&mut self, report: Result<Arc<Report>, broadcast::error::RecvError>) {
        match report {
            Ok(report) => self.collected.push(report),
            Err(broadcast::error::RecvError::Lagged(lost)) => self.lost += lost,
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    /// What has come in the meantime.
    fn collect(&mut self) {
        loop {
            match self.reports.try_recv() {
                Ok(report) => self.collected.push(report),
                Err(TryRecvError::Lagged(lost)) => self.lost += lost,
                Err(_) => return,
            }
        }
    }

    fn steps(&self) -> Bytes {
        let reports = self.collected.iter().map(AsRef::as_ref).collect();
        let lost = self.lost;
        event("steps", &LiveData::Steps(Steps { lost, reports }))
    }

    fn state(&self, state: &handle::State) -> EngineState {
        let (state, why) = match state {
            handle::State::Loading => ("loading", None),
            handle::State::Ready => ("ready", None),
            handle::State::Draining => ("draining", None),
            handle::State::Stopped => ("stopped", None),
            handle::State::Dead(why) => ("dead", Some(why.clone())),
        };
        let limits = self.app.live().limits().map(|limits| EngineLimits {
            rows: limits.rows,
            tokens_per_step: limits.tokens_per_step,
            piece: limits.piece,
            kv_tokens: limits.kv_tokens,
        });
        EngineState {
            state,
            why,
            limits,
            began: self.app.0.started,
        }
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.sender.send(bytes).await.map_err(|_| Gone)
    }
}

/// An event with a name.
fn event(name: &str, value: &LiveData<'_>) -> Bytes {
    // None of the types here can fail to be written.
    let json = serde_json::to_string(value).unwrap_or_default();
    format!("event: {name}\ndata: {json}\n\n").into()
}
