//! `cargo xtask check --stat`: how large each crate is, and where its modules form circles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use console::numbers::count;
use console::report::Report;
use serde::Deserialize;
use syn::visit::{self, Visit};

use crate::{files, source};

/// The lines of `Cargo.toml` that name the members.
#[derive(Deserialize)]
struct Manifest {
    workspace: Members,
}

#[derive(Deserialize)]
struct Members {
    members: Vec<String>,
}

/// A crate's library and programs, tests aside.
struct Crate {
    name: String,
    /// Lines of each file below `src`.
    files: Vec<(PathBuf, usize)>,
    functions: usize,
    circles: Vec<Vec<String>>,
}

/// Prints a row for each member of the workspace.
pub(super) fn print(root: &Path) -> Result<()> {
    let path = root.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).context("reading the members in Cargo.toml")?;
    let crates = manifest.workspace.members.iter();
    let crates: Vec<Crate> = crates
        .map(|member| Crate::read(root, member))
        .collect::<Result<_>>()?;
    let rows: Vec<Vec<String>> = crates.iter().map(Crate::row).collect();
    shown(&rows).context("printing")
}

fn shown(rows: &[Vec<String>]) -> io::Result<()> {
    let head = ["crate", "lines", "functions", "longest file", "", "circles"];
    Report::stdout().text_table(&head, rows, &[0, 3, 5])
}

impl Crate {
    fn read(root: &Path, member: &str) -> Result<Self> {
        let src = root.join(member).join("src");
        let (mut lines, mut functions) = (Vec::new(), 0);
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in files::walk(&src).with_context(|| format!("listing {member}/src"))? {
            let is_code = file.extension() == Some("rs".as_ref()) && !file.ends_with("tests.rs");
            if !is_code {
                continue;
            }
            let path = src.join(&file);
            let mut code = source::parse(&path)?;
            let all = fs::read_to_string(&path)?.lines().count();
            lines.push((file.clone(), all - source::take_tests(&mut code)));
            functions += source::items(&code)
                .iter()
                .filter(|item| item.is_function)
                .count();
            let module = module(&file);
            let mut seen = Uses::of(module.clone(), file.components().count() > 1);
            seen.visit_file(&code);
            uses.entry(module).or_default().extend(seen.found);
        }
        Ok(Self {
            name: short(member),
            files: lines,
            functions,
            circles: circles(&uses),
        })
    }

    fn row(&self) -> Vec<String> {
        let all: usize = self.files.iter().map(|(_, lines)| lines).sum();
        let longest = self.files.iter().max_by_key(|(_, lines)| *lines);
        let (file, lines) = longest.map_or_else(Default::default, |(file, lines)| {
            (file.display().to_string(), count(*lines as u64))
        });
        let circles: Vec<String> = self
            .circles
            .iter()
            .map(|circle| circle.join(" ↔ "))
            .collect();
        vec![
            self.name.clone(),
            count(all as u64),
            count(self.functions as u64),
            file,
            lines,
            circles.join(", "),
        ]
    }
}

/// `shared/xtask` → `xtask`, `part3-kv-cache` → `part3`
fn short(member: &str) -> String {
    let name = member.rsplit('/').next().unwrap_or(member);
    let part = name
        .split('-')
        .next()
        .filter(|name| name.starts_with("part"));
    part.unwrap_or(name).to_owned()
}

/// `show/attend.rs` and `show.rs` → `show`: what stands in the map of `lib.rs`.
fn module(file: &Path) -> String {
    let first = file.components().next();
    let first = first.map_or_else(Default::default, |name| name.as_os_str().to_string_lossy());
    first.trim_end_matches(".rs").to_owned()
}

/// The modules of its crate that a file names: `crate::cache`, or `super::cache` beside it.
struct Uses {
    own: String,
    /// In a folder, `super` is the module itself.
    is_below: bool,
    found: BTreeSet<String>,
}

impl Uses {
    fn of(own: String, is_below: bool) -> Self {
        Self {
            own,
            is_below,
            found: BTreeSet::new(),
        }
    }

    fn path(&mut self, root: &syn::Ident, names: impl IntoIterator<Item = String>) {
        if root == "crate" || (root == "super" && !self.is_below) {
            self.found
                .extend(names.into_iter().filter(|name| *name != self.own));
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_use_path(&mut self, path: &'ast syn::UsePath) {
        self.path(&path.ident, first_names(&path.tree));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut names = path.segments.iter().map(|segment| &segment.ident);
        if let (Some(root), Some(name)) = (names.next(), names.next()) {
            self.path(root, [name.to_string()]);
        }
        visit::visit_path(self, path);
    }
}

/// `{cache::Cache, model}` → `cache`, `model`
fn first_names(tree: &syn::UseTree) -> Vec<String> {
    match tree {
        syn::UseTree::Path(path) => vec![path.ident.to_string()],
        syn::UseTree::Name(name) => vec![name.ident.to_string()],
        syn::UseTree::Rename(name) => vec![name.ident.to_string()],
        syn::UseTree::Group(group) => group.items.iter().flat_map(first_names).collect(),
        syn::UseTree::Glob(_) => Vec::new(),
    }
}

/// Modules that reach each other, in groups.
fn circles(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reached = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            let next = uses.get(module).into_iter().flatten();
            open.extend(next.filter(|next| seen.insert((*next).clone())));
        }
        seen
    };
    let reach: BTreeMap<&String, BTreeSet<String>> =
        uses.keys().map(|from| (from, reached(from))).collect();
    let mut found: Vec<Vec<String>> = Vec::new();
    for (module, to) in reach.iter().filter(|(module, to)| to.contains(**module)) {
        if found.iter().any(|circle| circle.contains(module)) {
            continue;
        }
        let back = |other: &&String| reach.get(*other).is_some_and(|r| r.contains(*module));
        found.push(to.iter().filter(back).cloned().collect());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(code: &str, is_below: bool) -> Vec<String> {
        let mut seen = Uses::of("own".into(), is_below);
        seen.visit_file(&syn::parse_str(code).unwrap());
        seen.found.into_iter().collect()
    }

    #[test]
    fn a_module_is_used_by_import_and_by_path() {
        let code =
            "use crate::{a::A, b}; use super::c; use std::d; fn f() { crate::e::f(crate::own::X) }";
        assert_eq!(uses(code, false), ["a", "b", "c", "e"]);
        assert_eq!(uses(code, true), ["a", "b", "e"]);
        assert_eq!(module(Path::new("show/attend.rs")), "show");
        assert_eq!(module(Path::new("show.rs")), "show");
    }

    #[test]
    fn modules_that_reach_each_other_are_one_circle() {
        let of = |pairs: &[(&str, &[&str])]| {
            let set = |to: &[&str]| to.iter().map(ToString::to_string).collect();
            circles(
                &pairs
                    .iter()
                    .map(|(from, to)| (from.to_string(), set(to)))
                    .collect(),
            )
        };
        assert!(of(&[("a", &["b"]), ("b", &["c"]), ("c", &[])]).is_empty());
        let two = of(&[
            ("a", &["b"]),
            ("b", &["c"]),
            ("c", &["a", "d"]),
            ("d", &["e"]),
            ("e", &["d"]),
        ]);
        assert_eq!(two, [vec!["a", "b", "c"], vec!["d", "e"]]);
    }
}
