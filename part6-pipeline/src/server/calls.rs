//! Tools in a chat: what the model is told of them, and the calls in its answers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::begin::random_hex;
use crate::api::{ApiError, ChatRequest};
use crate::ask::{Ask, Grammar};
use crate::handle::Opened;
use crate::tools::{Choice, Family, Piece, ToolParser, Tools};

/// Tools that an answer may call, and how this model writes a call.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    tools: Tools,
    family: Family,
    /// Whether an answer that does not call has to match something else.
    or_value: bool,
}

impl Calls {
    /// The tools of a request. None if there are none that an answer may call.
    ///
    /// # Errors
    /// If they are not as OpenAI has them, or if the model's template has none.
    pub(super) fn read(opened: &Opened, request: &ChatRequest) -> Result<Option<Self>, ApiError> {
        let tools = request.tools()?;
        let Some(tools) = tools.filter(|tools| tools.choice != Choice::None) else {
            return Ok(None);
        };
        let family = Family::of_template(opened.tokenizer.chat_template());
        let family = family.map_err(|why| refused(&why))?;
        Ok(Some(Self {
            tools,
            family,
            or_value: false,
        }))
    }

    /// What the chat template is told.
    pub(super) fn for_template(&self) -> &[Value] {
        self.tools.for_template()
    }

    /// Lets an answer call, and makes it if it has to. A format holds for an answer that does not call.
    ///
    /// # Errors
    /// If the format or the schema of an argument is not supported, or if nobody could tell one from the other.
    pub(super) fn constrain(&mut self, opened: &Opened, ask: &mut Ask) -> Result<(), ApiError> {
        let format = ask.grammar.take();
        let format = format.filter(|_| self.tools.choice == Choice::Auto);
        self.or_value = format.is_some();
        let grammar = match format {
            Some(format) => Some(self.either(opened, &format)?),
            None => (self.tools.grammar(self.family)).map_err(|why| refused(&why))?,
        };
        if let Some(grammar) = &grammar {
            check(opened, grammar, "tools")?;
        }
        ask.grammar = grammar.map(Arc::new);
        Ok(())
    }

    fn either(&self, opened: &Opened, format: &Grammar) -> Result<Grammar, ApiError> {
        check(opened, format, "response_format")?;
        let vocabulary = opened.vocabulary();
        let vocabulary = vocabulary.map_err(|why| ApiError::fault(format!("{why:#}")))?;
        if let Err(why) = self.tools.check_format(self.family, format, &vocabulary) {
            let message = format!("'response_format': {why:#}.");
            return Err(ApiError::invalid("response_format", message));
        }
        let grammar = self.tools.grammar_or(self.family, format, &vocabulary);
        grammar.map_err(|why| refused(&why))
    }

    fn parser(&self) -> ToolParser {
        if self.or_value {
            self.tools.parser_or(self.family)
        } else {
            self.tools.parser(self.family)
        }
    }
}

fn refused(why: &anyhow::Error) -> ApiError {
    ApiError::invalid("tools", format!("'tools': {why:#}."))
}

/// Refuses a grammar that no answer could match.
pub(super) fn check(opened: &Opened, grammar: &Grammar, param: &str) -> Result<(), ApiError> {
    let vocabulary = opened.vocabulary();
    let vocabulary = vocabulary.map_err(|why| ApiError::fault(format!("{why:#}")))?;
    let checked = vocabulary.check(grammar);
    checked.map_err(|why| ApiError::invalid(param, format!("{why:#}")))
}

/// What a client gets of an answer at a time, as the `delta` of a chunk.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Delta {
    /// Text.
    Content(String),
    /// A call begins, or more of its arguments.
    Call(Value),
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    parser: Option<ToolParser>,
    family: Option<Family>,
    parallel: bool,
    calls: usize,
}

impl Reader {
    /// An answer that may call some tools, if there are any.
    pub(super) fn new(calls: Option<&Calls>) -> Self {
        Self {
            parser: calls.map(Calls::parser),
            family: calls.map(|calls| calls.family),
            parallel: calls.is_some_and(|calls| calls.tools.parallel),
            calls: 0,
        }
    }

    /// Calls that have begun.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// More of the answer → what is decided by it.
    pub(super) fn push(&mut self, text: String) -> Vec<Delta> {
        match &mut self.parser {
            Some(parser) => {
                let pieces = parser.push(&text);
                self.deltas(pieces)
            }
            None if text.is_empty() => Vec::new(),
            None => vec![Delta::Content(text)],
        }
    }

    /// The answer has ended.
    pub(super) fn finish(&mut self) -> Vec<Delta> {
        let pieces = self.parser.as_mut().map(ToolParser::finish);
        self.deltas(pieces.unwrap_or_default())
    }

    fn deltas(&mut self, pieces: Vec<Piece>) -> Vec<Delta> {
        pieces
            .into_iter()
            .filter_map(|piece| self.delta(piece))
            .collect()
    }

    /// In OpenAI's order: the name comes first, with an id, and then the arguments in pieces.
    fn delta(&mut self, piece: Piece) -> Option<Delta> {
        let (index, function) = match piece {
            Piece::Text(text) => return Some(Delta::Content(text)),
            Piece::Call { index, name } => (index, json!({"name": name, "arguments": ""})),
            Piece::Arguments { index, text } => (index, json!({"arguments": text})),
        };
        if index > 0 && !self.parallel {
            return None; // one was asked for
        }
        if index < self.calls {
            return Some(Delta::Call(json!({"index": index, "function": function})));
        }
        self.calls += 1;
        let (id, kind) = (self.id(), "function");
        Some(Delta::Call(
            json!({"index": index, "id": id, "type": kind, "function": function}),
        ))
    }

    /// Templates of Mistral refuse ids that are not of nine letters and digits.
    fn id(&self) -> String {
        let random = random_hex();
        if self.family == Some(Family::Mistral) {
            random[..9].to_owned()
        } else {
            format!("call_{}", &random[..24])
        }
    }
}

/// The text of a whole answer, and its calls.
pub(super) fn whole(calls: Option<&Calls>, text: String) -> (String, Vec<Value>) {
    let mut reader = Reader::new(calls);
    let mut deltas = reader.push(text);
    deltas.extend(reader.finish());
    let (mut content, mut calls) = (String::new(), Vec::new());
    for delta in deltas {
        match delta {
            Delta::Content(text) => content.push_str(&text),
            Delta::Call(call) => add(&mut calls, call),
        }
    }
    (content, calls)
}

/// As clients put deltas together.
fn add(calls: &mut Vec<Value>, mut delta: Value) {
    if let Some(call) = delta.as_object_mut() {
        call.shift_remove("index");
    }
    match (calls.last_mut(), delta["id"].is_null()) {
        (Some(call), true) => {
            let arguments = &mut call["function"]["arguments"];
            let more = delta["function"]["arguments"].as_str().unwrap_or_default();
            *arguments = format!("{}{more}", arguments.as_str().unwrap_or_default()).into();
        }
        _ => calls.push(delta),
    }
}
