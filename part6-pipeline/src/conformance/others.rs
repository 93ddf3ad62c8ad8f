//! What is around the answers.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Case;
use super::client::{Client, list, text};

#[rustfmt::skip] // a table
pub(super) const CASES: &[Case] = &[
    Case { id: "models.list", what: "/v1/models lists the model", check: models },
    Case { id: "models.one", what: "/v1/models/ID is the model", check: one },
    Case { id: "server.health", what: "/health is 200 when it is ready", check: health },
    Case { id: "server.metrics", what: "/metrics is in Prometheus' format", check: metrics },
    Case { id: "server.openapi", what: "/openapi.json describes the API", check: openapi },
    Case { id: "tokens.vllm", what: "/tokenize and /detokenize as vLLM has them", check: vllm },
    Case { id: "tokens.llama_cpp", what: "and as llama.cpp has them", check: llama_cpp },
    Case { id: "tokens.info", what: "/tokenizer_info has eos_token, as lm-eval wants", check: info },
    Case { id: "tokens.template", what: "/apply-template writes the prompt of a chat", check: template },
];

fn models(client: &Client) -> Result<()> {
    let answer = client.get("/v1/models")?.answer()?;
    ensure!(text(&answer, "/object")? == "list", "another object");
    let ids = list(&answer, "/data")?.iter().map(|model| &model["id"]);
    ensure!(
        ids.into_iter().any(|id| *id == client.model),
        "not the one that answers"
    );
    ensure!(
        text(&answer, "/data/0/object")? == "model",
        "another object"
    );
    Ok(())
}

fn one(client: &Client) -> Result<()> {
    let answer = client
        .get(&format!("/v1/models/{}", client.model))?
        .answer()?;
    ensure!(text(&answer, "/id")? == client.model, "another one");
    Ok(())
}

fn health(client: &Client) -> Result<()> {
    client.get("/health")?.answer().map(drop)
}

fn metrics(client: &Client) -> Result<()> {
    let reply = client.get("/metrics")?;
    ensure!(reply.status == 200, "status {}", reply.status);
    ensure!(
        reply.kind.starts_with("text/plain"),
        "content-type {:?}",
        reply.kind
    );
    let samples = reply
        .body
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in samples {
        let value = line.rsplit(' ').next().unwrap_or_default();
        ensure!(value.parse::<f64>().is_ok(), "no number: {line}");
    }
    ensure!(reply.body.contains("# TYPE"), "no types");
    Ok(())
}

fn openapi(client: &Client) -> Result<()> {
    let answer = client.get("/openapi.json")?.answer()?;
    ensure!(
        answer["paths"]["/v1/chat/completions"]["post"].is_object(),
        "no chat in it"
    );
    Ok(())
}

const TEXT: &str = "Once upon a time, café";

fn vllm(client: &Client) -> Result<()> {
    let body = json!({"model": client.model, "prompt": TEXT, "add_special_tokens": false});
    let ids = client.post("/tokenize", &body)?.answer()?;
    let body = json!({"model": client.model, "tokens": list(&ids, "/tokens")?});
    let back = client.post("/detokenize", &body)?.answer()?;
    ensure!(text(&back, "/prompt")? == TEXT, "another text");
    Ok(())
}

fn llama_cpp(client: &Client) -> Result<()> {
    let ids = client
        .post("/tokenize", &json!({"content": TEXT}))?
        .answer()?;
    let body = json!({"tokens": list(&ids, "/tokens")?});
    let back = client.post("/detokenize", &body)?.answer()?;
    ensure!(text(&back, "/content")? == TEXT, "another text");
    Ok(())
}

fn info(client: &Client) -> Result<()> {
    let answer = client.get("/tokenizer_info")?.answer()?;
    text(&answer, "/eos_token").map(drop)
}

fn template(client: &Client) -> Result<()> {
    let body = json!({"messages": [{"role": "user", "content": "black holes"}]});
    let answer = client.post("/apply-template", &body)?.answer()?;
    let prompt = text(&answer, "/prompt").context("no prompt")?;
    ensure!(prompt.contains("black holes"), "{prompt:?}");
    Ok(())
}
