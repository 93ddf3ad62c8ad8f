//! Messages as clients write them → the turns that a chat template takes.

use serde_json::{Map, Value};
use shared::tokenizer::Message;

use super::ApiError;
use super::read::{field, map, text, wrong};

/// Turns of a conversation at most. The template is a program that runs over all of them.
const MOST: usize = 4096;

/// The turns of a conversation.
///
/// # Errors
/// With the first message that is none, or that has what a text model cannot take.
pub fn messages(values: &[Value]) -> Result<Vec<Message>, ApiError> {
    if values.is_empty() {
        let message = "'messages' is empty: it needs at least one message.";
        return Err(ApiError::invalid("messages", message));
    }
    if values.len() > MOST {
        let message = format!(
            "'messages' has {} entries, at most {MOST} are taken.",
            values.len()
        );
        return Err(ApiError::invalid("messages", message));
    }
    let numbered = values.iter().enumerate();
    let turn = |(index, value)| turn(value, &format!("messages[{index}]"));
    numbered.map(turn).collect()
}

fn turn(value: &Value, param: &str) -> Result<Message, ApiError> {
    let fields = map(value, param)?;
    let role_param = format!("{param}.role");
    let Some(role) = field(fields, "role") else {
        let message = format!("'{role_param}' is missing.");
        return Err(ApiError::invalid(role_param, message));
    };
    let role = match text(role, &role_param)? {
        // What newer models of OpenAI call it. Templates know only the old name.
        "developer" => "system",
        role @ ("system" | "user" | "assistant") => role,
        "tool" | "function" => {
            let message = format!("'{role_param}': answers of tools are not taken here.");
            return Err(ApiError::invalid(role_param, message));
        }
        other => {
            let message = format!(
                "'{role_param}' is {other:?}, and must be \"system\", \"developer\", \"user\" or \"assistant\"."
            );
            return Err(ApiError::invalid(role_param, message));
        }
    };
    Ok(Message {
        role: role.to_owned(),
        content: content(fields, role, param)?,
    })
}

/// A text, or parts of which each is one.
fn content(fields: &Map<String, Value>, role: &str, param: &str) -> Result<String, ApiError> {
    let param = format!("{param}.content");
    match fields.get("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let numbered = parts.iter().enumerate();
            let part = |(index, value)| part(value, &format!("{param}[{index}]"));
            numbered.map(part).collect()
        }
        // An answer can be nothing but a refusal.
        None | Some(Value::Null) if role == "assistant" => {
            let refusal = field(fields, "refusal").and_then(Value::as_str);
            Ok(refusal.unwrap_or_default().to_owned())
        }
        None | Some(Value::Null) => {
            let message = format!("'{param}' is missing.");
            Err(ApiError::invalid(param, message))
        }
        Some(other) => Err(wrong(&param, "a string or a list of parts", other)),
    }
}

fn part<'a>(value: &'a Value, param: &str) -> Result<&'a str, ApiError> {
    let fields = map(value, param)?;
    let type_param = format!("{param}.type");
    let Some(kind) = field(fields, "type") else {
        let message = format!("'{type_param}' is missing.");
        return Err(ApiError::invalid(type_param, message));
    };
    let name = match text(kind, &type_param)? {
        "text" => "text",
        "refusal" => "refusal",
        other => {
            let message =
                format!("'{type_param}' is {other:?}: this model reads nothing but text.");
            return Err(ApiError::invalid(type_param, message));
        }
    };
    let param = format!("{param}.{name}");
    match field(fields, name) {
        Some(value) => text(value, &param),
        None => Err(ApiError::invalid(
            param.clone(),
            format!("'{param}' is missing."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn turns(value: Value) -> Result<Vec<Message>, ApiError> {
        messages(value.as_array().unwrap())
    }

    fn param(value: Value) -> String {
        let error = turns(value).unwrap_err();
        assert_eq!(error.status, 400);
        error.error.param.unwrap()
    }

    #[test]
    fn a_developer_speaks_as_the_system_and_parts_are_one_text() {
        let turns = turns(json!([
            {"role": "developer", "content": "Be brief.", "name": "x", "unknown": {}},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
            {"role": "assistant", "content": null, "refusal": "No."},
            {"role": "assistant"},
        ]));
        let told: Vec<(String, String)> = (turns.unwrap().into_iter())
            .map(|turn| (turn.role, turn.content))
            .collect();
        let expected = [
            ("system", "Be brief."),
            ("user", "Hello"),
            ("assistant", "No."),
            ("assistant", ""),
        ];
        assert_eq!(told, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        assert_eq!(param(json!([])), "messages");
        assert_eq!(param(json!(["hi"])), "messages[0]");
        assert_eq!(param(json!([["user", "hi"]])), "messages[0]");
        assert_eq!(param(json!([{"content": "hi"}])), "messages[0].role");
        assert_eq!(
            param(json!([{"role": "robot", "content": ""}])),
            "messages[0].role"
        );
        assert_eq!(param(json!([{"role": "user"}])), "messages[0].content");
        assert_eq!(
            param(json!([{"role": "user", "content": 3}])),
            "messages[0].content"
        );
        let image = json!([{"role": "user", "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": "http://x"}},
        ]}]);
        assert_eq!(param(image), "messages[0].content[1].type");
        let empty = json!([{"role": "user", "content": [{"type": "text"}]}]);
        assert_eq!(param(empty), "messages[0].content[0].text");
    }
}
