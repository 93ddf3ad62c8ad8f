//! OpenAI's JSON: what clients may ask, and what they get. No HTTP beyond the status of an error, and none of MLX.
//!
//! It is as lenient as OpenAI is: null is the same as nothing for nearly every field, and unknown fields are read past.
//! What would change the meaning of a request, and is not to be had here, is refused by name.

mod chat;
mod completion;
mod error;
mod message;
mod options;
mod read;
mod reply;
#[cfg(test)]
mod testing;
mod token;
mod tokens;

pub use chat::{ChatBody, ChatRequest};
pub use completion::{CompletionBody, CompletionRequest, Prompt};
pub use error::{ApiError, ErrorBody, ErrorObject};
pub use message::messages;
pub use options::{Bounds, MOST_STOPS, MOST_TOP, Options};
pub use read::{object, typed};
pub use reply::{
    Chat, ChatChoice, ChatChunk, ChatDelta, ChatLogprobs, ChatMessage, Completion,
    CompletionChoice, CompletionDetails, ModelCard, ModelList, PromptDetails, UsageObject,
    reason_name,
};
pub use token::{CompletionLogprobs, Logprob, TopLogprob};
pub use tokens::{
    Applied, DetokenizeRequest, Detokenized, Encode, Piece, TokenizeRequest, Tokenized,
    TokenizerInfo,
};
