//! `/v1/completions`: the request.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::options::{absent, beyond, top};
use super::read::wrong;
use super::{ApiError, Bounds, Options, object, typed};
use crate::ask::Ask;

/// Texts to go on with.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CompletionRequest {
    /// What only a completion has.
    #[serde(flatten)]
    pub body: CompletionBody,
    /// What every request has.
    #[serde(flatten)]
    pub options: Options,
}

/// What only a completion has.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct CompletionBody {
    /// A text, some texts, ids, or some lists of ids.
    #[schema(required, value_type = AnyPrompt)]
    pub prompt: Option<Value>,
    /// The answer begins with the prompt.
    pub echo: Option<bool>,
    /// With each token its log-probability, and those of so many likeliest ones; with `echo` for the prompt, too.
    #[schema(minimum = 0, maximum = 20)]
    pub logprobs: Option<u64>,
    /// Must be `n`: all answers are sent, and none is better.
    pub best_of: Option<u64>,
}

/// What can be a prompt.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only described")]
#[serde(untagged)]
enum AnyPrompt {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    ListsOfIds(Vec<Vec<u32>>),
}

/// One prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// To be encoded, with the tokens that the tokenizer adds.
    Text(String),
    /// As it is.
    Ids(Vec<u32>),
}

/// OpenAI's, for a completion. A chat has no such limit.
const MAX_TOKENS: u64 = 16;

impl CompletionRequest {
    /// The request in a body.
    ///
    /// # Errors
    /// With the field that is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let object = object(bytes)?;
        absent(
            &object,
            "suffix",
            "this model only goes on where a text ends.",
        )?;
        Ok(Self {
            body: typed(&object)?,
            options: typed(&object)?,
        })
    }

    /// The prompts.
    ///
    /// # Errors
    /// If there is none, if there are too many, and for what is no text and no id of this model.
    pub fn prompts(&self, bounds: &Bounds) -> Result<Vec<Prompt>, ApiError> {
        let prompts = match self.body.prompt.as_ref().unwrap_or(&Value::Null) {
            Value::String(text) => vec![Prompt::Text(text.clone())],
            Value::Array(list) if list.first().is_some_and(Value::is_number) => {
                vec![Prompt::Ids(ids(list, "prompt", bounds)?)]
            }
            Value::Array(list) => {
                let numbered = list.iter().enumerate();
                let prompts =
                    numbered.map(|(index, value)| one(value, &format!("prompt[{index}]"), bounds));
                prompts.collect::<Result<_, _>>()?
            }
            Value::Null => return Err(ApiError::invalid("prompt", "'prompt' is missing.")),
            other => return Err(wrong("prompt", "a string or a list", other)),
        };
        if prompts.is_empty() || prompts.contains(&Prompt::Ids(Vec::new())) {
            return Err(ApiError::invalid("prompt", "'prompt' has an empty list."));
        }
        if prompts.len() > bounds.prompts {
            let message = format!(
                "'prompt' has {} prompts, at most {} are taken.",
                prompts.len(),
                bounds.prompts
            );
            return Err(ApiError::invalid("prompt", message));
        }
        Ok(prompts)
    }

    /// An ask without its prompt.
    ///
    /// # Errors
    /// With the first field that is out of bounds.
    pub fn ask(&self, bounds: &Bounds) -> Result<Ask, ApiError> {
        let mut ask = self.options.ask(bounds)?;
        if self.body.best_of.is_some_and(|best| best != ask.n as u64) {
            let message = "'best_of' must be as large as 'n': all answers are sent.";
            return Err(ApiError::invalid("best_of", message));
        }
        let most = self.options.max_tokens.unwrap_or(MAX_TOKENS);
        ask.max_tokens = usize::try_from(most).unwrap_or(usize::MAX);
        if ask.max_tokens == 0 && !self.echo() {
            return Err(beyond(
                "max_tokens",
                format_args!("at least 1, or 0 with 'echo'"),
            ));
        }
        ask.logprobs = top("logprobs", self.body.logprobs)?;
        ask.prompt_logprobs = ask.logprobs.filter(|_| self.echo());
        Ok(ask)
    }

    /// Whether an answer begins with its prompt.
    pub fn echo(&self) -> bool {
        self.body.echo.unwrap_or(false)
    }
}

fn one(value: &Value, param: &str, bounds: &Bounds) -> Result<Prompt, ApiError> {
    match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(list) => ids(list, param, bounds).map(Prompt::Ids),
        other => Err(wrong(param, "a string or a list of ids", other)),
    }
}

/// A list of ids. One beyond the vocabulary would have no row in the embedding.
pub(super) fn ids(list: &[Value], param: &str, bounds: &Bounds) -> Result<Vec<u32>, ApiError> {
    let id = |(index, value): (usize, &Value)| {
        let id = value.as_u64().filter(|id| *id < bounds.vocabulary as u64);
        let param = format!("{param}[{index}]");
        let range = format_args!("an id from 0 to {}", bounds.vocabulary - 1);
        id.map(|id| id as u32).ok_or_else(|| beyond(&param, range))
    };
    list.iter().enumerate().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BOUNDS, refused};
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<CompletionRequest, ApiError> {
        CompletionRequest::read(value.to_string().as_bytes())
    }

    fn prompts(prompt: Value) -> Result<Vec<Prompt>, ApiError> {
        read(&json!({"prompt": prompt}))?.prompts(&BOUNDS)
    }

    fn ask(value: Value) -> Result<Ask, ApiError> {
        read(&value)?.ask(&BOUNDS)
    }

    #[test]
    fn a_prompt_is_a_text_texts_ids_or_lists_of_ids() {
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(prompts(json!("a")), Ok(vec![text("a")]));
        assert_eq!(prompts(json!(["a", ""])), Ok(vec![text("a"), text("")]));
        assert_eq!(prompts(json!([1, 2])), Ok(vec![Prompt::Ids(vec![1, 2])]));
        let lists = Ok(vec![Prompt::Ids(vec![1]), Prompt::Ids(vec![2])]);
        assert_eq!(prompts(json!([[1], [2]])), lists);
        assert_eq!(
            prompts(json!([[1], "b"])),
            Ok(vec![Prompt::Ids(vec![1]), text("b")])
        );
    }

    #[test]
    fn what_is_no_prompt_is_refused_with_its_place() {
        let told = [
            json!(null),
            json!(1),
            json!([]),
            json!([[]]),
            json!([[1], []]),
            json!([1, "a"]),
            json!([1, -1]),
            json!([1.5]),
            json!([100]),
            json!([[1, 100]]),
            json!([null]),
            json!({"a": 1}),
            json!(vec!["a"; 5]),
        ]
        .map(|prompt| {
            let (param, message) = refused(prompts(prompt));
            format!("{param}: {message}")
        });
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn with_echo_the_prompt_has_log_probabilities_too_and_the_answer_may_be_empty() {
        let echo = ask(json!({"echo": true, "logprobs": 1, "max_tokens": 0})).unwrap();
        assert_eq!(
            (echo.logprobs, echo.prompt_logprobs, echo.max_tokens),
            (Some(1), Some(1), 0)
        );
        let plain = ask(json!({"logprobs": 0})).unwrap();
        assert_eq!(
            (plain.logprobs, plain.prompt_logprobs, plain.max_tokens),
            (Some(0), None, 16)
        );
        let param = |value| refused(ask(value)).0;
        assert_eq!(param(json!({"max_tokens": 0})), "max_tokens");
        assert_eq!(param(json!({"logprobs": 21})), "logprobs");
        assert_eq!(param(json!({"best_of": 2})), "best_of");
        assert!(ask(json!({"best_of": 2, "n": 2})).is_ok());
        let suffix = read(&json!({"prompt": "a", "suffix": "b"}));
        assert_eq!(refused(suffix).0, "suffix");
    }
}
