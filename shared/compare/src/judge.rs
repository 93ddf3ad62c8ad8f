//! How much a difference weighs: a part that can say so is asked by how many nats the model as it is prefers the
//! reference's token. As much as the rounding of its numbers is a tie, and says nothing of the part that broke it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use console::interrupt::Interrupt;
use serde::Deserialize;
use serde_json::json;

use crate::answer::last_line;
use crate::ask::Ask;
use crate::parts::{self, Part};
use crate::process;

/// A part that can say it. It is built only if there is a difference.
#[derive(Debug)]
pub struct Judge<'a> {
    root: &'a Path,
    part: Part,
    flags: Vec<String>,
    profile: &'a str,
}

#[derive(Debug, Deserialize)]
struct Margin {
    nats: Option<f64>,
}

impl<'a> Judge<'a> {
    /// The first of the parts that can.
    pub fn find(root: &'a Path, parts: &[Part], profile: &'a str) -> Option<Self> {
        let part = parts.iter().find(|part| part.margin.is_some())?;
        Some(Self {
            root,
            flags: part.margin.clone()?,
            part: part.clone(),
            profile,
        })
    }

    /// ln p of the first one's token − ln p of the other's, where they part. None if one of them ends there.
    ///
    /// # Errors
    /// If the part does not build or fails; or on Ctrl-C.
    pub fn nats(
        &self,
        ask: &Ask,
        (ours, theirs): (&[u32], &[u32]),
        interrupt: &Interrupt,
    ) -> Result<Option<f64>> {
        let file = tempfile::NamedTempFile::new().context("making a file for two answers")?;
        let answers = serde_json::to_vec(&json!({"ours": ours, "theirs": theirs}))?;
        std::fs::write(file.path(), answers).context("writing two answers")?;
        let program = parts::program(self.root, &self.part.package, self.profile)?;
        let mut command = Command::new(program);
        command.args(&self.flags).arg(file.path());
        ask.apply(&mut command, 1);
        let output = process::run(&mut command, interrupt, || {})?;
        let margin: Margin = last_line(&self.part.package, &output)?;
        Ok(margin.nats)
    }
}
