//! Beginnings of prompts in a folder, from one run of a server to the next.
//!
//! A server that is told to end writes the branches of its tree, each a file of part 3's format: tokens, keys and values,
//! what they belong to and a checksum over all of it. The next one reads them before it is ready. A file is written
//! beside its place and renamed, so whatever happens on the way, each is whole; what is damaged is told and read past.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use console::report::warn;
use mlx_rs::Array;
use shared::checkpoint::Checkpoint;
use shared::prompt_cache::{self, Identity, Layout, PromptCache, digest};
use shared::tokenizer::Tokenizer;

use crate::kinds::{CacheKind, layer_kinds};
use crate::nodes::Branch;
use crate::reuse::Known;

/// Who made what was read: no request of this run.
const EARLIER_RUN: u64 = u64::MAX;

/// A folder for the prefixes of any models. Each has names of its own in it.
///
/// # Cost
/// Branches that share their beginning each write it, so a folder may take more than the tree does in memory: what was
/// used latest is written, as much as the tree may hold. A production system writes blocks, once, while it serves.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    identity: Identity,
    layout: Layout,
    /// How the names of this model's files begin.
    name: String,
    budget: u64,
}

impl Folder {
    /// Makes the folder if there is none.
    ///
    /// # Errors
    /// If it cannot be made, or if what a row stores is no plain keys and values.
    pub fn new(
        path: &Path,
        checkpoint: &Checkpoint,
        tokenizer: &Tokenizer,
        kind: CacheKind,
        budget: u64,
    ) -> Result<Self> {
        ensure!(
            layer_kinds(kind, &checkpoint.config).all(|kind| kind == CacheKind::Prealloc),
            "--prefix-folder keeps keys and values as they are computed: leave it out, or --kv-8bit"
        );
        ensure!(
            budget > 0,
            "--prefix-folder has nothing to keep with --prefix-mb 0"
        );
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        let identity = Identity::of(checkpoint, tokenizer, "all".to_owned())?;
        Ok(Self {
            path: path.to_owned(),
            layout: Layout::of(checkpoint),
            name: format!("prefix-{}-", &digest(&format!("{identity:?}"))[..16]),
            identity,
            budget,
        })
    }

    /// Reads what is there, and says how many files that were. One that cannot be used is told, and read past.
    ///
    /// # Errors
    /// If the folder cannot be listed, or if MLX refuses the arrays.
    pub fn read(&self, known: &mut Known) -> Result<usize> {
        let mut read = 0;
        for path in self.files()? {
            match prompt_cache::load(&path, &self.identity, &self.layout) {
                Ok(PromptCache { ids, layers }) => {
                    let arrays: Vec<&Array> = layers.iter().flatten().collect();
                    known.keep(&ids, EARLIER_RUN, &arrays, 0)?;
                    read += 1;
                }
                Err(error) => warn(&format!("{error:#}: this prefix is computed again")),
            }
        }
        Ok(read)
    }

    /// Writes what is known in place of what was there, and says how many files that are.
    ///
    /// # Errors
    /// If a file cannot be written. Those that were are whole.
    pub fn write(&self, known: &Known) -> Result<usize> {
        let (mut branches, mut bytes) = (Vec::new(), 0);
        for branch in known.tree.branches() {
            bytes += branch.bytes;
            if bytes > self.budget {
                break;
            }
            branches.push(branch);
        }
        let mut old = self.files()?;
        // Read in this order, the latest is again what was used last.
        for (number, branch) in branches.iter().rev().enumerate() {
            let path = self
                .path
                .join(format!("{}{number:06}.safetensors", self.name));
            prompt_cache::save(&path, &self.identity, &contents(known, branch)?)?;
            old.retain(|other| *other != path);
        }
        for path in old {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(branches.len())
    }

    /// Those of this model, in order.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let doing = || format!("looking into {}", self.path.display());
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).with_context(doing)? {
            let entry = entry.with_context(doing)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(&self.name));
            let number = number.and_then(|rest| rest.strip_suffix(".safetensors"));
            if number.is_some_and(|number| number.parse::<u64>().is_ok()) {
                files.push(entry.path());
            }
        }
        files.sort();
        Ok(files)
    }
}

/// A branch as a file has it.
fn contents(known: &Known, branch: &Branch) -> Result<PromptCache> {
    let state = known.joined(&known.tree.values(branch))?.state()?;
    Ok(PromptCache {
        ids: branch.ids.clone(),
        layers: state.into_iter().map(|kv| [kv.keys, kv.values]).collect(),
    })
}
