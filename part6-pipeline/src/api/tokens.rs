//! Text ↔ ids, as vLLM and as llama.cpp ask for it. Both names of a field are taken, and both are sent.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::options::absent;
use super::read::wrong;
use super::{ApiError, Bounds, completion, messages, object, typed};

/// A text to be encoded.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct TokenizeRequest {
    /// The text, as vLLM calls it.
    pub prompt: Option<String>,
    /// The same, as llama.cpp calls it.
    pub content: Option<String>,
    /// Or a conversation, which goes through the chat template.
    #[schema(value_type = Option<Vec<Object>>)]
    pub messages: Option<Vec<Value>>,
    /// Whether the tokenizer adds what it adds to a prompt. vLLM's name, and its default: true.
    pub add_special_tokens: Option<bool>,
    /// The same, as llama.cpp calls it, whose default is false.
    pub add_special: Option<bool>,
    /// Each id with its text. llama.cpp's.
    pub with_pieces: Option<bool>,
    /// The texts of the tokens beside the ids. vLLM's.
    pub return_token_strs: Option<bool>,
}

/// What is to be encoded.
#[derive(Debug, Clone, PartialEq)]
pub enum Encode {
    /// A text, with what the tokenizer adds or without it.
    Text(String, bool),
    /// A conversation.
    Chat(Vec<Value>),
}

impl TokenizeRequest {
    /// The request in a body.
    ///
    /// # Errors
    /// With the field that is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let object = object(bytes)?;
        let why = "they are not counted here: /apply-template has the prompt with them, to be sent as 'prompt'.";
        absent(&object, "tools", why)?;
        typed(&object)
    }

    /// What is to be encoded.
    ///
    /// # Errors
    /// If nothing is.
    pub fn encode(self) -> Result<Encode, ApiError> {
        let named = self.add_special_tokens.or(self.add_special);
        match (self.prompt, self.content, self.messages) {
            (Some(text), ..) => Ok(Encode::Text(text, named.unwrap_or(true))),
            (None, Some(text), _) => Ok(Encode::Text(text, named.unwrap_or(false))),
            (None, None, Some(values)) => messages(&values).map(Encode::Chat),
            (None, None, None) => {
                let message = "There is no text: send it as 'prompt', 'content' or 'messages'.";
                Err(ApiError::invalid("prompt", message))
            }
        }
    }
}

/// The ids of a text.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Tokenized {
    /// Ids, or pieces.
    #[schema(value_type = Vec<IdOrPiece>)]
    pub tokens: Value,
    /// How many.
    pub count: usize,
    /// How many a prompt and its answer may have.
    pub max_model_len: usize,
    /// Their texts, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_strs: Option<Vec<String>>,
}

/// A token as llama.cpp describes it: a text, or bytes where it is none.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Piece {
    /// The id.
    pub id: u32,
    /// Its text or its bytes.
    #[schema(value_type = TextOrBytes)]
    pub piece: Value,
}

/// A token of a text.
#[derive(Debug, ToSchema, Serialize)]
#[allow(dead_code, reason = "only described")]
#[serde(untagged)]
enum IdOrPiece {
    Id(u32),
    Piece(Piece),
}

/// What a token stands for.
#[derive(Debug, ToSchema, Serialize)]
#[allow(dead_code, reason = "only described")]
#[serde(untagged)]
enum TextOrBytes {
    Text(String),
    Bytes(Vec<u8>),
}

/// Ids to be decoded.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct DetokenizeRequest {
    /// The ids.
    #[schema(required, value_type = Vec<u32>)]
    pub tokens: Option<Value>,
}

impl DetokenizeRequest {
    /// The ids in a body.
    ///
    /// # Errors
    /// With what is no id of this model.
    pub fn read(bytes: &[u8], bounds: &Bounds) -> Result<Vec<u32>, ApiError> {
        match typed::<Self>(&object(bytes)?)?.tokens {
            Some(Value::Array(list)) => completion::ids(&list, "tokens", bounds),
            Some(other) => Err(wrong("tokens", "a list of ids", &other)),
            None => Err(ApiError::invalid("tokens", "'tokens' is missing.")),
        }
    }
}

/// The text of some ids, under both names.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Detokenized {
    /// As vLLM calls it.
    pub prompt: String,
    /// As llama.cpp calls it.
    pub content: String,
}

/// The text of a conversation, under both names.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Applied {
    /// As llama.cpp calls it.
    pub prompt: String,
}

/// What evaluations ask of a tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TokenizerInfo {
    /// How many tokens there are.
    pub vocab_size: usize,
    /// What a prompt begins with, if it begins with anything.
    #[schema(required)]
    pub bos_token: Option<String>,
    /// What ends an answer.
    #[schema(required)]
    pub eos_token: Option<String>,
    /// All ids that do.
    pub stop_token_ids: Vec<u32>,
    /// How many tokens a prompt and its answer may have.
    pub model_max_length: usize,
    /// The program that makes a prompt of a conversation.
    #[schema(required)]
    pub chat_template: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BOUNDS, refused};
    use super::*;
    use serde_json::json;

    #[test]
    fn both_programs_ask_in_their_own_words_and_each_has_its_default() {
        let encode = |value: Value| TokenizeRequest::read(value.to_string().as_bytes())?.encode();
        let text = |special| Ok(Encode::Text("a".to_owned(), special));
        assert_eq!(encode(json!({"prompt": "a"})), text(true));
        assert_eq!(
            encode(json!({"prompt": "a", "add_special_tokens": false})),
            text(false)
        );
        assert_eq!(encode(json!({"content": "a"})), text(false));
        assert_eq!(
            encode(json!({"content": "a", "add_special": true})),
            text(true)
        );
        let chat = encode(json!({"messages": [{"role": "user", "content": "a"}]}));
        assert_eq!(
            chat,
            Ok(Encode::Chat(vec![json!({"role": "user", "content": "a"})]))
        );
        for wrong in [json!({}), json!({"prompt": 1})] {
            assert_eq!(refused(encode(wrong)).0, "prompt");
        }
    }

    #[test]
    fn only_ids_of_this_model_are_decoded() {
        let ids = |value: Value| DetokenizeRequest::read(value.to_string().as_bytes(), &BOUNDS);
        assert_eq!(ids(json!({"tokens": [0, 99]})), Ok(vec![0, 99]));
        assert_eq!(ids(json!({"tokens": []})), Ok(vec![]));
        for wrong in [
            json!({}),
            json!({"tokens": 1}),
            json!({"tokens": [100]}),
            json!({"tokens": [-1]}),
        ] {
            assert!(refused(ids(wrong)).0.starts_with("tokens"));
        }
    }
}
