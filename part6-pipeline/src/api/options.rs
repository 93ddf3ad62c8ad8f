//! What both kinds of request can say about their answers.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::sampling::{Penalties, Sampling};
use utoipa::ToSchema;

use super::ApiError;
use super::read::{field, kind, map, text, wrong};
use crate::ask::Ask;

/// Texts of `stop` at most.
pub const MOST_STOPS: usize = 16;
/// Bytes of one of them: so much of an answer may have to be held back.
const LONGEST_STOP: usize = 1024;
/// Of `logprobs` and `top_logprobs`.
pub const MOST_TOP: usize = 20;
/// Of `logit_bias`.
const MOST_BIASES: usize = 1024;

/// What a server allows, and what it does where a request says nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Answers to one prompt.
    pub n: usize,
    /// Prompts of one request.
    pub prompts: usize,
    /// Where a request names none. OpenAI's is 1.
    pub temperature: f32,
    /// Rows of the embedding: ids are below it.
    pub vocabulary: usize,
}

/// How answers are drawn, how long they are, and how they come. Null is the same as nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct Options {
    /// The model that is served; nothing means the same.
    pub model: Option<String>,
    /// Randomness, 0 to 2; 0 always takes the most likely token.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Only the likeliest tokens that make up this probability.
    #[schema(minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Only so many of the likeliest tokens; 0 or -1 for all. Not OpenAI's.
    #[schema(minimum = -1)]
    pub top_k: Option<i64>,
    /// Only tokens of at least this share of the likeliest one's probability. Not OpenAI's.
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    /// Above 1 makes what was there already less likely. Not OpenAI's.
    #[schema(minimum = 0)]
    pub repetition_penalty: Option<f64>,
    /// Taken from the score of each token that the answer has already.
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f64>,
    /// Taken from the score of each token as often as the answer has it already.
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f64>,
    /// Added to the scores of tokens, by their ids.
    #[schema(value_type = Option<BTreeMap<String, f64>>)]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Same seed, same answer.
    pub seed: Option<i64>,
    /// Answers to each prompt.
    #[schema(minimum = 1)]
    pub n: Option<u64>,
    /// Tokens of an answer at most, its older name.
    #[schema(minimum = 0)]
    pub max_tokens: Option<u64>,
    /// A text or a list of texts that end an answer.
    #[schema(value_type = Option<Stop>)]
    pub stop: Option<Value>,
    /// Whether the answer comes in events as it is made.
    pub stream: Option<bool>,
    /// `include_usage`: one more event at the end, with the number of tokens.
    #[schema(value_type = Option<StreamOptions>)]
    pub stream_options: Option<Value>,
    /// Goes on where the model would stop. Not OpenAI's.
    pub ignore_eos: Option<bool>,
}

/// What ends an answer.
#[derive(Debug, ToSchema)]
#[schema(as = Stop)]
#[allow(dead_code, reason = "only described")]
#[serde(untagged)]
#[derive(Serialize)]
enum Stop {
    One(String),
    Some(Vec<String>),
}

/// How events come.
#[derive(Debug, ToSchema, Serialize)]
#[allow(dead_code, reason = "only described")]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Options {
    /// An ask without a prompt and without a length, and whether a last event says what it has cost.
    ///
    /// # Errors
    /// With the first option that is out of bounds.
    pub fn ask(&self, bounds: &Bounds) -> Result<Ask, ApiError> {
        let n = self.n.unwrap_or(1);
        if n == 0 || n > bounds.n as u64 {
            return Err(beyond("n", format_args!("from 1 to {}", bounds.n)));
        }
        Ok(Ask {
            n: n as usize,
            sampling: self.sampling(bounds)?,
            penalties: self.penalties(bounds)?,
            stop: self.stops()?,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            ..Ask::default()
        })
    }

    fn sampling(&self, bounds: &Bounds) -> Result<Sampling, ApiError> {
        let temperature = within("temperature", self.temperature, 0.0, 2.0)?;
        // No set of tokens is empty: 0 leaves the likeliest one.
        let top_p = within("top_p", self.top_p, 0.0, 1.0)?;
        let top_p = top_p.map_or(1.0, |p| p.max(f32::MIN_POSITIVE));
        let penalty = within("repetition_penalty", self.repetition_penalty, 0.0, 100.0)?;
        if penalty == Some(0.0) {
            return Err(beyond("repetition_penalty", format_args!("more than 0")));
        }
        Ok(Sampling {
            temperature: temperature.unwrap_or(bounds.temperature),
            top_k: self.top_k()?,
            top_p,
            min_p: within("min_p", self.min_p, 0.0, 1.0)?.unwrap_or(0.0),
            repetition_penalty: penalty.unwrap_or(1.0),
            seed: self.seed.map_or_else(random_seed, |seed| seed as u64),
        })
    }

    fn top_k(&self) -> Result<usize, ApiError> {
        match self.top_k.unwrap_or(0) {
            -1 => Ok(0),
            k if (0..=i64::from(i32::MAX)).contains(&k) => Ok(k as usize),
            _ => Err(beyond("top_k", format_args!("-1 or 0 for all, or more"))),
        }
    }

    fn penalties(&self, bounds: &Bounds) -> Result<Penalties, ApiError> {
        let penalty = |name, value| Ok(within(name, value, -2.0, 2.0)?.unwrap_or(0.0));
        Ok(Penalties {
            presence: penalty("presence_penalty", self.presence_penalty)?,
            frequency: penalty("frequency_penalty", self.frequency_penalty)?,
            biases: self.biases(bounds)?,
        })
    }

    /// What is added to the score of which id, each id once.
    fn biases(&self, bounds: &Bounds) -> Result<Vec<(u32, f32)>, ApiError> {
        let given = self.logit_bias.iter().flatten();
        if given.clone().count() > MOST_BIASES {
            let message = format!("'logit_bias' has more than {MOST_BIASES} entries.");
            return Err(ApiError::invalid("logit_bias", message));
        }
        let mut biases = BTreeMap::new();
        for (key, value) in given {
            let id = key.parse().ok();
            let Some(id) = id.filter(|id: &u32| (*id as usize) < bounds.vocabulary) else {
                let most = bounds.vocabulary - 1;
                let message = format!("'logit_bias': {key:?} is no id from 0 to {most}.");
                return Err(ApiError::invalid("logit_bias", message));
            };
            let value = within("logit_bias", Some(*value), -100.0, 100.0)?;
            // "1" and "01" are one id.
            if biases.insert(id, value.unwrap_or(0.0)).is_some() {
                let message = format!("'logit_bias' has the id {id} twice.");
                return Err(ApiError::invalid("logit_bias", message));
            }
        }
        Ok(biases
            .into_iter()
            .filter(|(_, bias)| *bias != 0.0)
            .collect())
    }

    fn stops(&self) -> Result<Vec<String>, ApiError> {
        let stops: Vec<String> = match &self.stop {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => {
                let numbered = texts.iter().enumerate();
                let owned =
                    |(index, value)| text(value, &format!("stop[{index}]")).map(str::to_owned);
                numbered.map(owned).collect::<Result<_, _>>()?
            }
            Some(other) => return Err(wrong("stop", "a string or a list of strings", other)),
        };
        if stops.len() > MOST_STOPS {
            let message = format!(
                "'stop' has {} texts, at most {MOST_STOPS} are taken.",
                stops.len()
            );
            return Err(ApiError::invalid("stop", message));
        }
        if stops.iter().any(|stop| stop.len() > LONGEST_STOP) {
            let message = format!("'stop' has a text of more than {LONGEST_STOP} bytes.");
            return Err(ApiError::invalid("stop", message));
        }
        if stops.iter().any(String::is_empty) {
            let message = "'stop' has an empty text, which would end each answer before it begins.";
            return Err(ApiError::invalid("stop", message));
        }
        Ok(stops)
    }

    /// Whether the answer comes in events.
    pub fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether one more event says what the answer has cost.
    ///
    /// # Errors
    /// If the answer does not come in events at all.
    pub fn include_usage(&self) -> Result<bool, ApiError> {
        let Some(options) = &self.stream_options else {
            return Ok(false);
        };
        if !self.streams() {
            let message = "'stream_options' is only for requests with 'stream': true.";
            return Err(ApiError::invalid("stream_options", message));
        }
        let options = map(options, "stream_options")?;
        match field(options, "include_usage") {
            None => Ok(false),
            Some(Value::Bool(wanted)) => Ok(*wanted),
            Some(other) => Err(wrong("stream_options.include_usage", "a boolean", other)),
        }
    }
}

/// How many log-probabilities are asked for.
pub(super) fn top(param: &str, asked: Option<u64>) -> Result<Option<usize>, ApiError> {
    match asked {
        Some(count) if count > MOST_TOP as u64 => {
            Err(beyond(param, format_args!("from 0 to {MOST_TOP}")))
        }
        asked => Ok(asked.map(|count| count as usize)),
    }
}

/// A field that OpenAI has and that would change the answer, but has no meaning here.
pub(super) fn absent(object: &Value, name: &str, why: &str) -> Result<(), ApiError> {
    match &object[name] {
        Value::Null | Value::Bool(false) => Ok(()),
        Value::Array(list) if list.is_empty() => Ok(()),
        Value::Object(map) if map.is_empty() => Ok(()),
        Value::String(text) if text.is_empty() => Ok(()),
        value => {
            let message = format!("'{name}' is {}: {why}", kind(value));
            Err(ApiError::invalid(name, message))
        }
    }
}

pub(super) fn beyond(param: &str, range: std::fmt::Arguments<'_>) -> ApiError {
    ApiError::invalid(param, format!("'{param}' must be {range}."))
}

fn within(param: &str, value: Option<f64>, least: f64, most: f64) -> Result<Option<f32>, ApiError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(beyond(param, format_args!("from {least} to {most}")))
        }
        value => Ok(value.map(|value| value as f32)),
    }
}

/// Without a seed every answer is another one.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::super::read::typed;
    use super::super::testing::{BOUNDS, refused};
    use super::*;
    use serde_json::json;

    fn ask(value: Value) -> Result<Ask, ApiError> {
        typed::<Options>(&value)?.ask(&BOUNDS)
    }

    #[test]
    fn null_is_the_same_as_nothing_and_unknown_fields_are_read_past() {
        let nulls = json!({
            "temperature": null, "top_p": null, "top_k": null, "min_p": null, "repetition_penalty": null,
            "presence_penalty": null, "frequency_penalty": null, "logit_bias": null, "n": null,
            "max_tokens": null, "stop": null, "stream": null, "stream_options": null, "seed": 7,
            "service_tier": "auto", "store": true, "metadata": {"a": "b"}, "user": "me",
        });
        assert_eq!(ask(nulls).unwrap(), ask(json!({"seed": 7})).unwrap());
        let plain = ask(json!({"seed": 7})).unwrap();
        assert_eq!((plain.n, plain.sampling.temperature), (1, 1.0));
    }

    #[test]
    fn without_a_seed_no_two_answers_are_drawn_alike() {
        let seed = || ask(json!({})).unwrap().sampling.seed;
        assert_ne!(seed(), seed());
        assert_eq!(ask(json!({"seed": -1})).unwrap().sampling.seed, u64::MAX);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let out = [
            json!({"temperature": -0.1}),
            json!({"temperature": 1e300}),
            json!({"top_p": 1.1}),
            json!({"top_k": -2}),
            json!({"min_p": 2}),
            json!({"repetition_penalty": 0}),
            json!({"presence_penalty": -3}),
            json!({"frequency_penalty": 2.5}),
            json!({"n": 0}),
            json!({"n": 5}),
            json!({"n": -1}),
            json!({"n": 1.5}),
            json!({"n": u64::MAX}),
            json!({"max_tokens": -1}),
            json!({"max_tokens": "many"}),
            json!({"stop": [1]}),
            json!({"stop": ""}),
            json!({"stop": vec!["x"; 200]}),
            json!({"stop": {"a": 1}}),
            json!({"stop": "x".repeat(2000)}),
            json!({"stream": "yes"}),
            json!({"seed": 0.5}),
            json!({"logit_bias": {"100": 1}}),
            json!({"logit_bias": {"x": 1}}),
            json!({"logit_bias": {"1": 101}}),
            json!({"logit_bias": [1]}),
            json!({"logit_bias": {"1": 1, "01": 1}}),
        ];
        let told = out.map(|value| {
            let name = value.as_object().unwrap().keys().next().unwrap().clone();
            let (param, message) = refused(ask(value));
            assert!(param.starts_with(&name), "{param}");
            message
        });
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn penalties_and_biases_reach_the_sampler() {
        let given = json!({
            "presence_penalty": -2, "frequency_penalty": 0.5, "repetition_penalty": 1.25,
            "logit_bias": {"7": -100, "3": 1.5, "5": 0},
        });
        let ask = ask(given).unwrap();
        let expected = Penalties {
            presence: -2.0,
            frequency: 0.5,
            biases: vec![(3, 1.5), (7, -100.0)],
        };
        assert_eq!(
            (ask.penalties, ask.sampling.repetition_penalty),
            (expected, 1.25)
        );
    }

    #[test]
    fn the_last_event_can_be_asked_for_only_with_events() {
        let wanted = |value| typed::<Options>(&value)?.include_usage();
        assert_eq!(wanted(json!({})), Ok(false));
        assert_eq!(
            wanted(json!({"stream": true, "stream_options": {}})),
            Ok(false)
        );
        let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
        assert_eq!(wanted(asked), Ok(true));
        let param = |value| refused(wanted(value)).0;
        let without = json!({"stream_options": {"include_usage": true}});
        assert_eq!(param(without), "stream_options");
        let number = json!({"stream": true, "stream_options": {"include_usage": 1}});
        assert_eq!(param(number), "stream_options.include_usage");
    }

    #[test]
    fn a_long_text_of_the_client_is_not_sent_back_whole() {
        let (_, message) = refused(ask(json!({"temperature": "x".repeat(100_000)})));
        assert!(message.chars().count() <= 501, "{}", message.len());
    }
}
