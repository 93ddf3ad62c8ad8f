//! A server whose engine is not there yet, or not any more: everybody is told, and nobody waits in vain.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod answers;
mod serving;

use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{self, Stdio, exit};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Result, bail};
use clap::Parser;
use console::cli;
use part6_pipeline::ask::Event;
use part6_pipeline::desk::Desk;
use part6_pipeline::experiment;
use part6_pipeline::flags::ServeArgs;
use part6_pipeline::generate::Generator;
use part6_pipeline::handle::{Command, Opened, State};
use part6_pipeline::kinds::CacheKind;
use part6_pipeline::model::Model;
use part6_pipeline::server::{self, App, Listening, Settings};
use part6_pipeline::thread::Running;
use serde_json::{Value, json};
use serving::{PATIENCE, Reply, Server, parse, request, with_messages};
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::tokenizer::Tokenizer;
use tokio::runtime::Builder;

/// A server in this process, over an engine whose thread does something else.
struct Hosted {
    address: SocketAddr,
    serves: JoinHandle<Result<()>>,
}

impl Hosted {
    fn start(work: impl FnOnce(&mut Desk) -> Result<()> + Send + 'static) -> Self {
        let running = Running::new(8, work).unwrap();
        let (sender, address) = mpsc::channel();
        let serves = thread::spawn(move || {
            let runtime = Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            let app = App::new(
                running.handle.clone(),
                running.live.clone(),
                Settings::default(),
            );
            let listening = runtime.block_on(Listening::bind(([127, 0, 0, 1], 0).into(), app))?;
            sender.send(listening.address()?)?;
            let served = runtime.block_on(server::serve(listening, std::future::pending()));
            drop(runtime);
            served.and(running.end())
        });
        Self {
            address: address.recv().unwrap(),
            serves,
        }
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if method == "GET" {
            String::new()
        } else {
            body.to_string()
        };
        let bytes = request(self.address, method, path, "", body.as_bytes());
        stream.write_all(&bytes).unwrap();
        stream
    }

    fn get(&self, path: &str) -> Reply {
        reply(self.send("GET", path, &Value::Null))
    }
}

fn reply(mut stream: TcpStream) -> Reply {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    parse(&text).unwrap_or_else(|| panic!("no response: {text:?}"))
}

fn opened() -> Result<Opened> {
    let checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None)?)?;
    let tokenizer = Tokenizer::open(&checkpoint)?;
    Ok(Opened::new("tiny".to_owned(), checkpoint.config, tokenizer))
}

#[test]
fn while_the_model_is_loaded_clients_are_told_to_come_again() {
    let (go, gone) = mpsc::channel::<()>();
    let server = Hosted::start(move |desk| {
        let _ = gone.recv();
        desk.open(opened()?);
        Ok(())
    });
    let chat = with_messages(json!({"max_tokens": 1}));
    for reply in [
        server.get("/health"),
        server.get("/v1/models"),
        reply(server.send("POST", "/v1/chat/completions", &chat)),
        reply(server.send("POST", "/v1/completions", &json!({"prompt": "a"}))),
        reply(server.send("POST", "/tokenize", &json!({"content": "a"}))),
    ] {
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (503, Some("1")),
            "{reply:?}"
        );
        assert!(
            reply.error()["message"]
                .as_str()
                .unwrap()
                .contains("loaded")
        );
    }
    assert_eq!(server.get("/metrics").status, 200);
    go.send(()).unwrap();
    server.serves.join().unwrap().unwrap();
}

#[test]
fn a_panic_of_the_engine_reaches_every_client_and_ends_the_server_with_an_error() {
    let server = Hosted::start(|desk| {
        desk.open(opened()?);
        desk.say(State::Ready);
        for _ in 0..3 {
            let Some(Command::Submit(client)) = desk.wait() else {
                continue;
            };
            desk.welcome(client.id, client.events, client.place);
        }
        panic!("on purpose");
    });
    let health = loop {
        let reply = server.get("/health");
        if reply.status == 200 {
            break reply;
        }
    };
    assert_eq!(health.status, 200);
    let whole = with_messages(json!({"max_tokens": 5}));
    let streamed = with_messages(json!({"max_tokens": 5, "stream": true}));
    let completion = json!({"prompt": "a", "max_tokens": 5});
    let waiting = [
        server.send("POST", "/v1/chat/completions", &whole),
        server.send("POST", "/v1/chat/completions", &streamed),
        server.send("POST", "/v1/completions", &completion),
    ];
    for stream in waiting {
        let reply = reply(stream);
        if reply.status == 200 {
            let last = reply.events().pop().unwrap();
            let error: Value = serde_json::from_str(&last).unwrap();
            assert!(
                error["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("on purpose"),
                "{reply:?}"
            );
        } else {
            assert_eq!(
                (reply.status, reply.header("x-should-retry")),
                (500, Some("false"))
            );
            assert!(
                reply.error()["message"]
                    .as_str()
                    .unwrap()
                    .contains("on purpose")
            );
        }
    }
    let why = server.serves.join().unwrap().unwrap_err().to_string();
    assert_eq!(why, "the engine failed: a panic: on purpose");
}

/// Set in the process that [`a_panic_of_the_engine_ends_the_whole_process`] starts.
const DOOMED: &str = "DOOMED_SERVER";

/// The flags of `serve`, by themselves.
#[derive(Debug, Parser)]
struct Doomed {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Begins an answer for each of three clients, and panics.
fn doomed_engine(desk: &mut Desk) -> Result<()> {
    let checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None)?)?;
    let model = Model::load(&checkpoint)?;
    let limits = answers::wide();
    let generator = Generator::new(&model, &checkpoint.config, CacheKind::Prealloc, limits)?;
    desk.open(opened()?);
    desk.say(State::Ready);
    for _ in 0..3 {
        let Some(Command::Submit(client)) = desk.wait() else {
            bail!("nobody has come")
        };
        let id = client.id;
        desk.welcome(id, client.events, client.place);
        let (cached, missed) = (0, None);
        desk.tell(id, Event::Started { cached, missed });
        let (choice, text, tokens) = (0, "Once".to_owned(), Vec::new());
        desk.tell(
            id,
            Event::Delta {
                choice,
                text,
                tokens,
            },
        );
        desk.publish(&generator);
    }
    panic!("on purpose")
}

/// What `main` does with `serve`, but for the engine.
#[test]
#[ignore = "the process of the test below"]
fn a_server_whose_engine_panics() {
    if env::var_os(DOOMED).is_none() {
        return;
    }
    let args = ["doomed", "--port", "0"].map(OsString::from);
    let code = cli::run_with(args, |args: Doomed| {
        experiment::serve_with(&args.serve, || Running::new(8, doomed_engine))
    });
    exit(code.into());
}

#[test]
fn a_panic_of_the_engine_ends_the_whole_process() {
    let mut command = process::Command::new(env::current_exe().unwrap());
    let inner = "a_server_whose_engine_panics";
    command.args(["--ignored", "--exact", inner, "--nocapture"]);
    command.env(DOOMED, "1").stdout(Stdio::null());
    let mut server = Server::of(command);
    server.wait_for("is ready");
    let chat = |stream: bool| with_messages(json!({"max_tokens": 5, "stream": stream}));
    let path = "/v1/chat/completions";
    let mut streamed = server.begin(path, &chat(true));
    let waiting = [
        (path, chat(false)),
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 5})),
    ];
    let waiting = waiting.map(|(path, body)| {
        let mut stream = server.connect();
        let bytes = request(
            server.address,
            "POST",
            path,
            "",
            body.to_string().as_bytes(),
        );
        stream.write_all(&bytes).unwrap();
        stream
    });
    // What has begun ends with the error as its last event.
    let mut rest = String::new();
    streamed.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("Once") && rest.contains("\"error\"") && rest.contains("on purpose"),
        "{rest}"
    );
    assert!(!rest.contains("[DONE]"), "{rest}");
    for stream in waiting {
        let reply = reply(stream);
        assert_eq!(
            (reply.status, reply.header("x-should-retry")),
            (500, Some("false")),
            "{reply:?}"
        );
        let message = reply.error()["message"].clone();
        assert!(
            message.as_str().unwrap().contains("on purpose"),
            "{message}"
        );
    }
    // Whoever comes now is sent away, if anybody is there at all.
    if let Ok(mut late) = TcpStream::connect(server.address) {
        let _ = late.write_all(&request(server.address, "GET", "/health", "", b""));
        let mut text = String::new();
        let _ = late.read_to_string(&mut text);
        let reply = parse(&text);
        assert!(reply.is_none_or(|reply| reply.status >= 500), "{text}");
    }
    assert_eq!(server.exit().code(), Some(1));
    server.wait_for("error: the engine failed: a panic: on purpose");
    assert!(TcpStream::connect(server.address).is_err());
}
