//! Server-sent events: an answer while it is made.
//!
//! A task takes the engine's events and writes them into a short channel, from which the connection takes them. If the
//! client goes away, the channel closes, the task ends and drops the answers: their rows are free within a step. If the
//! client stops reading, the channel fills, and the connection is cut when its time for writing has passed.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::App;
use super::answers::Answers;
use crate::api::{ApiError, UsageObject};
use crate::ask::Event;

/// Events that may wait for a connection. The others wait with the engine's, which are bounded by the answer's length.
const WAITING: usize = 16;

/// How long a fault can still become the status of the response. Later the headers have to go: clients give up on a
/// server that says nothing at all.
const FIRST: Duration = Duration::from_millis(500);

/// Turns what the engine says into chunks of one kind of API.
pub(super) trait Chunks: Send + 'static {
    /// The chunks of one event.
    fn of(&mut self, prompt: usize, event: Event) -> Vec<Bytes>;

    /// The chunk behind the last one, if it was asked for.
    fn usage(&mut self, usage: &UsageObject) -> Option<Bytes>;
}

/// An event with some JSON.
pub(super) fn data<T: Serialize>(value: &T) -> Bytes {
    // None of the types here can fail to be written.
    let json = serde_json::to_string(value).unwrap_or_default();
    format!("data: {json}\n\n").into()
}

/// What says that the server is still there, and is no event: some clients fail on a chunk without choices.
pub(super) const STILL_THERE: &[u8] = b": still working\n\n";

const DONE: &[u8] = b"data: [DONE]\n\n";

/// Answers in events.
///
/// # Errors
/// If the engine fails before anything was sent.
pub(super) async fn respond<C: Chunks>(
    app: &App,
    mut answers: Answers,
    mut chunks: C,
) -> Result<Response, ApiError> {
    let mut first = Vec::new();
    let mut ended = false;
    if let Ok(event) = timeout(FIRST, answers.next()).await {
        match event? {
            Some((prompt, event)) => first = chunks.of(prompt, event),
            None => ended = true,
        }
    }
    let (sender, response) = stream();
    let keep_alive = app.settings().keep_alive;
    let writer = Writer {
        answers,
        chunks,
        sender,
    };
    tokio::spawn(writer.run(first, ended, keep_alive));
    Ok(response)
}

/// A response of events, and where they are written.
pub(super) fn stream() -> (mpsc::Sender<Bytes>, Response) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let mut response = Response::new(Body::new(EventBody(receiver)));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies like nginx would collect the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    (sender, response)
}

struct Writer<C> {
    answers: Answers,
    chunks: C,
    sender: mpsc::Sender<Bytes>,
}

/// Nobody reads any more.
pub(super) struct Gone;

impl<C: Chunks> Writer<C> {
    async fn run(mut self, first: Vec<Bytes>, ended: bool, keep_alive: Duration) {
        // Gone, or done: either way the rows are free now.
        let _ = self.write(first, ended, keep_alive).await;
    }

    async fn write(
        &mut self,
        first: Vec<Bytes>,
        mut ended: bool,
        keep_alive: Duration,
    ) -> Result<(), Gone> {
        self.send(first).await?;
        while !ended {
            let event = tokio::select! {
                () = self.sender.closed() => return Err(Gone),
                event = timeout(keep_alive, self.answers.next()) => event,
            };
            match event {
                Err(_) => self.send(vec![Bytes::from_static(STILL_THERE)]).await?,
                Ok(Ok(None)) => ended = true,
                Ok(Ok(Some((prompt, event)))) => {
                    let chunks = self.chunks.of(prompt, event);
                    self.send(chunks).await?;
                }
                Ok(Err(error)) => {
                    // The headers have gone: this is where clients look for a fault. No [DONE]: it is not done.
                    return self.send(vec![data(&error.body())]).await;
                }
            }
        }
        let usage = self.chunks.usage(self.answers.usage());
        self.send(usage.into_iter().collect()).await?;
        self.send(vec![Bytes::from_static(DONE)]).await
    }

    async fn send(&mut self, all: Vec<Bytes>) -> Result<(), Gone> {
        for bytes in all {
            self.sender.send(bytes).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// A body of which nobody knows yet how long it is.
struct EventBody(mpsc::Receiver<Bytes>);

impl hyper::body::Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.0.poll_recv(context);
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
