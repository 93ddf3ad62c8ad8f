//! Which parts there are. The workspace says so, and each part says in its Cargo.toml what it adds
//! and how it is run: nothing here has to change when a part is added.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use console::exec;
use console::workspace::cargo;
use serde::Deserialize;
use serde_json::Value;

/// A part that decodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The package, and the name of its program: `part3-kv-cache`.
    pub package: String,
    /// Its number in the series.
    pub number: u32,
    /// The package's description without `Part 3: ` in front.
    pub adds: String,
    /// Flags of the variant that stands for the part.
    pub rung: Vec<String>,
    /// Flags of each further variant that has a lane of its own. If it answers in rows, they say in how many.
    pub more: Vec<Vec<String>>,
    /// Flags of each other variant.
    pub others: Vec<Vec<String>>,
    /// Flags of the variant that stands beside another program, if it is not the rung: it computes the same.
    pub against: Option<Vec<String>>,
    /// Whether it answers several copies of the prompt at the same time, as many as `--rows` says.
    pub rows: bool,
    /// Flags with which it says by how much the model prefers one token to another, if it can.
    pub margin: Option<Vec<String>>,
}

/// What runs of each part.
#[derive(Debug, Clone, Copy)]
pub struct Lineup {
    /// Every variant, not only the one that stands for its part.
    pub all: bool,
    /// The variant that stands beside another program, which answers one prompt at a time.
    pub against: bool,
    /// Copies of the prompt, for parts that answer several.
    pub rows: u32,
}

/// `[package.metadata.compare]` of a part's Cargo.toml; without it the part runs without flags.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Compare {
    rung: Vec<String>,
    more: Vec<Vec<String>>,
    others: Vec<Vec<String>>,
    against: Option<Vec<String>>,
    rows: bool,
    margin: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    #[serde(default)]
    description: Option<String>,
    targets: Vec<Target>,
    #[serde(default)]
    metadata: Value,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// One program of the comparison: a part with the flags of one of its variants.
#[derive(Debug, Clone)]
pub struct Contestant {
    /// Its part.
    pub part: Part,
    /// The program.
    pub program: PathBuf,
    /// The variant's flags.
    pub flags: Vec<String>,
    /// Whether the variant has a place in the ladder, and is no other one of `--all`.
    pub rung: bool,
    /// Whether it is the one that stands for its part.
    pub first: bool,
    /// Copies of the prompt that it answers at the same time; None for a part that knows only one.
    pub rows: Option<u32>,
}

impl Contestant {
    /// Copies of the prompt that it answers at the same time.
    pub fn rows(&self) -> u32 {
        self.rows.unwrap_or(1)
    }

    /// `part 3`, or with the flags that tell it from the other variants of its part.
    pub fn name(&self) -> String {
        if self.first {
            format!("part {}", self.part.number)
        } else {
            format!("part {} {}", self.part.number, self.flags.join(" "))
        }
    }
}

/// The parts of the workspace that decode, in order. Part 1 explains and does not decode.
///
/// # Errors
/// If Cargo cannot read the workspace, or a part's `[package.metadata.compare]` is wrong.
pub fn find(root: &Path) -> Result<Vec<Part>> {
    let mut command = Command::new(cargo());
    command
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root);
    let text = exec::stdout(&mut command).context("asking Cargo for the parts")?;
    parse(&text)
}

fn parse(metadata: &str) -> Result<Vec<Part>> {
    let metadata: Metadata =
        serde_json::from_str(metadata).context("reading what Cargo says of the workspace")?;
    let packages = metadata.packages.into_iter();
    let parts: Result<Vec<Part>> = packages.filter_map(|p| Part::of(p).transpose()).collect();
    let mut parts = parts?;
    parts.sort_by_key(|part| part.number);
    Ok(parts)
}

impl Part {
    fn of(package: Package) -> Result<Option<Self>> {
        let Some(number) = number(&package.name).filter(|number| *number >= 2) else {
            return Ok(None);
        };
        let program =
            |target: &Target| target.name == package.name && target.kind.iter().any(|k| k == "bin");
        if !package.targets.iter().any(program) {
            return Ok(None);
        }
        let compare = match &package.metadata["compare"] {
            Value::Null => Compare::default(),
            value => Compare::deserialize(value).with_context(|| {
                format!(
                    "{}: [package.metadata.compare] in its Cargo.toml",
                    package.name
                )
            })?,
        };
        let description = package.description.unwrap_or_default();
        let adds = description.strip_prefix(&format!("Part {number}: "));
        Ok(Some(Self {
            number,
            adds: adds.unwrap_or(&description).to_owned(),
            rung: compare.rung,
            more: compare.more,
            others: compare.others,
            against: compare.against,
            rows: compare.rows,
            margin: compare.margin,
            package: package.name,
        }))
    }

    /// The rung, or what stands beside another program, and with `all` the other variants after it.
    fn contestants(&self, program: &Path, lineup: Lineup) -> Vec<Contestant> {
        let rows = if lineup.against { 1 } else { lineup.rows };
        let against = self.against.as_ref().filter(|_| lineup.against);
        let first = Contestant {
            part: self.clone(),
            program: program.to_owned(),
            flags: against.unwrap_or(&self.rung).clone(),
            rung: true,
            first: true,
            rows: self.rows.then_some(rows),
        };
        let contestant = |flags: &Vec<String>| Contestant {
            flags: flags.clone(),
            first: false,
            ..first.clone()
        };
        let more = self.more.iter().filter(|_| !lineup.against);
        let more = more.map(|flags| Contestant {
            rows: None,
            ..contestant(flags)
        });
        let others = self.others.iter().filter(|_| lineup.all);
        let others = others.map(|flags| Contestant {
            rung: false,
            ..contestant(flags)
        });
        let all = more.chain(others).collect::<Vec<_>>();
        [first].into_iter().chain(all).collect()
    }
}

/// `part3-kv-cache` → 3.
fn number(package: &str) -> Option<u32> {
    let (number, _) = package.strip_prefix("part")?.split_once('-')?;
    number.parse().ok()
}

/// Those of `parts` that were asked for by number; all if none were.
///
/// # Errors
/// If a number has no part, or if there is no part at all.
pub fn select(parts: Vec<Part>, wanted: &[u32]) -> Result<Vec<Part>> {
    let there: Vec<String> = parts.iter().map(|part| part.number.to_string()).collect();
    ensure!(!parts.is_empty(), "this workspace has no part that decodes");
    for number in wanted {
        ensure!(
            parts.iter().any(|part| part.number == *number),
            "there is no part {number} to compare: --parts takes {}",
            there.join(", ")
        );
    }
    let chosen = |part: &Part| wanted.is_empty() || wanted.contains(&part.number);
    Ok(parts.into_iter().filter(chosen).collect())
}

/// Builds each part and lists what will run, in order.
///
/// # Errors
/// If a part does not build; Cargo's own message is on the terminal by then.
pub fn build(
    root: &Path,
    parts: &[Part],
    profile: &str,
    lineup: Lineup,
) -> Result<Vec<Contestant>> {
    let mut contestants = Vec::new();
    for part in parts {
        let program = program(root, &part.package, profile)?;
        contestants.extend(part.contestants(&program, lineup));
    }
    Ok(contestants)
}

/// The program of a part, built with a profile of Cargo; Cargo itself says where it lies.
///
/// # Errors
/// If it does not build; Cargo's own message is on the terminal by then.
pub(crate) fn program(root: &Path, part: &str, profile: &str) -> Result<PathBuf> {
    let output = Command::new(cargo())
        .args(["build", "--profile", profile])
        .args(["--package", part, "--bin", part])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(
        output.status.success(),
        "{part} does not build; cargo's message is above"
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == part)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no program called {part}"))
}

#[cfg(test)]
mod tests;
