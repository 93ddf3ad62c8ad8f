//! What the server says of itself.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{App, unavailable};
use crate::api::{ApiError, ErrorBody, ModelCard, ModelList};
use crate::handle;

/// The model that is served.
#[utoipa::path(
    get,
    path = "/v1/models",
    responses(
        (status = 200, description = "One model", body = ModelList),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn models(State(app): State<App>) -> Result<Json<ModelList>, ApiError> {
    Ok(Json(ModelList {
        object: "list",
        data: vec![card(&app)?],
    }))
}

/// One model by its name, which can have slashes.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    params(("model" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The model", body = ModelCard),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn model(
    State(app): State<App>,
    Path(model): Path<String>,
) -> Result<Json<ModelCard>, ApiError> {
    app.check_model(app.opened()?, Some(&model))?;
    card(&app).map(Json)
}

fn card(app: &App) -> Result<ModelCard, ApiError> {
    let opened = app.opened()?;
    Ok(ModelCard {
        id: app.model(opened),
        object: "model",
        created: app.0.started,
        owned_by: "part6-pipeline",
        max_model_len: app.context(opened),
    })
}

/// The other API of OpenAI, for clients that try it first.
pub(super) async fn no_responses() -> ApiError {
    ApiError::no_path(
        "This server has no /v1/responses: use /v1/chat/completions, which takes the same conversations.",
    )
}

/// Whether requests are taken.
#[utoipa::path(
    get,
    path = "/health",
    responses(
        (status = 200, description = "They are", body = Object),
        (status = "default", description = "They are not, and why", body = ErrorBody),
    ),
)]
pub(super) async fn health(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    match app.handle().status().state {
        handle::State::Ready if !app.is_draining() => Ok(Json(json!({"status": "ok"}))),
        handle::State::Ready => Err(unavailable(&handle::State::Draining)),
        handle::State::Dead(why) => {
            let mut error = ApiError::unavailable(format!("The engine has failed: {why}"), 5);
            error.repeats = true;
            Err(error)
        }
        state => Err(unavailable(&state)),
    }
}

/// Counters in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Counters", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let text = app.metrics().text(&app.handle().status());
    let mut response = text.into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
