//! mlx-lm as a program that is asked like a part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use console::exec;
use console::workspace::Workspace;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;

/// mlx-lm, ready to be asked.
#[derive(Debug)]
pub struct MlxLm {
    python: PathBuf,
    script: PathBuf,
}

/// What mlx-lm stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TheirVersions {
    /// MLX, as its Python module says.
    pub mlx: String,
    /// mlx-lm itself.
    pub mlx_lm: String,
}

/// The JSON line of mlx-lm.
#[derive(Debug, Deserialize)]
pub(super) struct TheirAnswers {
    pub(super) versions: TheirVersions,
    pub(super) runs: Vec<Answer>,
}

impl MlxLm {
    #[cfg(test)]
    pub(super) fn at(python: PathBuf, script: PathBuf) -> Self {
        Self { python, script }
    }

    /// The one that `cargo xtask fetch mlx-lm` installed.
    ///
    /// # Errors
    /// If it did not, or if another version is wanted by now.
    pub fn find(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.mlx("oracle");
        let python = folder.join("bin/python");
        let wanted = workspace
            .root()
            .join("shared/xtask/python/requirements.txt");
        let same = fs::read(folder.join("requirements.txt")).ok() == fs::read(wanted).ok();
        ensure!(
            python.is_file() && same,
            "mlx-lm is not here, or not the right one: get it with `cargo xtask fetch mlx-lm`"
        );
        let script = workspace.root().join("shared/compare/python/answer.py");
        Ok(Self { python, script })
    }

    /// A text of so many tokens for this model.
    ///
    /// # Errors
    /// If the model has no tokenizer that can be read.
    pub fn prompt_of(&self, tokens: u32, model: &str) -> Result<String> {
        let mut command = self.command();
        command.args(["--model", model, "--prompt-of", &tokens.to_string()]);
        exec::stdout(&mut command)
            .with_context(|| format!("a prompt of {tokens} tokens for {model}"))
    }

    /// Its program, to which the question is added.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-u", "-B"]).arg(&self.script);
        command
            .env("HF_HUB_OFFLINE", "1")
            .env("TRANSFORMERS_VERBOSITY", "error");
        command
    }
}

/// The model as both can open it: the embedded one has a folder, too.
pub fn model(root: &Path, model: &str) -> String {
    if model == "tiny" {
        root.join("assets/models/tiny").display().to_string()
    } else {
        model.to_owned()
    }
}
