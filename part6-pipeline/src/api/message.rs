//! Messages as clients write them → the turns that a chat template takes.

use serde_json::{Map, Value, json};

use super::ApiError;
use super::read::{field, map, text, wrong};

/// Turns of a conversation at most. The template is a program that runs over all of them.
const MOST: usize = 4096;
/// Calls of one turn at most.
const MOST_CALLS: usize = 128;

/// The turns of a conversation, with nothing but what templates know: `role` and `content`, and where there are calls
/// `tool_calls`, `tool_call_id` and `name`.
///
/// # Errors
/// With the first message that is none, or that has what a text model cannot take.
pub fn messages(values: &[Value]) -> Result<Vec<Value>, ApiError> {
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

fn turn(value: &Value, param: &str) -> Result<Value, ApiError> {
    let fields = map(value, param)?;
    let role_param = format!("{param}.role");
    let role = match text(needed(fields, "role", param)?, &role_param)? {
        // What newer models of OpenAI call it. Templates know only the old name.
        "developer" => "system",
        role @ ("system" | "user" | "assistant" | "tool") => role,
        "function" => {
            let message = format!("'{role_param}': it is the old name of \"tool\".");
            return Err(ApiError::invalid(role_param, message));
        }
        other => {
            let message = format!(
                "'{role_param}' is {other:?}, and must be \"system\", \"developer\", \"user\", \"assistant\" or \
                 \"tool\"."
            );
            return Err(ApiError::invalid(role_param, message));
        }
    };
    let mut turn = Map::new();
    turn.insert("role".to_owned(), role.into());
    turn.insert("content".to_owned(), content(fields, role, param)?.into());
    if role == "assistant"
        && let Some(calls) = field(fields, "tool_calls")
    {
        let calls = self::calls(calls, &format!("{param}.tool_calls"))?;
        // Templates ask whether the field is there.
        if !calls.is_empty() {
            turn.insert("tool_calls".to_owned(), calls.into());
        }
    }
    if role == "tool" {
        let id = text(
            needed(fields, "tool_call_id", param)?,
            &format!("{param}.tool_call_id"),
        )?;
        turn.insert("tool_call_id".to_owned(), id.into());
        if let Some(name) = field(fields, "name") {
            let name = text(name, &format!("{param}.name"))?;
            turn.insert("name".to_owned(), name.into());
        }
    }
    Ok(turn.into())
}

/// A field that must be there.
fn needed<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
    param: &str,
) -> Result<&'a Value, ApiError> {
    field(fields, name).ok_or_else(|| {
        let param = format!("{param}.{name}");
        ApiError::invalid(param.clone(), format!("'{param}' is missing."))
    })
}

/// What a model has called, with the arguments as the object that they are: clients send its text, and a template that
/// writes JSON would quote it once more.
fn calls(value: &Value, param: &str) -> Result<Vec<Value>, ApiError> {
    let Some(calls) = value.as_array() else {
        return Err(wrong(param, "a list", value));
    };
    if calls.len() > MOST_CALLS {
        let message = format!("'{param}' has more than {MOST_CALLS} entries.");
        return Err(ApiError::invalid(param, message));
    }
    let call = |(index, value): (usize, &Value)| {
        let param = format!("{param}[{index}]");
        let fields = map(value, &param)?;
        let function_param = format!("{param}.function");
        let function = map(needed(fields, "function", &param)?, &function_param)?;
        let name = needed(function, "name", &function_param)?;
        let name = text(name, &format!("{function_param}.name"))?;
        let arguments = arguments(function, &format!("{function_param}.arguments"))?;
        let function = json!({"name": name, "arguments": arguments});
        let mut call = Map::new();
        if let Some(id) = field(fields, "id") {
            let id = text(id, &format!("{param}.id"))?;
            call.insert("id".to_owned(), id.into());
        }
        call.insert("type".to_owned(), "function".into());
        call.insert("function".to_owned(), function);
        Ok(call.into())
    };
    calls.iter().enumerate().map(call).collect()
}

fn arguments(function: &Map<String, Value>, param: &str) -> Result<Value, ApiError> {
    let arguments = match field(function, "arguments") {
        None => return Ok(json!({})),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(json!({})),
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        Some(value) => Some(value.clone()),
    };
    let object = arguments.filter(Value::is_object);
    object.ok_or_else(|| {
        let message = format!("'{param}' must be a JSON object as a text.");
        ApiError::invalid(param, message)
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
    let name = match text(needed(fields, "type", param)?, &type_param)? {
        "text" => "text",
        "refusal" => "refusal",
        other => {
            let message =
                format!("'{type_param}' is {other:?}: this model reads nothing but text.");
            return Err(ApiError::invalid(type_param, message));
        }
    };
    text(needed(fields, name, param)?, &format!("{param}.{name}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::refused;
    use super::*;

    fn turns(value: Value) -> Result<Vec<Value>, ApiError> {
        messages(value.as_array().unwrap())
    }

    fn param(value: Value) -> String {
        refused(turns(value)).0
    }

    #[test]
    fn a_developer_speaks_as_the_system_and_parts_are_one_text() {
        let turns = turns(json!([
            {"role": "developer", "content": "Be brief.", "name": "x", "unknown": {}},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
            {"role": "assistant", "content": null, "refusal": "No."},
            {"role": "assistant"},
        ]));
        let expected = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "No."},
            {"role": "assistant", "content": ""},
        ]);
        assert_eq!(Value::from(turns.unwrap()), expected);
    }

    #[test]
    fn calls_and_their_answers_become_what_templates_know() {
        let call = |arguments: Value| json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}});
        let turns = turns(json!([
            {"role": "assistant", "content": null, "tool_calls": [call(json!("{\"b\": 1, \"a\": [2]}")), call(json!(""))]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "3"}], "name": "f"},
            {"role": "assistant", "content": "x", "tool_calls": []},
            {"role": "user", "content": "y", "tool_calls": [1], "tool_call_id": 2},
        ]));
        let turns = Value::from(turns.unwrap());
        let expected = json!([
            {"role": "assistant", "content": "", "tool_calls": [call(json!({"b": 1, "a": [2]})), call(json!({}))]},
            {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "f"},
            {"role": "assistant", "content": "x"},
            {"role": "user", "content": "y"},
        ]);
        assert_eq!(turns, expected);
        let order = turns[0]["tool_calls"][0]["function"]["arguments"].to_string();
        assert_eq!(order, "{\"b\":1,\"a\":[2]}");
        let wrong = |calls: Value| param(json!([{"role": "assistant", "tool_calls": calls}]));
        assert_eq!(wrong(json!(1)), "messages[0].tool_calls");
        assert_eq!(wrong(json!([1])), "messages[0].tool_calls[0]");
        assert_eq!(wrong(json!([{}])), "messages[0].tool_calls[0].function");
        assert_eq!(
            wrong(json!([{"function": {}}])),
            "messages[0].tool_calls[0].function.name"
        );
        for arguments in [json!("{"), json!("[]"), json!(1)] {
            let expected = "messages[0].tool_calls[0].function.arguments";
            assert_eq!(wrong(json!([call(arguments)])), expected);
        }
        assert_eq!(
            param(json!([{"role": "tool", "content": "3"}])),
            "messages[0].tool_call_id"
        );
        assert_eq!(
            param(json!([{"role": "tool", "tool_call_id": "c"}])),
            "messages[0].content"
        );
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
