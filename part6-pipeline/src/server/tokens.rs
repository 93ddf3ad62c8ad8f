//! Text ↔ ids, without the model.

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use shared::tokenizer::Tokenizer;

use super::calls::Calls;
use super::{App, body};
use crate::api::{
    ApiError, Applied, ChatRequest, DetokenizeRequest, Detokenized, Encode, ErrorBody, Piece,
    TokenizeRequest, Tokenized, TokenizerInfo,
};
use crate::handle::Opened;

/// The ids of a text.
#[utoipa::path(
    post,
    path = "/tokenize",
    request_body = TokenizeRequest,
    responses(
        (status = 200, description = "The ids", body = Tokenized),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn tokenize(
    State(app): State<App>,
    request: Request,
) -> Result<Json<Tokenized>, ApiError> {
    let bytes = body::read(&app, request).await?;
    let work = move |app: &App, opened: &Opened| {
        let request = TokenizeRequest::read(&bytes)?;
        let (pieces, texts) = (request.with_pieces, request.return_token_strs);
        let ids = match request.encode()? {
            Encode::Chat(messages) => encode_chat(opened, &messages, &[])?,
            Encode::Text(text, special) => encode(&opened.tokenizer, &text, special)?,
        };
        let texts = texts
            .unwrap_or(false)
            .then(|| texts_of(&opened.tokenizer, &ids));
        Ok(Tokenized {
            count: ids.len(),
            max_model_len: app.context(opened),
            token_strs: texts.transpose()?,
            tokens: if pieces.unwrap_or(false) {
                json!(pieces_of(&opened.tokenizer, &ids)?)
            } else {
                json!(ids)
            },
        })
    };
    app.encode(work).await.map(Json)
}

/// The text of some ids.
#[utoipa::path(
    post,
    path = "/detokenize",
    request_body = DetokenizeRequest,
    responses(
        (status = 200, description = "The text", body = Detokenized),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn detokenize(
    State(app): State<App>,
    request: Request,
) -> Result<Json<Detokenized>, ApiError> {
    let bytes = body::read(&app, request).await?;
    let work = move |app: &App, opened: &Opened| {
        let ids = DetokenizeRequest::read(&bytes, &app.bounds(opened))?;
        let text = opened.tokenizer.decode(&ids, false);
        let text = text.map_err(|error| ApiError::invalid("tokens", format!("{error:#}")))?;
        Ok(Detokenized {
            prompt: text.clone(),
            content: text,
        })
    };
    app.encode(work).await.map(Json)
}

/// What evaluations ask of a tokenizer.
#[utoipa::path(
    get,
    path = "/tokenizer_info",
    responses(
        (status = 200, description = "It", body = TokenizerInfo),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn info(State(app): State<App>) -> Result<Json<TokenizerInfo>, ApiError> {
    let opened = app.opened()?;
    let tokenizer = &opened.tokenizer;
    Ok(Json(TokenizerInfo {
        vocab_size: tokenizer.vocab_size(),
        bos_token: tokenizer.bos_token().map(str::to_owned),
        eos_token: tokenizer.eos_token().map(str::to_owned),
        stop_token_ids: tokenizer.stop_ids().iter().copied().collect(),
        model_max_length: app.context(opened),
        chat_template: tokenizer.chat_template().map(str::to_owned),
    }))
}

/// The text that the chat template makes of a conversation.
#[utoipa::path(
    post,
    path = "/apply-template",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The text", body = Applied),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn apply_template(
    State(app): State<App>,
    request: Request,
) -> Result<Json<Applied>, ApiError> {
    let bytes = body::read(&app, request).await?;
    let work = move |_: &App, opened: &Opened| {
        let request = ChatRequest::read(&bytes)?;
        let calls = Calls::read(opened, &request)?;
        let tools = calls.as_ref().map_or(&[][..], Calls::for_template);
        let prompt = render(opened, &request.messages()?, tools)?;
        Ok(Applied { prompt })
    };
    app.encode(work).await.map(Json)
}

fn render(opened: &Opened, messages: &[Value], tools: &[Value]) -> Result<String, ApiError> {
    let Some(template) = opened.tokenizer.chat_template() else {
        let message = "This model has no chat template: use /v1/completions.";
        return Err(ApiError::request(message));
    };
    // Such a template would read past them without a word.
    let unseen = |turn: &&Value| turn["role"] == "tool" || !turn["tool_calls"].is_null();
    if !template.contains("tool") && messages.iter().any(|turn| unseen(&turn)) {
        let message =
            "'messages': the chat template of this model has no calls and no answers of tools.";
        return Err(ApiError::invalid("messages", message));
    }
    // The template's own words: a conversation that it was not written for.
    let refused = |error| ApiError::unprocessable("messages", format!("{error:#}"));
    let rendered = opened.tokenizer.render_with_tools(messages, tools);
    rendered.map_err(refused)
}

/// The ids of a conversation.
pub(super) fn encode_chat(
    opened: &Opened,
    messages: &[Value],
    tools: &[Value],
) -> Result<Vec<u32>, ApiError> {
    let text = render(opened, messages, tools)?;
    let ids = opened.tokenizer.encode_plain(&text);
    ids.map_err(|error| ApiError::invalid("messages", format!("{error:#}")))
}

fn encode(tokenizer: &Tokenizer, text: &str, special: bool) -> Result<Vec<u32>, ApiError> {
    let ids = if special {
        tokenizer.encode_raw(text)
    } else {
        tokenizer.encode_plain(text)
    };
    ids.map_err(|error| ApiError::invalid("prompt", format!("{error:#}")))
}

fn texts_of(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Vec<String>, ApiError> {
    let bytes = ids.iter().map(|id| bytes(tokenizer, *id));
    bytes
        .map(|bytes| Ok(String::from_utf8_lossy(&bytes?).into_owned()))
        .collect()
}

/// As llama.cpp has it: the text of a token, or its bytes where they are no text.
fn pieces_of(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Vec<Piece>, ApiError> {
    let piece = |id: &u32| {
        let piece = match String::from_utf8(bytes(tokenizer, *id)?) {
            Ok(text) => Value::from(text),
            Err(error) => Value::from(error.into_bytes()),
        };
        Ok(Piece { id: *id, piece })
    };
    ids.iter().map(piece).collect()
}

fn bytes(tokenizer: &Tokenizer, id: u32) -> Result<Vec<u8>, ApiError> {
    let piece = tokenizer.piece(id);
    let piece = piece.map_err(|error| ApiError::fault(format!("{error:#}")))?;
    Ok(piece.map(|piece| piece.bytes).unwrap_or_default())
}
