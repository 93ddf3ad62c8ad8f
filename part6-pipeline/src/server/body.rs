//! Bodies: of so many bytes at most, and within so much time.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use hyper::body::Body as _;

use super::App;
use crate::api::ApiError;

/// So much of a body that is too large is read and thrown away. Most clients read no answer before they have sent all.
const THROWN_AWAY: usize = 256 << 20;
/// And for so long.
const THROWING: Duration = Duration::from_secs(10);

/// The whole body of a request.
pub(super) async fn read(app: &App, request: Request) -> Result<Bytes, ApiError> {
    let settings = app.settings();
    let limit = settings.body;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut body = request.into_body();
    let told = length.unwrap_or(0) > limit;
    let collected = if told {
        Err(ApiError::too_large(limit))
    } else {
        let collected = tokio::time::timeout(settings.body_time, collect(&mut body, limit)).await;
        collected.unwrap_or_else(|_| Err(ApiError::too_slow()))
    };
    if collected.as_ref().is_err_and(|error| error.status == 413) {
        let _ = tokio::time::timeout(THROWING, throw_away(&mut body)).await;
    }
    collected
}

async fn collect(body: &mut Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut whole = Vec::new();
    while let Some(bytes) = next(body).await? {
        if whole.len() + bytes.len() > limit {
            return Err(ApiError::too_large(limit));
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.into())
}

async fn throw_away(body: &mut Body) {
    let started = Instant::now();
    let mut bytes = 0;
    while let Ok(Some(more)) = next(body).await {
        bytes += more.len();
        if bytes > THROWN_AWAY || started.elapsed() > THROWING {
            return;
        }
    }
}

/// The next bytes; none at the end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        let frame =
            std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context));
        let refused = |error| ApiError::request(format!("The body cannot be read: {error}."));
        match frame.await.transpose().map_err(refused)? {
            None => return Ok(None),
            Some(frame) => {
                // What is no data is a trailer, which says nothing here.
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}
