//! Folders: made beside, renamed into place, swept away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};

/// A folder that is gone when the value is.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(format!("{name}-{}", process::id()));
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        sweep(&self.0);
    }
}

/// Removes a folder as far as that is possible. What stays (a child of a killed run may still be
/// writing there) is in nobody's way, since every run has folders of its own.
pub(crate) fn sweep(path: &Path) {
    let _ = fs::remove_dir_all(path);
}

/// Puts the folder `new` in the place of `target`. A rename cannot replace a folder that has
/// files in it, so there is an instant without any: whoever is cut off there starts again.
pub(crate) fn replace_folder(new: &Path, target: &Path, attic: &Path) -> Result<()> {
    if target.symlink_metadata().is_ok() {
        fs::rename(target, attic.join("old"))
            .with_context(|| format!("cannot move {} away", target.display()))?;
    }
    fs::rename(new, target).with_context(|| format!("cannot make {}", target.display()))
}

/// Every file below `folder`, as paths relative to it, sorted.
pub(crate) fn walk(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(place) = open.pop() {
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path())
            } else {
                found.extend(entry.path().strip_prefix(folder).map(Path::to_owned))
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes below `folder`, as far as they can be seen: others may be writing there.
pub(crate) fn tree_bytes(folder: &Path) -> u64 {
    let sizes = walk(folder).unwrap_or_default().into_iter();
    sizes
        .filter_map(|file| Some(folder.join(file).symlink_metadata().ok()?.len()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_replaced_with_all_that_is_in_it() {
        let place = tempfile::tempdir().unwrap();
        let (new, target) = (place.path().join("new"), place.path().join("target"));
        for (folder, file) in [(&new, "young"), (&target, "old")] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(file), file).unwrap();
        }
        let attic = place.path().join("attic");
        fs::create_dir(&attic).unwrap();
        replace_folder(&new, &target, &attic).unwrap();
        assert_eq!(walk(&target).unwrap(), [PathBuf::from("young")]);
        assert!(!new.exists());
    }
}
