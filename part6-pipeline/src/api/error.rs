//! What is said when a request is not answered: one object, as clients of OpenAI read it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Characters of a message at most: it can quote what the client has sent.
const LONGEST: usize = 500;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// What kind of client exception it becomes.
    pub status: StatusCode,
    /// What is in the body.
    pub error: ErrorObject,
    /// Seconds after which it may be worth trying again.
    pub retry_after: Option<u64>,
    /// Whether the same request would fail again. Clients retry a 500 twice unless they are told so.
    pub repeats: bool,
}

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// See there.
    pub error: ErrorObject,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ErrorObject {
    /// One sentence for a person.
    pub message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field of the request that is wrong, if it is one.
    #[schema(required)]
    pub param: Option<String>,
    /// A word for a program, where there is one.
    #[schema(required)]
    pub code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let message = match message.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &message[..end]),
            None => message,
        };
        let error = ErrorObject {
            message,
            kind,
            param: None,
            code: None,
        };
        Self {
            status,
            error,
            retry_after: None,
            repeats: false,
        }
    }

    fn refused(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", message)
    }

    /// A field that is wrong.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::request(message);
        error.error.param = Some(param.into());
        error
    }

    /// A request that is wrong as a whole.
    pub fn request(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, message)
    }

    /// More tokens than the model can have seen at a time.
    pub fn too_long(param: &str, message: impl Into<String>) -> Self {
        Self::invalid(param, message).with_code("context_length_exceeded")
    }

    /// No key, or a wrong one.
    pub fn unauthorized() -> Self {
        let message =
            "This server needs an API key: send it as the header `Authorization: Bearer KEY`.";
        Self::refused(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key")
    }

    /// A client that this server does not speak to.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::FORBIDDEN, message)
    }

    /// A model that is not served here.
    pub fn no_model(asked: &str, served: &str) -> Self {
        let message = format!("The model {asked:?} is not served here, only {served:?}.");
        let mut error = Self::refused(StatusCode::NOT_FOUND, message).with_code("model_not_found");
        error.error.param = Some("model".to_owned());
        error
    }

    /// A path that leads nowhere.
    pub fn no_path(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::NOT_FOUND, message)
    }

    /// A path that takes another method.
    pub fn no_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}.");
        Self::refused(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    /// A client that takes too long to say what it wants.
    pub fn too_slow() -> Self {
        let message = "The body of the request did not arrive in time.";
        Self::refused(StatusCode::REQUEST_TIMEOUT, message)
    }

    /// A body of more bytes than this.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("The body of the request is longer than {limit} bytes.");
        Self::refused(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// A request that can be read and makes sense, but that this model cannot be asked.
    pub fn unprocessable(param: &str, message: impl Into<String>) -> Self {
        let mut error = Self::refused(StatusCode::UNPROCESSABLE_ENTITY, message);
        error.error.param = Some(param.to_owned());
        error
    }

    /// More requests than are taken at a time.
    pub fn busy(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        error.with_code("rate_limit_exceeded").after(1)
    }

    /// A server that does not answer now, and may do so in some seconds.
    pub fn unavailable(message: impl Into<String>, seconds: u64) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        error.after(seconds)
    }

    /// What the client is not to blame for, and what would happen again.
    pub fn fault(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message);
        error.repeats = true;
        error
    }

    fn with_code(mut self, code: &'static str) -> Self {
        self.error.code = Some(code);
        self
    }

    fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// As JSON, with the status left out: for a stream whose headers have gone.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: self.error.clone(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.repeats {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}
