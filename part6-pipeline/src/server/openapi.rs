//! The description of the API, made from the types that read and write it.

use axum::Json;
use utoipa::OpenApi;

use super::{chat, completions, info, live, tokens, what_if};

#[derive(OpenApi)]
#[openapi(
    info(description = "OpenAI's API for a model that runs on this machine"),
    paths(
        chat::create,
        completions::create,
        info::models,
        info::model,
        info::health,
        info::metrics,
        tokens::tokenize,
        tokens::detokenize,
        tokens::info,
        tokens::apply_template,
        live::watch,
        what_if::simulate,
    )
)]
struct Description;

/// The description as an object.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(description())
}
