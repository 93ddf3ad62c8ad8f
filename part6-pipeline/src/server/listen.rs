//! Connections: how many, for how long, and how they end.
//!
//! `axum::serve` has no limits of its own, so this is its loop with some.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::write_timeout::WriteTimeout;
use super::{App, router};
use crate::handle::State;

/// Bytes of the headers of a request, and how many there may be.
const HEADERS: (usize, usize) = (64 << 10, 100);

/// After an error of the system, such as no more files, which a moment may mend.
const PAUSE: Duration = Duration::from_millis(100);

/// For connections to take what was sent, when all answers are complete.
const FLUSH: Duration = Duration::from_secs(5);

/// A server that has its address.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    app: App,
}

/// What all connections need.
struct Connections {
    app: App,
    tasks: JoinSet<()>,
    /// True when they are to end after their current request.
    closing: watch::Sender<bool>,
}

impl Listening {
    /// Takes an address. Port 0 is any that is free.
    ///
    /// # Errors
    /// If it is taken, or not this machine's.
    pub async fn bind(address: SocketAddr, app: App) -> Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            format!("listening on {address}; if another server is there, take another --port")
        })?;
        Ok(Self { listener, app })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }
}

/// Serves until `told` says to end or the engine has failed; finishes what runs.
///
/// # Errors
/// If the engine has failed.
pub async fn serve(listening: Listening, told: impl Future<Output = ()>) -> Result<()> {
    let app = listening.app.clone();
    let slots = Arc::new(Semaphore::new(app.settings().connections));
    let mut connections = Connections::new(&app);
    let mut told = pin!(told);
    let mut failed = pin!(ended(&app));
    loop {
        tokio::select! {
            (stream, slot) = accept(&listening.listener, &slots) => connections.open(stream, slot),
            () = &mut told => break,
            () = &mut failed => break,
            Some(_) = connections.tasks.join_next() => {}
        }
    }
    app.drain();
    connections.close();
    let late = answer_late(&listening, &slots, &mut connections).await;
    flush(connections, late).await;
    match app.handle().status().state {
        State::Dead(why) => bail!("the engine failed: {why}"),
        _ => Ok(()),
    }
}

/// While answers are completed, new requests are told that they come too late.
async fn answer_late(
    listening: &Listening,
    slots: &Arc<Semaphore>,
    connections: &mut Connections,
) -> Connections {
    let app = &listening.app;
    let mut late = Connections::new(app);
    let mut ending = pin!(timeout(app.settings().grace, ended(app)));
    loop {
        tokio::select! {
            (stream, slot) = accept(&listening.listener, slots) => late.open(stream, slot),
            _ = &mut ending => break,
            Some(_) = connections.tasks.join_next() => {}
        }
    }
    late.close();
    late
}

/// Lets clients take what was sent.
async fn flush(mut connections: Connections, mut late: Connections) {
    let flushed = async {
        while connections.tasks.join_next().await.is_some() {}
        while late.tasks.join_next().await.is_some() {}
    };
    if timeout(FLUSH, flushed).await.is_err() {
        tracing::warn!("some clients did not take their answers");
    }
}

/// A connection, and its place among those that may be open.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Comes back when the engine has ended, or failed.
async fn ended(app: &App) {
    let mut handle = app.handle().clone();
    while !matches!(handle.status().state, State::Dead(_) | State::Stopped) {
        handle.changed().await;
    }
}

impl Connections {
    fn new(app: &App) -> Self {
        Self {
            app: app.clone(),
            tasks: JoinSet::new(),
            closing: watch::Sender::new(false),
        }
    }

    /// Each ends after its current request.
    fn close(&self) {
        let _ = self.closing.send(true);
    }

    fn open(&mut self, stream: TcpStream, slot: Option<OwnedSemaphorePermit>) {
        let app = self.app.clone();
        let closing = self.closing.subscribe();
        self.tasks.spawn(async move {
            connection(app, stream, closing).await;
            drop(slot);
        });
    }
}

async fn connection(app: App, stream: TcpStream, mut closing: watch::Receiver<bool>) {
    // Tokens are small: none of them waits for others to fill a packet.
    let _ = stream.set_nodelay(true);
    let settings = app.settings();
    let stream = WriteTimeout::new(stream, settings.write_time);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_time)
        .max_headers(HEADERS.1)
        .max_buf_size(HEADERS.0);
    let service = TowerToHyperService::new(router(app.clone()));
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let closed = tokio::select! {
        result = served.as_mut() => Some(result),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    let result = match closed {
        Some(result) => result,
        None => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection");
    }
}
