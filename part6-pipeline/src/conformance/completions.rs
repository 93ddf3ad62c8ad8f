//! Texts that are gone on with.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Case;
use super::client::{Client, list, number, text};

#[rustfmt::skip] // a table
pub(super) const CASES: &[Case] = &[
    Case { id: "completion.answer", what: "a text is gone on with", check: answer },
    Case { id: "completion.default", what: "without max_tokens it has at most 16 tokens", check: default },
    Case { id: "completion.list", what: "a list of texts has an answer to each, in order", check: texts },
    Case { id: "completion.ids", what: "a list of ids is the same as its text", check: ids },
    Case { id: "completion.lists", what: "so is a list of lists", check: lists },
    Case { id: "completion.echo", what: "echo begins with the prompt", check: echo },
    Case { id: "completion.echo_logprobs", what: "and has the prompt's log-probabilities, but the first", check: echo_logprobs },
    Case { id: "completion.logprobs", what: "log-probabilities are four lists of one length", check: logprobs },
    Case { id: "completion.offsets", what: "text_offset is where each token begins", check: offsets },
    Case { id: "completion.likelihood", what: "a likely text is likelier than an unlikely one", check: likelihood },
];

fn ask(client: &Client, mut fields: Value) -> Result<Value> {
    if let Some(object) = fields.as_object_mut() {
        object.entry("max_tokens").or_insert(json!(6));
        object.entry("temperature").or_insert(json!(0));
    }
    client.complete(fields)?.answer()
}

fn answer(client: &Client) -> Result<()> {
    let answer = ask(client, json!({}))?;
    ensure!(
        text(&answer, "/object")? == "text_completion",
        "another object"
    );
    ensure!(!text(&answer, "/choices/0/text")?.is_empty(), "no text");
    text(&answer, "/choices/0/finish_reason").map(drop)
}

fn default(client: &Client) -> Result<()> {
    let answer = client.complete(json!({"temperature": 0}))?.answer()?;
    let tokens = number(&answer, "/usage/completion_tokens")?;
    ensure!(tokens <= 16, "{tokens} tokens");
    Ok(())
}

const TWO: [&str; 2] = ["Once upon a time", "The cat"];

/// Each prompt for itself, and both together.
fn together(client: &Client, prompts: [Value; 2]) -> Result<()> {
    let both = ask(client, json!({"prompt": prompts}))?;
    ensure!(list(&both, "/choices")?.len() == 2, "not two answers");
    for (index, alone) in TWO.iter().enumerate() {
        let alone = ask(client, json!({"prompt": alone}))?;
        let choices = list(&both, "/choices")?;
        let choice = choices.iter().find(|choice| choice["index"] == index);
        let choice = choice.with_context(|| format!("no answer {index}"))?;
        ensure!(
            text(choice, "/text")? == text(&alone, "/choices/0/text")?,
            "another answer {index}"
        );
    }
    Ok(())
}

fn texts(client: &Client) -> Result<()> {
    together(client, TWO.map(Value::from))
}

fn encode(client: &Client, text: &str) -> Result<Value> {
    let body = json!({"model": client.model, "prompt": text, "content": text});
    let answer = client.post("/tokenize", &body)?.answer()?;
    list(&answer, "/tokens").cloned().map(Value::from)
}

fn ids(client: &Client) -> Result<()> {
    let ids = encode(client, TWO[0])?;
    let one = ask(client, json!({"prompt": ids}))?;
    let other = ask(client, json!({"prompt": TWO[0]}))?;
    ensure!(
        text(&one, "/choices/0/text")? == text(&other, "/choices/0/text")?,
        "another answer"
    );
    Ok(())
}

fn lists(client: &Client) -> Result<()> {
    together(client, [encode(client, TWO[0])?, encode(client, TWO[1])?])
}

fn echo(client: &Client) -> Result<()> {
    let plain = ask(client, json!({}))?;
    let echoed = ask(client, json!({"echo": true}))?;
    let expected = format!("{}{}", TWO[0], text(&plain, "/choices/0/text")?);
    let got = text(&echoed, "/choices/0/text")?;
    ensure!(got == expected, "{got:?}");
    Ok(())
}

fn echoed(client: &Client, prompt: &str) -> Result<Vec<f64>> {
    let fields = json!({"prompt": prompt, "echo": true, "logprobs": 1, "max_tokens": 1});
    let answer = ask(client, fields)?;
    let all = list(&answer, "/choices/0/logprobs/token_logprobs")?;
    let (first, others) = all.split_first().context("an empty list")?;
    ensure!(
        first.is_null(),
        "the first token has {first}, and nothing before it"
    );
    let prompt_tokens = number(&answer, "/usage/prompt_tokens")? as usize;
    ensure!(
        all.len() == prompt_tokens + 1,
        "{} entries for {prompt_tokens} tokens and one",
        all.len()
    );
    let numbers: Option<Vec<f64>> = others.iter().map(Value::as_f64).collect();
    let mut numbers = numbers.context("a token without a log-probability")?;
    ensure!(numbers.iter().all(|p| *p <= 0.0), "a probability above 1");
    numbers.pop(); // the answer's
    Ok(numbers)
}

fn echo_logprobs(client: &Client) -> Result<()> {
    echoed(client, TWO[0]).map(drop)
}

fn logprobs(client: &Client) -> Result<()> {
    let answer = ask(client, json!({"logprobs": 2}))?;
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let length = list(&answer, &format!("/choices/0/logprobs/{name}"))?.len();
        ensure!(length == 6, "{length} {name} for 6 tokens");
    }
    for (index, own) in list(&answer, "/choices/0/logprobs/token_logprobs")?
        .iter()
        .enumerate()
    {
        let top = &answer["choices"][0]["logprobs"]["top_logprobs"][index];
        let top = top.as_object().context("top_logprobs is no list of maps")?;
        let best = top
            .values()
            .filter_map(Value::as_f64)
            .fold(f64::MIN, f64::max);
        ensure!(
            own.as_f64() == Some(best),
            "the greedy token is not the likeliest one"
        );
    }
    Ok(())
}

fn offsets(client: &Client) -> Result<()> {
    let answer = ask(client, json!({"logprobs": 1, "echo": true}))?;
    let whole: Vec<char> = text(&answer, "/choices/0/text")?.chars().collect();
    let tokens = list(&answer, "/choices/0/logprobs/tokens")?;
    let offsets = list(&answer, "/choices/0/logprobs/text_offset")?;
    for (token, offset) in tokens.iter().zip(offsets) {
        let token: Vec<char> = token.as_str().unwrap_or_default().chars().collect();
        let at = offset.as_u64().context("an offset that is no number")? as usize;
        ensure!(
            whole.get(at..).is_some_and(|rest| rest.starts_with(&token)),
            "another text at {at}"
        );
    }
    Ok(())
}

fn likelihood(client: &Client) -> Result<()> {
    let likely: f64 = echoed(client, "Once upon a time")?.iter().sum();
    let unlikely: f64 = echoed(client, "Once time a upon")?.iter().sum();
    ensure!(likely > unlikely, "{likely} and {unlikely}");
    Ok(())
}
