//! Tool calls: what a client offers, what the answer must be if it has to call, and the calls in its text.
//!
//! A model writes a call as text, each family in its own way; a client wants a name and arguments, as they come. What
//! looks like a call and is none (another name, no name) stays text.

mod call;
mod either;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::ask::Grammar;
use crate::constraint::values;
use call::{Call, Said};

/// Tools of one request.
const MOST: usize = 128;

/// How a family of models writes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen, SmolLM.
    Hermes,
    /// The whole answer is `{"name": …, "parameters": {…}}`, several with `;` between them.
    Llama3,
    /// The whole answer is `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`.
    Mistral,
}

impl Family {
    /// The family whose marks a chat template writes.
    ///
    /// # Errors
    /// If the template has no tools, or writes them in another way.
    pub fn of_template(template: Option<&str>) -> Result<Self> {
        let template = template.filter(|text| text.contains("tools"));
        let template =
            template.context("the chat template of this model has no tools: ask without them")?;
        // Qwen's coder and GLM write no JSON between the same marks.
        let others = ["<function=", "<arg_key>"];
        let other = others.iter().any(|mark| template.contains(mark));
        Ok(if template.contains("<tool_call>") && !other {
            Self::Hermes
        } else if template.contains("[TOOL_CALLS]") {
            Self::Mistral
        } else if !other
            && (template.contains("<|python_tag|>") || template.contains("\"parameters\""))
        {
            Self::Llama3
        } else {
            bail!(
                "the chat template of this model has tools, but its way to call them is not supported: those of Hermes, \
                 Qwen, Llama 3 and Mistral are"
            );
        })
    }

    fn arguments(self) -> &'static str {
        match self {
            Self::Llama3 => "parameters",
            Self::Hermes | Self::Mistral => "arguments",
        }
    }
}

/// Whether the answer has to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// It must not.
    None,
    /// As the model likes.
    Auto,
    /// Any of the tools.
    Required,
    /// This one.
    Function(String),
}

/// What a request says of tools.
#[derive(Debug, Clone, PartialEq)]
pub struct Tools {
    /// As they came, for the chat template.
    pub offered: Vec<Value>,
    /// Whether the answer has to call.
    pub choice: Choice,
    /// Whether it may call several.
    pub parallel: bool,
}

impl Tools {
    /// Reads `tools`, `tool_choice` and `parallel_tool_calls`. None if there are none.
    ///
    /// # Errors
    /// One line, if they are not as OpenAI has them.
    pub fn from_request(request: &Value) -> Result<Option<Self>> {
        let given = |key: &str| request.get(key).filter(|value| !value.is_null());
        let offered = match given("tools") {
            None => Vec::new(),
            Some(Value::Array(tools)) => tools.clone(),
            Some(_) => bail!("\"tools\" is no list"),
        };
        ensure!(
            offered.len() <= MOST,
            "there are more than {MOST} \"tools\""
        );
        (offered.iter().enumerate()).try_for_each(|(at, tool)| {
            check(tool).with_context(|| format!("reading \"tools\"[{at}]"))
        })?;
        let choice = choice(given("tool_choice"), !offered.is_empty())?;
        let parallel = match given("parallel_tool_calls") {
            None => true,
            Some(Value::Bool(parallel)) => *parallel,
            Some(_) => bail!("\"parallel_tool_calls\" is neither true nor false"),
        };
        let tools = Self {
            offered,
            choice,
            parallel,
        };
        if let Choice::Function(name) = &tools.choice {
            let known = tools.names().any(|known| known == name);
            ensure!(
                known,
                "\"tool_choice\" names {name:?}, which is none of the \"tools\""
            );
        }
        Ok((!tools.offered.is_empty()).then_some(tools))
    }

    /// What the chat template is told. A model that must not call need not know what it could.
    pub fn for_template(&self) -> &[Value] {
        if self.choice == Choice::None {
            &[]
        } else {
            &self.offered
        }
    }

    /// The names of the tools.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.offered.iter().filter_map(name)
    }

    /// What the answer must match, if it has to call: one call, whose arguments meet the tool's schema.
    ///
    /// # Errors
    /// If a schema has what is not supported.
    pub fn grammar(&self, family: Family) -> Result<Option<Grammar>> {
        let may = |tool: &&Value| match &self.choice {
            Choice::None | Choice::Auto => false,
            Choice::Required => true,
            Choice::Function(wanted) => name(tool) == Some(wanted),
        };
        let chosen: Vec<&Value> = self.offered.iter().filter(may).collect();
        if chosen.is_empty() {
            return Ok(None);
        }
        let calls = calls_schema(&chosen, family, "#", Some(1));
        Ok(Some(match family {
            Family::Hermes => values(
                r#"start: "<tool_call>\n" call "\n</tool_call>""#,
                &[("call", &calls)],
            )?,
            Family::Llama3 | Family::Mistral => Grammar::Schema(calls),
        }))
    }

    /// Finds the calls in an answer.
    pub fn parser(&self, family: Family) -> ToolParser {
        ToolParser::new(family, self.names().map(str::to_owned).collect())
    }

    /// Finds the calls in an answer that matches [`grammar_or`](Self::grammar_or): all of it is calls, or nothing is.
    pub fn parser_or(&self, family: Family) -> ToolParser {
        ToolParser {
            or_value: true,
            ..self.parser(family)
        }
    }
}

fn name(tool: &Value) -> Option<&str> {
    tool.pointer("/function/name")?.as_str()
}

fn check(tool: &Value) -> Result<()> {
    ensure!(
        tool["type"] == "function",
        "its \"type\" is {}, only \"function\" is supported",
        tool["type"]
    );
    let name = name(tool).context("its function has no \"name\"")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    ensure!(
        (1..=64).contains(&name.len()) && name.chars().all(fits),
        "{name:?} is no name of a function: 1 to 64 letters, digits, _ and -"
    );
    let parameters = &tool["function"]["parameters"];
    ensure!(
        parameters.is_null() || parameters.is_object(),
        "the \"parameters\" of {name:?} are no schema"
    );
    Ok(())
}

fn choice(given: Option<&Value>, offered: bool) -> Result<Choice> {
    let needs = |choice: Choice| {
        ensure!(
            offered,
            "\"tool_choice\" asks for a call, but there are no \"tools\""
        );
        Ok(choice)
    };
    match given {
        None => Ok(if offered { Choice::Auto } else { Choice::None }),
        Some(Value::String(word)) => match word.as_str() {
            "none" => Ok(Choice::None),
            "auto" => Ok(Choice::Auto),
            "required" => needs(Choice::Required),
            _ => bail!(
                "\"tool_choice\" is {word:?}; there are \"none\", \"auto\", \"required\" and a function"
            ),
        },
        Some(function) => {
            let name = function.pointer("/function/name").and_then(Value::as_str);
            let name = name.context("\"tool_choice\" names no function")?;
            needs(Choice::Function(name.to_owned()))
        }
    }
}

/// A call of one of some tools; of Mistral a list of them, at most so many. `at` is where it will stand.
fn calls_schema(tools: &[&Value], family: Family, at: &str, most: Option<usize>) -> Value {
    let items = if family == Family::Mistral {
        "/items"
    } else {
        ""
    };
    let call = |(place, tool): (usize, &&Value)| {
        let arguments = family.arguments();
        let at = format!("{at}{items}/anyOf/{place}/properties/{arguments}");
        call_schema(tool, family, &at)
    };
    let any = json!({"anyOf": tools.iter().enumerate().map(call).collect::<Vec<_>>()});
    if family != Family::Mistral {
        return any;
    }
    let mut list = json!({"type": "array", "items": any, "minItems": 1});
    if let Some(most) = most {
        list["maxItems"] = most.into();
    }
    list
}

/// One call as JSON. `at` is where its arguments will stand.
fn call_schema(tool: &Value, family: Family, at: &str) -> Value {
    let mut parameters = tool["function"]["parameters"].clone();
    if parameters.as_object().is_none_or(serde_json::Map::is_empty) {
        // OpenAI: it has none.
        parameters = json!({"type": "object", "properties": {}, "additionalProperties": false});
    }
    rebase(&mut parameters, at);
    let arguments = family.arguments();
    json!({
        "type": "object",
        "properties": {"name": {"const": name(tool)}, arguments: parameters},
        "required": ["name", arguments],
        "additionalProperties": false,
    })
}

/// References begin at the root of the schema, which is somewhere else now.
fn rebase(schema: &mut Value, at: &str) {
    match schema {
        Value::Object(keywords) => {
            for (keyword, value) in keywords {
                if let (true, Value::String(reference)) = (keyword == "$ref", &mut *value)
                    && let Some(rest) = reference.strip_prefix('#')
                {
                    *reference = format!("{at}{}", rest.trim_end_matches('/'));
                } else {
                    rebase(value, at);
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| rebase(one, at)),
        _ => {}
    }
}

/// What a client gets of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text.
    Text(String),
    /// A call begins.
    Call {
        /// Which call of the answer, from 0.
        index: usize,
        /// Whose.
        name: String,
    },
    /// More of its arguments, which together are JSON.
    Arguments {
        /// Of which call.
        index: usize,
        /// Not empty.
        text: String,
    },
}

/// Where in an answer the parser is.
#[derive(Debug)]
enum Place {
    /// Before anything that is no white space.
    Start,
    Text,
    /// In a call; what has come of it so far, as long as it may still be text.
    Call(Box<Call>),
    /// Behind a call.
    After,
}

/// Finds calls in a text that comes piece by piece.
#[derive(Debug)]
pub struct ToolParser {
    family: Family,
    names: Vec<String>,
    place: Place,
    /// What was not decided yet.
    held: String,
    calls: usize,
    /// Whether an answer that does not begin with a call is a value, in which nothing is one.
    or_value: bool,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

impl ToolParser {
    fn new(family: Family, names: Vec<String>) -> Self {
        Self {
            family,
            names,
            place: Place::Start,
            held: String::new(),
            calls: 0,
            or_value: false,
        }
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// More of the answer → what is decided by it.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.held.push_str(text);
        while self.step(&mut pieces) {}
        joined(pieces)
    }

    /// The answer has ended: what may have become a call is text.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut text = match std::mem::replace(&mut self.place, Place::Text) {
            Place::Call(call) => call.undecided(),
            Place::After => {
                self.held.clear();
                String::new()
            }
            Place::Start | Place::Text => String::new(),
        };
        text.push_str(&std::mem::take(&mut self.held));
        if text.is_empty() {
            Vec::new()
        } else {
            vec![Piece::Text(text)]
        }
    }

    /// Decides something. False if more text is needed for it.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match &mut self.place {
            Place::Start => self.start(),
            Place::Text => self.text(pieces),
            Place::Call(_) => self.call(pieces),
            Place::After => self.after(),
        }
    }

    /// Of Llama 3 and Mistral a call is the whole answer.
    fn start(&mut self) -> bool {
        if self.or_value {
            return match either::is_call(&self.held, self.family, &self.names) {
                Some(true) => self.go(Place::Call(Box::default())),
                Some(false) => self.go(Place::Text),
                None => false,
            };
        }
        let rest = self.held.trim_start();
        let marks: &[&str] = match self.family {
            Family::Hermes => &[],
            Family::Llama3 => &["<|python_tag|>", "{"],
            Family::Mistral => &["[TOOL_CALLS]", "["],
        };
        if rest.is_empty()
            || marks
                .iter()
                .any(|mark| mark.len() > rest.len() && mark.starts_with(rest))
        {
            return self.family == Family::Hermes && self.go(Place::Text);
        }
        if marks.iter().any(|mark| rest.starts_with(mark)) {
            return self.go(Place::Call(Box::default()));
        }
        self.go(Place::Text)
    }

    fn go(&mut self, place: Place) -> bool {
        self.place = place;
        true
    }

    fn text(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let marked = self.family == Family::Hermes && !self.or_value;
        if marked && let Some(at) = self.held.find(OPEN) {
            let text: String = self.held.drain(..at).collect();
            pieces.push(Piece::Text(text));
            return self.go(Place::Call(Box::default()));
        }
        // The beginning of a mark is held back.
        let ends = |n: &usize| self.held.ends_with(&OPEN[..*n]);
        let keeps = marked.then(|| (1..OPEN.len()).rev().find(ends)).flatten();
        let end = self.held.len() - keeps.unwrap_or(0);
        pieces.push(Piece::Text(self.held.drain(..end).collect()));
        false
    }

    fn call(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let Place::Call(call) = &mut self.place else {
            return false;
        };
        let whole = std::mem::take(&mut self.held);
        for (at, c) in whole.char_indices() {
            match call.push(c) {
                Said::Nothing => {}
                Said::Name(name) if self.names.contains(&name) => {
                    pieces.push(Piece::Call {
                        index: self.calls,
                        name,
                    });
                    call.decide();
                    let text = call.arguments();
                    pieces.push(Piece::Arguments {
                        index: self.calls,
                        text,
                    });
                    if call.is_over() {
                        self.held = text_after(&whole, at, c);
                        self.calls += 1;
                        return self.go(Place::After);
                    }
                }
                Said::Arguments => {
                    let text = call.arguments();
                    pieces.push(Piece::Arguments {
                        index: self.calls,
                        text,
                    });
                }
                Said::End if call.is_decided() => {
                    self.held = text_after(&whole, at, c);
                    self.calls += 1;
                    return self.go(Place::After);
                }
                Said::Name(_) | Said::End | Said::NoCall => {
                    pieces.push(Piece::Text(call.undecided()));
                    self.held = text_after(&whole, at, c);
                    return self.go(Place::Text);
                }
            }
        }
        false
    }

    /// What may come between two calls, and after the last one.
    fn after(&mut self) -> bool {
        let rest = self.held.trim_start();
        let (close, next): (&[&str], &[&str]) = match self.family {
            Family::Hermes => (&[CLOSE], &[OPEN]),
            Family::Llama3 => (&[";"], &["{", "<|python_tag|>"]),
            Family::Mistral => (&[",", "]"], &["{"]),
        };
        if rest.is_empty() {
            return false;
        }
        if let Some(mark) = close.iter().find(|mark| rest.starts_with(**mark)) {
            self.held = rest[mark.len()..].to_owned();
            return true;
        }
        if next.iter().any(|mark| rest.starts_with(mark)) {
            self.held = rest.to_owned();
            return self.go(Place::Call(Box::default()));
        }
        let begins = |mark: &&&str| mark.starts_with(rest);
        if close.iter().chain(next).any(|mark| begins(&mark)) {
            return false;
        }
        self.go(Place::Text)
    }
}

fn text_after(text: &str, at: usize, c: char) -> String {
    text[at + c.len_utf8()..].to_owned()
}

/// Without empty pieces, and with neighbours of a kind as one.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (all.last_mut(), piece) {
            (_, Piece::Text(text) | Piece::Arguments { text, .. }) if text.is_empty() => {}
            (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
            (
                Some(Piece::Arguments {
                    index: last,
                    text: before,
                }),
                Piece::Arguments { index, text },
            ) if *last == index => {
                before.push_str(&text);
            }
            (_, piece) => all.push(piece),
        }
    }
    all
}
