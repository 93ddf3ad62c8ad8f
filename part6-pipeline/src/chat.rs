//! A conversation in the terminal, with the engine on a thread of this process.

mod command;
mod conversation;
mod editor;
mod turn;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, process};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use console::cli::{ModelArgs, SamplingArgs};
use console::interrupt::Interrupt;
use console::report::{TextStream, status, stdout_closed, tell, warn};
use shared::machine::versions;
use shared::sampling::Sampling;
use tempfile::NamedTempFile;
use tokio::runtime::Builder;

use crate::ask::Ask;
use crate::engine::Engine;
use crate::flags::LimitArgs;
use crate::handle::{Opened, State};
use crate::replay::Facts;
use crate::thread::Running;
use command::{Command, HELP};
use conversation::Conversation;
use editor::{Editor, Line};
use turn::Turn;

/// Talks with a model; this is what happens without a subcommand, too.
#[derive(Debug, Clone, Args)]
pub struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,

    /// What the model is told before the conversation
    #[arg(long, help_heading = "Chat", value_name = "TEXT")]
    system: Option<String>,

    /// Tokens of an answer at most
    #[arg(long, help_heading = "Chat", value_name = "N", default_value_t = 1024)]
    max_tokens: usize,

    /// Go on where the model would end its answer
    #[arg(long, help_heading = "Chat")]
    ignore_eos: bool,

    /// Where conversations and the lines that were typed are kept [default: a folder of this user's data]
    #[arg(long, help_heading = "Chat", value_name = "DIR")]
    chats: Option<PathBuf>,

    #[command(flatten)]
    limits: LimitArgs,
}

/// Talks until the end of input.
///
/// # Errors
/// If there is no model, or if nothing can be read or written.
pub fn run(args: &ChatArgs) -> Result<()> {
    ensure!(args.max_tokens > 0, "--max-tokens must be at least 1");
    let folder = folder(args)?;
    let mut editor = Editor::new(&folder.join("lines"))?;
    let mut chat = Chat::begin(args, &folder)?;
    chat.greet();
    loop {
        match editor.read()? {
            Line::Text(line) => match chat.follow(&line) {
                Ok(true) => {}
                Ok(false) => break,
                // A mistake in one line does not end the conversation; an engine that has failed does, and a reader who
                // has gone.
                Err(error) if chat.is_alive() && !stdout_closed(&error) => {
                    console::report::error(&error);
                }
                Err(error) => return Err(error),
            },
            Line::Interrupted => tell("Ctrl-D or /quit ends the chat"),
            Line::End => break,
        }
    }
    chat.engine.end()
}

fn folder(args: &ChatArgs) -> Result<PathBuf> {
    let folder = match &args.chats {
        Some(folder) => folder.clone(),
        None => dirs::data_dir()
            .context("there is no folder for a user's data: name one with --chats")?
            .join("llm-inference-mlx")
            .join("chats"),
    };
    std::fs::create_dir_all(&folder).with_context(|| {
        format!(
            "making {}: name another folder with --chats",
            folder.display()
        )
    })?;
    Ok(folder)
}

/// A conversation that goes on.
#[derive(Debug)]
struct Chat<'a> {
    args: &'a ChatArgs,
    folder: &'a Path,
    engine: Running,
    conversation: Conversation,
    last: Option<(Ask, Turn)>,
    model: ModelArgs,
    /// Answers so far: each draws with another seed.
    answers: u64,
}

impl<'a> Chat<'a> {
    fn begin(args: &'a ChatArgs, folder: &'a Path) -> Result<Self> {
        Ok(Self {
            args,
            folder,
            engine: open(&args.limits, &args.model)?,
            conversation: Conversation::new(folder, args.system.clone()),
            last: None,
            model: args.model.clone(),
            answers: 0,
        })
    }

    fn greet(&self) {
        let opened = self.engine.handle.opened();
        let name = opened.map_or("the model", |opened| &opened.name);
        tell(&format!(
            "{name} is ready. /help says what there is, Ctrl-D ends."
        ));
        if !opened.is_some_and(|opened| opened.tokenizer.has_chat_template()) {
            warn(
                "this model has no chat template: it goes on with what you write, and does not answer",
            );
        }
    }

    fn is_alive(&self) -> bool {
        self.engine.handle.status().state == State::Ready
    }

    /// Does what a line says. Returns whether there is more to come.
    fn follow(&mut self, line: &str) -> Result<bool> {
        match Command::read(line)? {
            Command::Nothing => {}
            Command::Say(text) => {
                self.conversation.say("user", text);
                self.conversation.keep()?;
                self.answer()?;
            }
            Command::System(text) => self.system(text)?,
            Command::New => {
                let system = self.conversation.system().map(str::to_owned);
                self.conversation = Conversation::new(self.folder, system);
            }
            Command::Save(name) => {
                let path = self.conversation.save(self.folder, &name)?;
                tell(&format!("saved as {}", path.display()));
            }
            Command::Load(name) => self.load(name.as_deref())?,
            Command::Retry => self.retry()?,
            Command::Stats => self.stats()?,
            Command::Explain(token) => self.explain(token)?,
            Command::Model(name) => self.change_model(name)?,
            Command::Help => TextStream::stdout().push(HELP)?,
            Command::Quit => return Ok(false),
        }
        Ok(true)
    }

    fn system(&mut self, text: Option<String>) -> Result<()> {
        if text.is_none() {
            let system = self.conversation.system();
            let text = system.unwrap_or("the model is told nothing: /system TEXT tells it");
            TextStream::stdout().push(&format!("{text}\n"))?;
            return Ok(());
        }
        self.conversation.set_system(text);
        self.conversation.keep()
    }

    fn load(&mut self, name: Option<&str>) -> Result<()> {
        let Some(name) = name else {
            let names = Conversation::names(self.folder)?;
            ensure!(!names.is_empty(), "no conversation was kept yet");
            TextStream::stdout().push(&format!("{}\n", names.join("\n")))?;
            return Ok(());
        };
        self.conversation = Conversation::load(self.folder, name)?;
        TextStream::stdout().push(&self.conversation.told())?;
        Ok(())
    }

    fn retry(&mut self) -> Result<()> {
        ensure!(
            self.conversation.take_back(),
            "there is no answer to try again"
        );
        if self.args.sampling.temperature == 0.0 {
            warn("at temperature 0 the same answer comes again: start with --temperature 0.7");
        }
        self.answer()
    }

    fn stats(&self) -> Result<()> {
        let (_, last) = self.last.as_ref().context("there was no answer yet")?;
        let status = self.engine.handle.status();
        let kept = status.prefix_bytes as f64 / 1e6;
        let text = format!(
            "{}\n kept for later    {kept:.1} MB of keys and values\n",
            last.stats()
        );
        Ok(TextStream::stdout().push(&text)?)
    }

    /// In a process of its own: MLX belongs to the engine's thread here, and what the walk takes is gone with it.
    fn explain(&self, token: u32) -> Result<()> {
        let (ask, turn) = self.last.as_ref().context("there was no answer yet")?;
        let facts = Facts::new(&self.model, &self.args.limits, versions()?);
        let line = serde_json::to_vec(&turn.record(ask, facts))?;
        let mut file = NamedTempFile::new().context("making a file for the answer")?;
        file.write_all(&line).context("writing the answer")?;
        let program = env::current_exe().context("finding this program")?;
        let mut explain = process::Command::new(program);
        explain.arg("explain").arg(file.path());
        let status = explain.args(["--token", &token.to_string()]).status();
        status.context("starting the walk")?; // it has told why, if it failed
        Interrupt::of_process().take(); // a Ctrl-C was for the walk
        Ok(())
    }

    /// The old model stays if the new one cannot be opened.
    fn change_model(&mut self, name: String) -> Result<()> {
        let model = ModelArgs {
            model: name,
            revision: None,
            dtype: self.args.model.dtype,
        };
        self.engine = open(&self.args.limits, &model)?;
        (self.model, self.last) = (model, None);
        self.greet();
        Ok(())
    }

    fn answer(&mut self) -> Result<()> {
        let handle = self.engine.handle.clone();
        let opened = handle.opened().context("no model is open")?;
        let ask = self.ask(opened)?;
        let Ok(answer) = handle.submit(ask.clone()) else {
            bail!("the engine does not take questions any more");
        };
        self.answers += 1;
        let interrupt = Interrupt::of_process();
        let conversation = &mut self.conversation;
        let turn = turn::listen(answer, &interrupt, |text| conversation.answered(text));
        // Whatever happened, what was said so far stays.
        self.conversation.keep()?;
        let turn = turn?;
        if let Some(ended) = turn.ended_early() {
            tell(ended);
        }
        self.last = Some((ask, turn));
        Ok(())
    }

    fn ask(&self, opened: &Opened) -> Result<Ask> {
        let ids = self.conversation.encode(&opened.tokenizer)?;
        let context = opened.config.max_position_embeddings;
        ensure!(
            ids.len() < context,
            "the conversation has {} tokens, and the model sees {context}: /new begins another one",
            ids.len()
        );
        let sampling = Sampling::from(&self.args.sampling);
        Ok(Ask {
            max_tokens: self.args.max_tokens.min(context - ids.len()),
            ids,
            sampling: Sampling {
                seed: sampling.seed.wrapping_add(self.answers),
                ..sampling
            },
            ignore_eos: self.args.ignore_eos,
            ..Ask::default()
        })
    }
}

/// Starts an engine and waits until it is ready.
pub(crate) fn open(limits: &LimitArgs, model: &ModelArgs) -> Result<Running> {
    status(&format!("opening {}", model.model));
    let running = Engine::spawn(limits.engine(model))?;
    let runtime = Builder::new_current_thread().build();
    let runtime = runtime.context("starting to wait for the model")?;
    match runtime.block_on(running.handle.clone().loaded()) {
        State::Dead(why) => bail!("{why}"),
        _ => Ok(running),
    }
}
