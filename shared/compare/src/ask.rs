//! What every part is asked: the flags that all of them have.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::parts::Contestant;

/// Model and prompt, the same for every part.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Question")]
pub struct Ask {
    /// `tiny` (built in), a directory, a .gguf file, or a Hugging Face id owner/name
    #[arg(long, value_name = "MODEL", default_value = "tiny")]
    pub model: String,

    /// Branch, tag or commit of a Hugging Face model
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,

    /// Compute in this type instead of the checkpoint's own
    #[arg(long, value_name = "f32|f16|bf16", value_parser = ["f32", "f16", "bf16"], hide_possible_values = true)]
    pub dtype: Option<String>,

    /// Text to answer, or to continue with --raw
    #[arg(long, value_name = "TEXT", default_value = "Explain black holes")]
    pub prompt: String,

    /// Take the prompt from this file
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_file: Option<PathBuf>,

    /// Tokens to generate [default: 64, with --live at most 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub max_tokens: Option<u32>,

    /// Hand over the prompt as it is, without the model's chat template
    #[arg(long)]
    pub raw: bool,
}

impl Ask {
    /// The command of one contestant: greedy, with its numbers as JSON in the last line.
    pub fn command(&self, contestant: &Contestant, max_tokens: u32) -> Command {
        let mut command = Command::new(&contestant.program);
        // A subcommand comes before the flags that it is told.
        command.args(&contestant.flags);
        if let Some(rows) = contestant.rows {
            command.args(["--rows", &rows.to_string()]);
        }
        command.args(["--temperature", "0"]);
        self.apply(&mut command, max_tokens);
        command
    }

    /// The question as flags, those that every part has.
    pub(crate) fn apply(&self, command: &mut Command, max_tokens: u32) {
        command.args(["--json", "--model", &self.model]);
        command.args(["--max-tokens", &max_tokens.to_string()]);
        match &self.prompt_file {
            Some(file) => command.arg("--prompt-file").arg(file),
            None => command.args(["--prompt", &self.prompt]),
        };
        if let Some(revision) = &self.revision {
            command.args(["--revision", revision]);
        }
        if let Some(dtype) = &self.dtype {
            command.args(["--dtype", dtype]);
        }
        if self.raw {
            command.arg("--raw");
        }
    }

    /// The model without the folders above it: they say something of this machine only.
    pub fn model_name(&self) -> String {
        let path = Path::new(&self.model);
        let name = path.file_name().filter(|_| path.exists());
        name.map_or_else(
            || self.model.clone(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    /// The prompt as a person would name it: its text, or the file that has it.
    pub fn prompt_name(&self) -> String {
        let file = self.prompt_file.as_deref().and_then(Path::file_name);
        file.map_or_else(
            || self.prompt.clone(),
            |name| name.to_string_lossy().into_owned(),
        )
    }
}
