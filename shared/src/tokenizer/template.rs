//! Chat templates: a conversation → the text that the model was trained on.
//!
//! Templates come with the checkpoint and are written for Python's Jinja2 as `transformers` sets it
//! up. This sets up minijinja the same way: block trimming, Python's string methods, `tojson` as
//! `json.dumps` writes, `raise_exception`, `strftime_now`, loop controls.

mod methods;
mod percent;
mod source;
mod stored;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::parse_strftime_owned;

use super::python_json::to_json;
use crate::watch::{self, Limits};
use source::{STORED, prepared};
use stored::stored;

/// What a template may spend: about one unit an instruction or 64 bytes of text, so 64 MB at most.
/// A conversation of a thousand turns takes a tenth of it.
///
/// A template is a program that somebody else wrote; without a limit a downloaded checkpoint could
/// keep us busy for ever.
const FUEL: u64 = 1_000_000;

/// What fuel does not see: a single operation on lists that share their items is paid for when it is
/// done, and the string methods of Python are not paid for at all.
///
/// What these limits do not end: to compare or to hash two such lists (`a == b`, `a in c`, `{a: 1}`)
/// allocates nothing, so the caller gets its error in time, but the thread keeps a core until the process
/// ends. A server must not render a template again that has gone beyond its time.
const LIMITS: Limits = Limits {
    memory: 512_000_000,
    time: Duration::from_secs(5),
};

/// A template with the values it may refer to.
#[derive(Debug, Clone)]
pub(crate) struct ChatTemplate {
    source: String,
    /// `bos_token`, `eos_token`, …: those that the tokenizer has.
    special_tokens: BTreeMap<String, String>,
    /// None: the time of day. A fixed one keeps tests (and prefix caches) stable.
    clock: Option<OffsetDateTime>,
    limits: Limits,
}

/// What a template sees, by the names that `transformers` gives.
#[derive(Serialize)]
struct Context<'a, M> {
    messages: &'a [M],
    add_generation_prompt: bool,
    // Defined and none where there are none, as transformers passes them: templates test `tools is not none`.
    tools: Option<&'a [Json]>,
    documents: (),
    #[serde(flatten)]
    special_tokens: &'a BTreeMap<String, String>,
}

impl ChatTemplate {
    pub(crate) fn new(source: &str, special_tokens: BTreeMap<String, String>) -> Self {
        Self {
            source: source.to_owned(),
            special_tokens,
            clock: None,
            limits: LIMITS,
        }
    }

    pub(crate) fn freeze_clock(&mut self, at: OffsetDateTime) {
        self.clock = Some(at);
    }

    /// The template's text.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Does the template's text mention this token?
    pub(crate) fn mentions(&self, token: &str) -> bool {
        self.source.contains(token)
    }

    /// The conversation as text, up to where the model's answer begins.
    pub(crate) fn render(&self, messages: &[impl Serialize], tools: &[Json]) -> Result<String> {
        let context = Context {
            messages,
            add_generation_prompt: true,
            tools: Some(tools).filter(|tools| !tools.is_empty()),
            documents: (),
            special_tokens: &self.special_tokens,
        };
        let source = prepared(&self.source);
        let source = source.map_err(|error| anyhow!("the chat template: {error}{WITHOUT}"))?;
        let context = Value::from(Serde(context));
        let clock = self.clock;
        let render = move || render(&source, clock, context);
        let text = watch::run("the chat template", WITHOUT, self.limits, render)?;
        text.map_err(explain)
    }
}

/// What to try next, whatever is wrong with a template.
const WITHOUT: &str = " (--raw does without the template)";

fn render(source: &str, clock: Option<OffsetDateTime>, context: Value) -> Result<String, Error> {
    let environment = environment(clock)?;
    environment.template_from_str(source)?.render(context)
}

/// Jinja as `transformers` configures it.
fn environment(clock: Option<OffsetDateTime>) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false);
    environment.set_unknown_method_callback(methods::unknown_method);
    environment.add_filter("tojson", to_json);
    environment.add_function(STORED, |value: Value| stored(&value));
    // It prints all there is; Jinja2 has it only as an extension.
    environment.remove_global("debug");
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
        },
    );
    environment.add_function("strftime_now", move |format: String| {
        strftime(clock, &format)
    });
    Ok(environment)
}

/// What the template said with `raise_exception`: its author's message to the user.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// One line: what the template said, or where it failed.
fn explain(error: Error) -> anyhow::Error {
    let raised = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
        .find_map(|e| e.downcast_ref::<Raised>());
    let what = match raised {
        Some(message) => format!("the chat template refuses this conversation: {message}"),
        None => {
            let line = error
                .line()
                .map(|line| format!(" in line {line}"))
                .unwrap_or_default();
            let detail = error
                .detail()
                .map(|detail| format!(": {detail}"))
                .unwrap_or_default();
            format!("the chat template fails{line}: {}{detail}", error.kind())
        }
    };
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    anyhow!("{what}{WITHOUT}")
}

/// `strftime_now("%d %b %Y")`: today, for templates that tell the model the date.
fn strftime(clock: Option<OffsetDateTime>, format: &str) -> Result<String, Error> {
    // The local time zone can be unknown (containers); a date in UTC is better than none.
    let now = clock
        .or_else(|| OffsetDateTime::now_local().ok())
        .unwrap_or_else(OffsetDateTime::now_utc);
    let refused = |error: String| {
        let text = format!("strftime_now({format:?}): {error}");
        Error::new(ErrorKind::InvalidOperation, text)
    };
    let description = parse_strftime_owned(format).map_err(|e| refused(e.to_string()))?;
    now.format(&description).map_err(|e| refused(e.to_string()))
}

/// The template in `tokenizer_config.json` or `chat_template.json`: a string, or a list of named
/// ones, of which "default" is for plain conversation.
pub(crate) fn template_of(chat_template: &Json) -> Result<Option<String>> {
    match chat_template {
        Json::Null => Ok(None),
        Json::String(source) => Ok(Some(source.clone())),
        Json::Array(named) => default_template(named).map(Some),
        _ => bail!("\"chat_template\" is neither a text nor a list of named templates"),
    }
}

fn default_template(named: &[Json]) -> Result<String> {
    let default = named.iter().find(|template| template["name"] == "default");
    if let Some(source) = default.and_then(|template| template["template"].as_str()) {
        return Ok(source.to_owned());
    }
    let names: Vec<&str> = named
        .iter()
        .filter_map(|template| template["name"].as_str())
        .collect();
    bail!(
        "\"chat_template\" names no template \"default\", only: {}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests;
