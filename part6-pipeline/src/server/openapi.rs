//! The description of the API, made from the types that read and write it.

use axum::Json;
use serde_json::{Value, json};
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

const STREAM: &str = "/responses/200/content/text~1event-stream/schema";

/// The description as an object.
pub fn description() -> Value {
    let mut description = json!(Description::openapi());
    let paths = description["paths"].as_object_mut();
    let methods = paths.into_iter().flat_map(|paths| paths.values_mut());
    let methods = methods.filter_map(Value::as_object_mut);
    for method in methods.flat_map(|methods| methods.values_mut()) {
        if let Some(schema) = method.pointer_mut(STREAM) {
            *schema = event(schema.take());
        }
    }
    description
}

/// Of a stream the schema describes each event, and what we have described is its data.
fn event(data: Value) -> Value {
    let data =
        json!({"type": "string", "contentMediaType": "application/json", "contentSchema": data});
    json!({"type": "object", "properties": {"event": {"type": "string"}, "data": data}, "required": ["data"]})
}

pub(super) async fn document() -> Json<Value> {
    Json(description())
}
