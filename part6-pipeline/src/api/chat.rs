//! `/v1/chat/completions`: the request.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::options::{absent, top};
use super::read::{field, map, text, wrong};
use super::{ApiError, Bounds, Options, messages, object, typed};
use crate::ask::{Ask, Grammar};
use crate::tools::Tools;

/// A conversation to go on with.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatRequest {
    /// What only a chat has.
    #[serde(flatten)]
    pub body: ChatBody,
    /// What every request has.
    #[serde(flatten)]
    pub options: Options,
}

/// What only a chat has.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct ChatBody {
    /// What was said: objects with `role` and `content`.
    #[schema(required, value_type = Vec<ChatTurn>)]
    pub messages: Option<Vec<Value>>,
    /// Tokens of an answer at most; stands above `max_tokens`.
    #[schema(minimum = 1)]
    pub max_completion_tokens: Option<u64>,
    /// With each token its log-probability.
    pub logprobs: Option<bool>,
    /// And those of so many likeliest ones.
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<u64>,
    /// `{"type": "text"}`, `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {"name": …, "schema": …}}`.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Value>,
    /// `none`, `auto`, `required`, or the function that is to be called.
    #[schema(value_type = Option<ToolChoice>)]
    pub tool_choice: Option<Value>,
    /// Whether an answer may call more than one of them.
    pub parallel_tool_calls: Option<bool>,
}

/// One turn of a conversation.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only described")]
struct ChatTurn {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    role: String,
    /// A text, or a list of parts `{"type": "text", "text": …}`.
    #[schema(value_type = Option<Content>)]
    content: Value,
    /// What an assistant has called.
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Value,
    /// Which call a tool answers.
    tool_call_id: Option<String>,
}

/// What was said.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only described")]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<TextPart>),
}

/// A part of it.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only described")]
struct TextPart {
    r#type: String,
    text: String,
}

/// Whether tools are called.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only described")]
#[serde(untagged)]
enum ToolChoice {
    Word(String),
    Function(serde_json::Map<String, Value>),
}

/// Fields of which each would make another answer, and why there is none.
const ABSENT: [(&str, &str); 5] = [
    ("functions", "it is the old name of 'tools'."),
    ("audio", "this model speaks nothing but text."),
    ("web_search_options", "this server searches nothing."),
    ("chat_template_kwargs", "the template takes no arguments."),
    (
        "continue_final_message",
        "an answer begins with a turn of its own.",
    ),
];

impl ChatRequest {
    /// The request in a body.
    ///
    /// # Errors
    /// With the field that is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let object = object(bytes)?;
        for (name, why) in ABSENT {
            absent(&object, name, why)?;
        }
        let request = Self {
            body: typed(&object)?,
            options: typed(&object)?,
        };
        request.check_modalities(&object["modalities"])?;
        Ok(request)
    }

    fn check_modalities(&self, modalities: &Value) -> Result<(), ApiError> {
        let other = |kinds: &Vec<Value>| kinds.iter().any(|kind| kind != "text");
        if modalities.as_array().is_some_and(other) {
            let message = "'modalities': this model speaks nothing but text.";
            return Err(ApiError::invalid("modalities", message));
        }
        Ok(())
    }

    /// What was said.
    ///
    /// # Errors
    /// With the message that is wrong.
    pub fn messages(&self) -> Result<Vec<Value>, ApiError> {
        let Some(values) = &self.body.messages else {
            let message = "'messages' is missing.";
            return Err(ApiError::invalid("messages", message));
        };
        messages(values)
    }

    /// What may be called, if anything is offered.
    ///
    /// # Errors
    /// If it is not as OpenAI has it.
    pub fn tools(&self) -> Result<Option<Tools>, ApiError> {
        let body = &self.body;
        let given = json!({
            "tools": body.tools, "tool_choice": body.tool_choice, "parallel_tool_calls": body.parallel_tool_calls,
        });
        Tools::from_request(&given).map_err(|why| {
            let why = format!("{why:#}");
            let choice = why.starts_with("\"tool_choice\"");
            ApiError::invalid(if choice { "tool_choice" } else { "tools" }, why)
        })
    }

    /// An ask without its prompt. Its length is what was asked for, or as much as there may be.
    ///
    /// # Errors
    /// With the first field that is out of bounds.
    pub fn ask(&self, bounds: &Bounds) -> Result<Ask, ApiError> {
        let mut ask = self.options.ask(bounds)?;
        ask.max_tokens = self.max_tokens()?;
        ask.logprobs = self.logprobs()?;
        ask.grammar = self.grammar()?.map(Arc::new);
        Ok(ask)
    }

    fn max_tokens(&self) -> Result<usize, ApiError> {
        let (param, asked) = match self.body.max_completion_tokens {
            Some(asked) => ("max_completion_tokens", asked),
            None => ("max_tokens", self.options.max_tokens.unwrap_or(u64::MAX)),
        };
        if asked == 0 {
            let message = format!("'{param}' must be at least 1.");
            return Err(ApiError::invalid(param, message));
        }
        Ok(usize::try_from(asked).unwrap_or(usize::MAX))
    }

    fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        let wanted = self.body.logprobs.unwrap_or(false);
        let top = top("top_logprobs", self.body.top_logprobs)?;
        if top.is_some_and(|top| top > 0) && !wanted {
            let message = "'top_logprobs' is only for requests with 'logprobs': true.";
            return Err(ApiError::invalid("top_logprobs", message));
        }
        Ok(wanted.then_some(top.unwrap_or(0)))
    }

    fn grammar(&self) -> Result<Option<Grammar>, ApiError> {
        const NAME: &str = "response_format";
        let Some(format) = &self.body.response_format else {
            return Ok(None);
        };
        let fields = map(format, NAME)?;
        let param = "response_format.type";
        let Some(kind) = field(fields, "type") else {
            return Err(ApiError::invalid(param, format!("'{param}' is missing.")));
        };
        match text(kind, param)? {
            "text" => Ok(None),
            "json_object" => Ok(Some(Grammar::Json)),
            "json_schema" => schema(field(fields, "json_schema").unwrap_or(&Value::Null)).map(Some),
            other => {
                let message = format!(
                    "'{param}' is {other:?}, and must be \"text\", \"json_object\" or \"json_schema\"."
                );
                Err(ApiError::invalid(param, message))
            }
        }
    }
}

/// The schema of a `json_schema`. One that says nothing is JSON mode: a schema that allows anything would let a model
/// write a number without end.
fn schema(format: &Value) -> Result<Grammar, ApiError> {
    let param = "response_format.json_schema";
    let fields = map(format, param)?;
    let name_param = "response_format.json_schema.name";
    match field(fields, "name") {
        Some(name) => text(name, name_param).map(drop)?,
        None => {
            let message = format!("'{name_param}' is missing.");
            return Err(ApiError::invalid(name_param, message));
        }
    }
    match field(fields, "schema") {
        Some(Value::Object(schema)) if schema.is_empty() => Ok(Grammar::Json),
        Some(schema @ Value::Object(_)) => Ok(Grammar::Schema(schema.clone())),
        Some(other) => Err(wrong(&format!("{param}.schema"), "an object", other)),
        None => Ok(Grammar::Json),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BOUNDS, refused};
    use super::*;
    use serde_json::json;

    fn ask(mut value: Value) -> Result<Ask, ApiError> {
        let said = json!([{"role": "user", "content": "hi"}]);
        let fields = value.as_object_mut().unwrap();
        fields.entry("messages").or_insert(said);
        fields.entry("seed").or_insert(json!(0));
        let request = ChatRequest::read(value.to_string().as_bytes())?;
        request.messages()?;
        request.ask(&BOUNDS)
    }

    fn param(value: Value) -> String {
        refused(ask(value)).0
    }

    #[test]
    fn an_answer_is_as_long_as_there_is_room_unless_a_field_says_otherwise() {
        let length = |value| ask(value).unwrap().max_tokens;
        assert_eq!(length(json!({})), usize::MAX);
        assert_eq!(length(json!({"max_tokens": 5})), 5);
        assert_eq!(
            length(json!({"max_tokens": 5, "max_completion_tokens": 3})),
            3
        );
        assert_eq!(
            param(json!({"max_completion_tokens": 0})),
            "max_completion_tokens"
        );
        assert_eq!(param(json!({"max_tokens": 0})), "max_tokens");
    }

    #[test]
    fn log_probabilities_are_asked_for_by_one_field_and_counted_by_another() {
        let logprobs = |value| ask(value).unwrap().logprobs;
        assert_eq!(logprobs(json!({})), None);
        assert_eq!(logprobs(json!({"logprobs": true})), Some(0));
        assert_eq!(
            logprobs(json!({"logprobs": true, "top_logprobs": 20})),
            Some(20)
        );
        assert_eq!(
            logprobs(json!({"logprobs": false, "top_logprobs": 0})),
            None
        );
        assert_eq!(
            param(json!({"logprobs": true, "top_logprobs": 21})),
            "top_logprobs"
        );
        assert_eq!(
            param(json!({"logprobs": true, "top_logprobs": -1})),
            "top_logprobs"
        );
        assert_eq!(param(json!({"top_logprobs": 2})), "top_logprobs");
        assert_eq!(param(json!({"logprobs": 2})), "logprobs");
    }

    #[test]
    fn a_format_becomes_a_grammar_and_an_empty_schema_is_json_mode() {
        let grammar = |format| {
            let ask = ask(json!({"response_format": format})).unwrap();
            ask.grammar.map(Arc::unwrap_or_clone)
        };
        assert_eq!(grammar(json!({"type": "text"})), None);
        assert_eq!(grammar(json!({"type": "json_object"})), Some(Grammar::Json));
        let schema = |schema| json!({"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}});
        assert_eq!(grammar(schema(json!({}))), Some(Grammar::Json));
        let object = json!({"type": "object"});
        assert_eq!(
            grammar(schema(object.clone())),
            Some(Grammar::Schema(object))
        );
        let param = |format| param(json!({"response_format": format}));
        assert_eq!(param(json!({"type": "sound"})), "response_format.type");
        assert_eq!(param(json!("json_object")), "response_format");
        assert_eq!(param(json!({})), "response_format.type");
        assert_eq!(
            param(schema(json!(123))),
            "response_format.json_schema.schema"
        );
        assert_eq!(
            param(json!({"type": "json_schema"})),
            "response_format.json_schema"
        );
        let nameless = json!({"type": "json_schema", "json_schema": {"schema": {}}});
        assert_eq!(param(nameless), "response_format.json_schema.name");
    }

    #[test]
    fn what_would_change_the_answer_and_is_not_there_is_refused_and_the_rest_is_read_past() {
        let fine = json!({
            "reasoning_effort": "low", "verbosity": "low", "parallel_tool_calls": true, "prompt_cache_key": "x",
            "prompt_cache_retention": "24h", "service_tier": "auto", "store": false, "safety_identifier": "x",
            "metadata": {}, "prediction": null, "modalities": ["text"], "audio": null, "functions": [],
        });
        assert!(ask(fine).is_ok());
        assert_eq!(
            param(json!({"modalities": ["text", "audio"]})),
            "modalities"
        );
        assert_eq!(param(json!({"audio": {"voice": "x"}})), "audio");
        assert_eq!(param(json!({"functions": [{"name": "f"}]})), "functions");
    }

    #[test]
    fn a_body_that_is_no_request_is_refused_with_what_it_is() {
        let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let deep = format!("{{\"messages\": {nested}}}");
        let huge = "{\"temperature\": 1e999}".to_owned();
        let bodies = [
            "",
            "{",
            "[]",
            "\"hi\"",
            "null",
            "{\"messages\": 1}",
            "{\"a\": NaN}",
            &deep,
            &huge,
        ];
        let told = bodies.map(|body| refused(ChatRequest::read(body.as_bytes())).1);
        insta::assert_snapshot!(told.join("\n"));
        let (_, message) = refused(ChatRequest::read(b"{\"messages\": \"\xff\"}"));
        assert!(message.contains("unicode"), "{message}");
    }

    #[test]
    fn an_error_is_one_object_with_the_place() {
        let error = ask(json!({"messages": [{"role": "user", "content": 1}]})).unwrap_err();
        insta::assert_snapshot!(serde_json::to_string_pretty(&error.body()).unwrap());
    }
}
