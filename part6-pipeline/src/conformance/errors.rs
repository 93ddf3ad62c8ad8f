//! Requests that cannot be answered.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Case;
use super::client::Client;

#[rustfmt::skip] // a table
pub(super) const CASES: &[Case] = &[
    Case { id: "error.json", what: "half of a JSON is a 400 in OpenAI's shape", check: half },
    Case { id: "error.object", what: "so is a list in place of an object", check: no_object },
    Case { id: "error.utf8", what: "so is what is no UTF-8", check: utf8 },
    Case { id: "error.deep", what: "so is JSON that is nested 10,000 deep", check: deep },
    Case { id: "error.messages", what: "so is a chat without messages, and with none", check: no_messages },
    Case { id: "error.role", what: "so is a role that does not exist", check: role },
    Case { id: "error.image", what: "so is a picture for a model that reads text", check: image },
    Case { id: "error.temperature", what: "so is a temperature below 0, above 2 or in words", check: temperature },
    Case { id: "error.numbers", what: "so are negative lengths and no answers", check: numbers },
    Case { id: "error.stop", what: "so is a stop text that is none", check: stop },
    Case { id: "error.format", what: "so is a response_format that does not exist", check: format },
    Case { id: "error.param", what: "the error names the field", check: param },
    Case { id: "error.model", what: "another model is a 404", check: model },
    Case { id: "error.context", what: "a prompt longer than the context is a 400", check: context },
    Case { id: "error.path", what: "an unknown path is a 404 in OpenAI's shape", check: path },
    Case { id: "error.method", what: "another method is a 405", check: method },
    Case { id: "error.alive", what: "after all that it still answers", check: alive },
];

/// Each of these fields alone must be refused.
fn refused(client: &Client, all: &[Value]) -> Result<()> {
    all.iter().try_for_each(|fields| {
        let mut fields = fields.clone();
        if let Some(object) = fields.as_object_mut() {
            object.entry("max_tokens").or_insert(json!(1));
        }
        let told = fields.to_string();
        let reply = client.chat(fields)?;
        ensure!(reply.status != 200, "{told} is answered");
        reply.refused(400).map(drop)
    })
}

fn bytes(client: &Client, body: &[u8]) -> Result<()> {
    let reply = client.post_bytes("/v1/chat/completions", body.to_vec())?;
    reply.refused(400).map(drop)
}

fn half(client: &Client) -> Result<()> {
    bytes(client, b"{\"messages\": [")
}

fn no_object(client: &Client) -> Result<()> {
    bytes(client, b"[1, 2]")
}

fn utf8(client: &Client) -> Result<()> {
    let start = format!(
        "{{\"model\": {}, \"max_tokens\": 1, \"messages\": ",
        json!(client.model)
    );
    let said = b"[{\"role\": \"user\", \"content\": \"\xff\xfe\"}]}";
    bytes(client, &[start.as_bytes(), said].concat())
}

fn deep(client: &Client) -> Result<()> {
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    bytes(client, format!("{{\"messages\": {nested}}}").as_bytes())
}

fn no_messages(client: &Client) -> Result<()> {
    let none = json!({"model": client.model}).to_string();
    bytes(client, none.as_bytes())?;
    refused(
        client,
        &[json!({"messages": []}), json!({"messages": "hi"})],
    )
}

fn role(client: &Client) -> Result<()> {
    refused(
        client,
        &[json!({"messages": [{"role": "robot", "content": "hi"}]})],
    )
}

fn image(client: &Client) -> Result<()> {
    let picture =
        json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]);
    refused(
        client,
        &[json!({"messages": [{"role": "user", "content": picture}]})],
    )
}

fn temperature(client: &Client) -> Result<()> {
    refused(
        client,
        &[
            json!({"temperature": -1}),
            json!({"temperature": 3}),
            json!({"temperature": "hot"}),
        ],
    )
}

fn numbers(client: &Client) -> Result<()> {
    refused(
        client,
        &[
            json!({"max_tokens": -1}),
            json!({"n": 0}),
            json!({"n": -1}),
            json!({"top_p": 2}),
        ],
    )
}

fn stop(client: &Client) -> Result<()> {
    refused(client, &[json!({"stop": 5}), json!({"stop": [5]})])
}

fn format(client: &Client) -> Result<()> {
    let schema = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": 123}});
    refused(
        client,
        &[
            json!({"response_format": {"type": "sound"}}),
            json!({"response_format": schema}),
        ],
    )
}

fn param(client: &Client) -> Result<()> {
    let error = client.chat(json!({"temperature": -1}))?.refused(400)?;
    ensure!(error["param"] == "temperature", "param {}", error["param"]);
    Ok(())
}

fn model(client: &Client) -> Result<()> {
    let fields = json!({"model": "no-such-owner/no-such-model", "max_tokens": 1});
    client.chat(fields)?.refused(404).map(drop)
}

fn context(client: &Client) -> Result<()> {
    let said = json!([{"role": "user", "content": "hello ".repeat(200_000)}]);
    let fields = json!({"messages": said, "max_tokens": 1});
    client.chat(fields)?.refused(400).map(drop)
}

fn path(client: &Client) -> Result<()> {
    client.get("/v1/no/such/path")?.refused(404).map(drop)
}

fn method(client: &Client) -> Result<()> {
    client.get("/v1/chat/completions")?.refused(405).map(drop)
}

fn alive(client: &Client) -> Result<()> {
    client.chat(json!({"max_tokens": 1}))?.answer().map(drop)
}
