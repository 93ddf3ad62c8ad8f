//! The parts, and the files that each of them teaches.
//!
//! What is taught stands in one place, the module map in the documentation of a part's `lib.rs`. The
//! list below "In reading order" names the taught modules, and a phrase says what each is about; a
//! phrase that begins with "as in part 3" promises that the file is that part's, byte for byte. The
//! other lists of the map name modules that no two parts are compared by.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::files;
use crate::source;

pub(crate) mod map;

use map::Module;

/// The parts that there are, in order.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) root: PathBuf,
    pub(crate) parts: Vec<Part>,
}

/// One part.
#[derive(Debug)]
pub(crate) struct Part {
    /// 3
    pub(crate) number: u32,
    /// Package and folder: `part3-kv-cache`.
    pub(crate) package: String,
    /// The description in Cargo.toml without `Part 3: ` in front.
    pub(crate) what: String,
    pub(crate) folder: PathBuf,
    /// The map of `lib.rs`, in its order.
    pub(crate) map: Vec<Module>,
}

/// A file that a part teaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taught {
    /// From the folder of the part: `src/cache.rs`.
    pub(crate) file: String,
    /// Its module's phrase.
    pub(crate) says: String,
    /// The part whose file this is, byte for byte.
    pub(crate) as_in: Option<u32>,
}

#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    description: Option<String>,
}

impl Series {
    /// Reads every folder `partN-…` at the root that has a Cargo.toml.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let entries = fs::read_dir(root).with_context(|| format!("listing {}", root.display()))?;
        let mut parts = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("listing {}", root.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let (Some(number), true) = (number(&name), entry.path().join("Cargo.toml").is_file())
            {
                parts.push(Part::load(number, entry.path())?);
            }
        }
        parts.sort_by_key(|part| part.number);
        for pair in parts.windows(2) {
            ensure!(
                pair[0].number != pair[1].number,
                "{} and {} have the same number: rename one of the two folders",
                pair[0].package,
                pair[1].package
            );
        }
        Ok(Self {
            root: root.to_owned(),
            parts,
        })
    }

    pub(crate) fn part(&self, number: u32) -> Result<&Part> {
        let numbers: Vec<String> = self.parts.iter().map(|p| p.number.to_string()).collect();
        self.parts
            .iter()
            .find(|part| part.number == number)
            .with_context(|| {
                format!(
                    "there is no part {number}; the parts are {}",
                    numbers.join(", ")
                )
            })
    }

    /// The part before this one.
    pub(crate) fn before(&self, part: &Part) -> Option<&Part> {
        let earlier = self.parts.iter().filter(|other| other.number < part.number);
        earlier.max_by_key(|other| other.number)
    }
}

/// `part3-kv-cache` → 3
fn number(folder: &str) -> Option<u32> {
    let (number, title) = folder.strip_prefix("part")?.split_once('-')?;
    (!title.is_empty()).then(|| number.parse().ok()).flatten()
}

impl Part {
    fn load(number: u32, folder: PathBuf) -> Result<Self> {
        let path = folder.join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path:?}"))?;
        let Manifest { package } =
            toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let description = package.description.unwrap_or_default();
        let prefix = format!("Part {number}: ");
        let Some(what) = description.strip_prefix(&prefix) else {
            bail!(
                "{}: the description has to begin with `{prefix}`; \
                 tables of the READMEs are made from it",
                path.display()
            );
        };
        let library = folder.join("src/lib.rs");
        let map = map::parse(&source::docs(&source::parse(&library)?));
        Ok(Self {
            number,
            package: package.name,
            what: what.to_owned(),
            folder,
            map,
        })
    }

    /// `part 3`
    pub(crate) fn title(&self) -> String {
        format!("part {}", self.number)
    }

    /// Where a file lies that is named from the folder of the part.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// From the root of the workspace: `part3-kv-cache/src/cache.rs`.
    pub(crate) fn named(&self, file: &str) -> String {
        format!("{}/{file}", self.package)
    }

    /// The taught files in reading order: of each taught module its own, then those below it.
    pub(crate) fn taught(&self) -> Result<Vec<Taught>> {
        let mut found = Vec::new();
        for module in self.map.iter().filter(|module| module.taught) {
            let says = |file: String| Taught {
                file,
                says: module.says.clone(),
                as_in: module.as_in,
            };
            let alone = format!("src/{}.rs", module.name);
            let folder = format!("src/{}", module.name);
            let before = found.len();
            if self.path(&alone).is_file() {
                found.push(says(alone.clone()));
            }
            if self.path(&folder).is_dir() {
                let below = files::walk(&self.path(&folder))
                    .with_context(|| format!("listing {}", self.named(&folder)))?;
                let below = below
                    .iter()
                    .filter(|file| file.extension() == Some("rs".as_ref()));
                found.extend(below.map(|file| says(format!("{folder}/{}", file.display()))));
            }
            ensure!(
                found.len() > before,
                "{} names `{}`, and there is no {}: mend the list",
                self.named("src/lib.rs"),
                module.name,
                self.named(&alone)
            );
        }
        Ok(found)
    }
}

/// Files that a diff from one part to another shows: those that the second teaches, in its reading
/// order, then those that only the first one does.
pub(crate) fn compared(before: &Part, after: &Part) -> Result<Vec<String>> {
    let mut files: Vec<String> = after.taught()?.into_iter().map(|t| t.file).collect();
    for taught in before.taught()? {
        if !files.contains(&taught.file) {
            files.push(taught.file);
        }
    }
    Ok(files)
}
