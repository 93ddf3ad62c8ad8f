//! What a finished folder of `.mlx` held when it was finished, so that damage is noticed.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use console::workspace::Workspace;
use serde::{Deserialize, Serialize};

use crate::dot_mlx;
use crate::files;

const NAME: &str = "receipt.json";

/// Written into a folder as its last file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// What the folder was made from; another key asks for another folder.
    key: Key,
    /// What the last line of `cargo setup` tells, such as which BLAS was found.
    pub(crate) facts: Facts,
    files: BTreeMap<String, Mark>,
}

pub(crate) type Facts = BTreeMap<String, String>;
/// `MLX` → `0.32.2`
pub(crate) type Key = BTreeMap<String, String>;

/// Size and time, not a hash: 40 MB (or 3 GB of CUDA) would have to be read at each start, and
/// whoever changes a file by accident changes one of these.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Mark {
    bytes: u64,
    modified_ns: u64,
}

impl Mark {
    fn of(metadata: &Metadata) -> Self {
        let age = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified_ns = age.map_or(0, |age| age.as_nanos() as u64);
        Self {
            bytes: metadata.len(),
            modified_ns,
        }
    }
}

impl Receipt {
    /// Takes stock of `folder` and writes the receipt into it.
    pub(crate) fn issue(folder: &Path, key: &Key, facts: Facts) -> Result<Self> {
        let mut marks = BTreeMap::new();
        for file in files::walk(folder)? {
            let mark = Mark::of(&fs::metadata(folder.join(&file))?);
            marks.insert(file.to_string_lossy().into_owned(), mark);
        }
        let receipt = Self {
            key: key.clone(),
            facts,
            files: marks,
        };
        console::files::replace(&folder.join(NAME), &serde_json::to_vec_pretty(&receipt)?)?;
        Ok(receipt)
    }

    /// The receipt of `folder`, whatever that was made from and is by now.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let name = folder.display();
        let text = fs::read(folder.join(NAME)).map_err(|_| format!("{name} is not finished"))?;
        serde_json::from_slice(&text).map_err(|_| format!("{name}/{NAME} is not readable"))
    }

    /// The value of one name of its key.
    pub(crate) fn made_from(&self, name: &str) -> String {
        self.key.get(name).cloned().unwrap_or_default()
    }

    /// The receipt of `folder` if it was made from `key` and every file is as it was.
    /// The error is the reason, for the reader.
    pub(crate) fn check(folder: &Path, key: &Key) -> Result<Self, String> {
        let receipt = Self::read(folder)?;
        if let Some((name, value)) = key
            .iter()
            .find(|(name, value)| receipt.key.get(*name) != Some(value))
        {
            let (folder, was) = (folder.display(), receipt.made_from(name));
            return Err(format!("{folder} is made from {name} {was}, not {value}"));
        }
        for (file, mark) in &receipt.files {
            let path = folder.join(file);
            match fs::metadata(&path) {
                Err(_) => return Err(format!("{} is missing", path.display())),
                Ok(now) if Mark::of(&now) != *mark => {
                    return Err(format!("{} has changed", path.display()));
                }
                Ok(_) => {}
            }
        }
        Ok(receipt)
    }
}

/// Makes the folder `.mlx/NAME` with `build`, unless a good one for the same `key` is there.
/// `build` works in a scratch folder: the name appears when all of it is done, receipt included.
pub(crate) fn make(
    workspace: &Workspace,
    name: &str,
    key: &Key,
    build: impl FnOnce(&Path) -> Result<Facts>,
) -> Result<Receipt> {
    let target = workspace.mlx(name);
    if let Ok(receipt) = Receipt::check(&target, key) {
        return Ok(receipt);
    }
    let scratch = dot_mlx::scratch(workspace, name)?;
    let new = scratch.path().join("new");
    fs::create_dir(&new).with_context(|| format!("cannot make {}", new.display()))?;
    let facts = build(&new)?;
    let receipt = Receipt::issue(&new, key, facts)?;
    files::replace_folder(&new, &target, scratch.path())?;
    Ok(receipt)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn mlx(version: &str) -> Key {
        Key::from([("MLX".to_owned(), version.to_owned())])
    }

    fn library(folder: &Path) -> Result<Facts> {
        fs::create_dir(folder.join("lib"))?;
        fs::write(folder.join("lib/libmlx.so"), "machine code")?;
        fs::write(folder.join("libblas.so"), "fast")?;
        Ok(Facts::from([("blas".into(), "BLIS".into())]))
    }

    fn made() -> (tempfile::TempDir, Workspace, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(place.path());
        make(&workspace, "mlx", &mlx("1"), library).unwrap();
        let folder = workspace.mlx("mlx");
        (place, workspace, folder)
    }

    #[test]
    fn a_finished_folder_is_left_alone() {
        let (_place, workspace, folder) = made();
        let again = make(&workspace, "mlx", &mlx("1"), |_| {
            panic!("must not build again")
        })
        .unwrap();
        assert_eq!(again.facts["blas"], "BLIS");
        assert!(Receipt::check(&folder, &mlx("1")).is_ok());
    }

    #[test]
    fn every_kind_of_damage_is_noticed_and_repaired() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 5] = [
            ("libmlx.so is missing", |at| {
                fs::remove_file(at.join("lib/libmlx.so")).unwrap()
            }),
            ("libmlx.so has changed", |at| {
                fs::write(at.join("lib/libmlx.so"), "mach").unwrap()
            }),
            ("libblas.so has changed", |at| {
                fs::write(at.join("libblas.so"), "slow").unwrap()
            }),
            ("is not finished", |at| {
                fs::remove_file(at.join(NAME)).unwrap()
            }),
            ("is not readable", |at| {
                fs::write(at.join(NAME), "{\"key\": ").unwrap()
            }),
        ];
        for (reason, damage) in damages {
            let (_place, workspace, folder) = made();
            damage(&folder);
            let told = Receipt::check(&folder, &mlx("1")).unwrap_err();
            assert!(told.contains(reason), "{told}");
            make(&workspace, "mlx", &mlx("1"), library).unwrap();
            assert!(
                Receipt::check(&folder, &mlx("1")).is_ok(),
                "after: {reason}"
            );
        }
    }

    #[test]
    fn another_version_is_made_anew() {
        let (_place, workspace, folder) = made();
        assert!(
            Receipt::check(&folder, &mlx("2"))
                .unwrap_err()
                .contains("is made from MLX 1, not 2")
        );
        make(&workspace, "mlx", &mlx("2"), library).unwrap();
        assert!(Receipt::check(&folder, &mlx("2")).is_ok());
    }

    #[test]
    fn a_build_that_is_cut_off_leaves_what_was_there() {
        let (_place, workspace, folder) = made();
        let cut_off = make(&workspace, "mlx", &mlx("2"), |new| {
            library(new)?;
            anyhow::bail!("the network is gone")
        });
        assert!(cut_off.is_err());
        assert!(Receipt::check(&folder, &mlx("1")).is_ok());
        // What a killed run leaves behind in the scratch folder is gone once the next has the lock.
        fs::create_dir_all(workspace.mlx("tmp/mlx-1/new")).unwrap();
        let _lock = dot_mlx::lock(&workspace).unwrap();
        assert!(!workspace.mlx("tmp").exists());
    }
}
