//! What a server is told, and what it means.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use console::cli::ModelArgs;
use serde::{Deserialize, Serialize};
use shared::machine::versions;
use tracing::level_filters::LevelFilter;

use crate::kinds::CacheKind;
use crate::limits::{Limits, Memory, Policy};
use crate::quantized_cache::KvBits;
use crate::replay::{Facts, Recorder};
use crate::server::{Key, Settings};
use crate::speculate::{Speculation, Way};
use crate::thread;

/// Serves a model.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Who runs in a step, and with how much.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Engine")]
pub struct LimitArgs {
    /// Answers that are made at the same time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub rows: usize,

    /// Requests that may wait for a row; whoever comes then is sent away with 429
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub queue: usize,

    /// Tokens of one step, answers and pieces of prompts together
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub tokens_per_step: usize,

    /// Tokens of one prompt in one step
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub piece: usize,

    /// Steps of which one takes pieces of prompts along while answers are decoded
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub decodes_per_piece: usize,

    /// Positions whose keys and values may be in memory, of all rows
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub kv_tokens: usize,

    /// What a row is promised of them: `preempt`: what it needs now, `reserve`: what it may ever need
    #[arg(long, value_name = "MEMORY", default_value = "preempt", value_enum)]
    #[arg(hide_possible_values = true)]
    pub memory: MemoryName,

    /// Keys and values in 8 bits
    #[arg(long)]
    pub kv_8bit: bool,

    /// MB for keys and values of earlier prompts, for later ones that begin in the same way; 0 keeps none
    #[arg(long, value_name = "MB", default_value_t = 256)]
    pub prefix_mb: u64,

    /// How the next tokens are guessed. That changes no token, so a record does not have it.
    #[command(flatten)]
    #[serde(skip)]
    pub guesses: GuessArgs,
}

/// How the next tokens are guessed.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Guesses")]
pub struct GuessArgs {
    /// Guess what comes next by what followed earlier, in the prompt or in the answer
    #[arg(long, group = "guesser")]
    pub lookup: bool,

    /// Guess what comes next with a smaller model of the same vocabulary, such as `tiny-draft`
    #[arg(long, value_name = "MODEL", group = "guesser")]
    pub draft: Option<String>,

    /// Tokens that are guessed at once, at most [default: 5]
    #[arg(long, value_name = "N", requires = "guesser")]
    pub guess: Option<usize>,

    /// Guess also where that takes longer than it saves
    #[arg(long, requires = "guesser")]
    pub always_guess: bool,
}

impl GuessArgs {
    /// What an engine for this model does.
    pub fn speculation(&self, model: &ModelArgs) -> Speculation {
        let way = match &self.draft {
            Some(draft) => Way::Draft(ModelArgs {
                model: draft.clone(),
                revision: None,
                dtype: model.dtype,
            }),
            None if self.lookup => Way::Lookup,
            None => Way::Off,
        };
        let usual = Speculation::default();
        Speculation {
            way,
            most: self.guess.unwrap_or(usual.most),
            always: self.always_guess,
        }
    }
}

/// As in [`Memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryName {
    /// [`Memory::Reserve`]
    Reserve,
    /// [`Memory::Preempt`]
    Preempt,
}

/// Who may ask, and how much.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
struct ServerArgs {
    /// Address to listen on; 0.0.0.0 is for all of this machine's
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port to listen on; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,

    /// What clients must send as `Authorization: Bearer KEY`; other users of this machine can read flags, so better
    /// in the environment
    #[arg(
        long,
        value_name = "KEY",
        env = "PIPELINE_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,

    /// A name of the model in requests and answers, beside its own; may be given several times
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,

    /// A name by which this machine is called, beside localhost and its addresses
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,

    /// Origin of pages that may ask from a browser, `https://example.org`, or `*` for all
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,

    /// Connections at a time; later ones wait
    #[arg(long, value_name = "N", default_value_t = 512)]
    connections: usize,

    /// Megabytes of a request's body
    #[arg(long, value_name = "MB", default_value_t = 4)]
    max_body: usize,

    /// Answers to one prompt, `n`
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_n: usize,

    /// Randomness of requests that name none
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f32,

    /// Seconds that answers get to be completed when the server is told to end
    #[arg(long, value_name = "S", default_value_t = 60)]
    grace: u64,

    /// Seconds that a client has to send headers, and to take what is sent
    #[arg(long, value_name = "S", default_value_t = 30)]
    patience: u64,

    /// Writes each answer with all that it depends on to a file, for `replay`. It has what clients have said
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Megabytes that such files may have, the latest answers in them
    #[arg(long, value_name = "MB", default_value_t = 100)]
    record_mb: u64,

    /// Folder for what is kept of prompts from one run to the next. It has what clients have said
    #[arg(long, value_name = "FOLDER")]
    prefix_folder: Option<PathBuf>,

    /// What is told on stderr: error, warn, info (each request) or debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LevelFilter,
}

/// Where a prompt may be cut. A prefix that is found in a cache ends at such a border.
const BLOCK: usize = 16;

impl LimitArgs {
    /// What an engine for this model is made of.
    pub fn engine(&self, model: &ModelArgs) -> thread::Settings {
        thread::Settings {
            model: model.clone(),
            limits: self.limits(),
            kind: self.kind(),
            prefix_bytes: self.prefix_mb.saturating_mul(1_000_000),
            prefix_folder: None,
            most_waiting: self.queue,
            speculation: self.guesses.speculation(model),
        }
    }

    /// As the scheduler takes them.
    pub fn limits(&self) -> Limits {
        Limits {
            rows: self.rows,
            tokens_per_step: self.tokens_per_step,
            piece: self.piece,
            block: BLOCK.min(self.piece),
            kv_tokens: self.kv_tokens,
            policy: Policy::Continuous,
            memory: match self.memory {
                MemoryName::Reserve => Memory::Reserve,
                MemoryName::Preempt => Memory::Preempt,
            },
            decodes_per_piece: self.decodes_per_piece,
        }
    }

    /// How keys and values are stored.
    pub fn kind(&self) -> CacheKind {
        if self.kv_8bit {
            CacheKind::Quantized(KvBits { keys: 8, values: 8 })
        } else {
            CacheKind::Prealloc
        }
    }
}

impl ServeArgs {
    /// What the engine is made of.
    pub fn engine(&self) -> thread::Settings {
        thread::Settings {
            prefix_folder: self.server.prefix_folder.clone(),
            ..self.limits.engine(&self.model)
        }
    }

    /// Who writes down what is answered, if anybody does.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn recorder(&self) -> Result<Option<Recorder>> {
        let Some(path) = &self.server.record else {
            return Ok(None);
        };
        ensure!(
            self.server.record_mb > 0,
            "with --record-mb 0 no answer could be recorded"
        );
        let facts = Facts::new(&self.model, &self.limits, versions()?);
        let bytes = self.server.record_mb.saturating_mul(1_000_000);
        Recorder::new(path, bytes, facts).map(Some)
    }

    /// What the server allows.
    ///
    /// # Errors
    /// If it would allow nobody anything.
    pub fn settings(&self) -> Result<Settings> {
        let server = &self.server;
        ensure!(
            server.connections > 0,
            "with --connections 0 nobody could ask anything"
        );
        ensure!(
            server.max_body > 0,
            "with --max-body 0 no request could be read"
        );
        ensure!(server.max_n > 0, "with --max-n 0 there would be no answers");
        ensure!(
            server.patience > 0,
            "with --patience 0 no client would be fast enough"
        );
        ensure!(
            (0.0..=2.0).contains(&server.temperature),
            "--temperature must be from 0 to 2, as in requests"
        );
        let key = server.api_key.as_deref();
        ensure!(
            key.is_none_or(|key| !key.trim().is_empty()),
            "the API key is empty: leave it out if clients need none"
        );
        let patience = Duration::from_secs(server.patience);
        Ok(Settings {
            aliases: server.alias.clone(),
            key: key.map(Key::new),
            hosts: server.allow_host.clone(),
            origins: server.cors.clone(),
            connections: server.connections,
            body: server.max_body.saturating_mul(1_000_000),
            most_answers: server.max_n,
            temperature: server.temperature,
            header_time: patience,
            write_time: patience,
            grace: Duration::from_secs(server.grace),
            ..Settings::default()
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.server.host, self.server.port)
    }

    /// Whether other machines can ask, and need no key.
    pub fn is_open(&self) -> bool {
        !self.server.host.is_loopback() && self.server.api_key.is_none()
    }

    /// What is told on stderr.
    pub fn log(&self) -> LevelFilter {
        self.server.log
    }
}
