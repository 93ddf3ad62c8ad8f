//! A part runs wherever MLX does: what differs by system is in `cargo setup` and in `shared`.
//!
//! Read from tokens, so that neither comments nor documentation count.

use std::fs;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use toml::Table;

use super::Finding;
use crate::files;
use crate::series::{Part, Series};

/// What `cfg` may not ask.
const CONDITIONS: [&str; 9] = [
    "target_os",
    "target_family",
    "target_arch",
    "target_env",
    "target_vendor",
    "target_abi",
    "unix",
    "windows",
    "macos",
];
/// Modules of `std::os` and constants of `std::env::consts`.
const MODULES: [(&str, &[&str]); 2] = [
    (
        "os",
        &[
            "unix", "linux", "macos", "darwin", "windows", "fd", "raw", "ios",
        ],
    ),
    ("consts", &["OS", "FAMILY", "ARCH"]),
];
/// Crates that speak to one system, or past mlx-rs to MLX.
const CRATES: [&str; 12] = [
    "mlx_sys",
    "libc",
    "metal",
    "objc",
    "objc2",
    "core_foundation",
    "nix",
    "rustix",
    "winapi",
    "windows",
    "windows_sys",
    "mach2",
];
/// Folders at the root of a system.
const ROOTS: [&str; 22] = [
    "Applications",
    "Library",
    "System",
    "Users",
    "Volumes",
    "bin",
    "dev",
    "etc",
    "home",
    "lib",
    "lib64",
    "mnt",
    "opt",
    "private",
    "proc",
    "root",
    "run",
    "sbin",
    "srv",
    "sys",
    "tmp",
    "usr",
];

const FIX: &str = "ask `shared::machine`, or move it to shared: the same part runs everywhere";

pub(super) fn findings(series: &Series) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for part in &series.parts {
        found.extend(manifest(part)?);
        for folder in ["src", "benches", "examples"] {
            if !part.path(folder).is_dir() {
                continue;
            }
            let there = files::walk(&part.path(folder))
                .with_context(|| format!("listing {}", part.named(folder)))?;
            for file in there
                .iter()
                .filter(|f| f.extension() == Some("rs".as_ref()))
            {
                found.extend(code(part, &format!("{folder}/{}", file.display()))?);
            }
        }
    }
    Ok(found)
}

/// `[target.'cfg(…)'.dependencies]`, and crates of one system, in a Cargo.toml.
fn manifest(part: &Part) -> Result<Vec<Finding>> {
    let name = part.named("Cargo.toml");
    let text =
        fs::read_to_string(part.path("Cargo.toml")).with_context(|| format!("reading {name}"))?;
    let table: Table = toml::from_str(&text).with_context(|| format!("reading {name}"))?;
    let mut problems = Vec::new();
    if table.contains_key("target") {
        problems.push("has dependencies for one target only".to_owned());
    }
    let dependencies = table.get("dependencies").and_then(|value| value.as_table());
    for dependency in dependencies.into_iter().flatten().map(|(name, _)| name) {
        if CRATES.contains(&dependency.replace('-', "_").as_str()) {
            problems.push(format!("depends on {dependency}"));
        }
    }
    let finding = |problem| Finding::new(&name, problem, FIX);
    Ok(problems.into_iter().map(finding).collect())
}

fn code(part: &Part, file: &str) -> Result<Vec<Finding>> {
    let name = part.named(file);
    let text = fs::read_to_string(part.path(file)).with_context(|| format!("reading {name}"))?;
    let finding = |(line, problem)| Finding::new(format!("{name}:{line}"), problem, FIX);
    let hits = hits(&text).with_context(|| format!("reading {name}"))?;
    Ok(hits.into_iter().map(finding).collect())
}

/// Line and problem of everything in a file that belongs to one system.
fn hits(text: &str) -> Result<Vec<(usize, String)>> {
    let tokens: TokenStream = text.parse().map_err(|error| anyhow!("no Rust: {error}"))?;
    let mut found = Vec::new();
    walk(tokens, &mut found);
    Ok(found)
}

fn walk(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let line = token.span().start().line;
        match token {
            TokenTree::Ident(ident) => {
                let told = word(&ident.to_string(), &tokens[at + 1..]);
                found.extend(told.map(|problem| (line, problem)));
            }
            TokenTree::Literal(literal) => {
                let told = path(&literal.to_string());
                found.extend(told.map(|path| (line, format!("names the path {path}"))));
            }
            TokenTree::Group(group) if !is_doc(group) => walk(group.stream(), found),
            TokenTree::Group(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// `///` is an attribute `#[doc = "…"]` among tokens.
fn is_doc(group: &proc_macro2::Group) -> bool {
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Bracket
        && matches!(first, Some(TokenTree::Ident(ident)) if ident == "doc")
}

fn word(word: &str, next: &[TokenTree]) -> Option<String> {
    if matches!(word, "cfg" | "cfg_attr") {
        // `cfg(…)` in an attribute, `cfg!(…)` in code.
        let mut next = next.iter().filter(|token| !is(token, '!'));
        let Some(TokenTree::Group(group)) = next.next() else {
            return None;
        };
        let asked = idents(group.stream());
        let asked = asked.into_iter().find(|a| CONDITIONS.contains(&a.as_str()));
        return asked.map(|condition| format!("compiles differently by `{condition}`"));
    }
    let [TokenTree::Punct(a), TokenTree::Punct(b), ..] = next else {
        return None;
    };
    if (a.as_char(), b.as_char()) != (':', ':') {
        return None;
    }
    if CRATES.contains(&word) {
        return Some(format!("uses the crate {word}"));
    }
    let (_, names) = MODULES.iter().find(|(module, _)| *module == word)?;
    let of = match next.get(2)? {
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Group(group) => idents(group.stream()),
        _ => Vec::new(),
    };
    let of = of.into_iter().find(|name| names.contains(&name.as_str()))?;
    Some(format!("uses {word}::{of}"))
}

fn is(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

fn idents(tokens: TokenStream) -> Vec<String> {
    let of = |token| match token {
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Group(group) => idents(group.stream()),
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(of).collect()
}

/// An absolute path of a system in a literal. `/v1/chat/completions` is none.
fn path(literal: &str) -> Option<String> {
    let text = match syn::parse_str(literal).ok()? {
        syn::Lit::Str(text) => text.value(),
        syn::Lit::ByteStr(text) => String::from_utf8(text.value()).ok()?,
        syn::Lit::CStr(text) => text.value().into_string().ok()?,
        _ => return None,
    };
    let words = text.split(|c: char| c.is_whitespace() || "\"'`=,;()[]<>".contains(c));
    let absolute = |word: &&str| {
        let drive = word.get(1..).is_some_and(|rest| rest.starts_with(":\\"));
        let below = word.strip_prefix('/').and_then(|word| word.split_once('/'));
        drive || below.is_some_and(|(root, _)| ROOTS.contains(&root))
    };
    words.into_iter().find(absolute).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let hits = hits(text).unwrap().into_iter();
        hits.map(|(line, problem)| format!("{line}: {problem}"))
            .collect()
    }

    #[test]
    fn code_of_one_system_is_found_in_whatever_shape() {
        let text = r#"
            #[cfg(all(not(test), target_os = "macos"))] fn a() {}
            fn b() -> bool { cfg!(unix) }
            #[cfg_attr(windows, derive(Debug))] struct C;
            use std::os::unix::fs::PermissionsExt;
            use std::os::{fd::AsRawFd};
            fn d() -> &'static str { std::env::consts::OS }
            fn e() { unsafe { mlx_sys::mlx_synchronize(s) } }
            fn f() { println!("see {}", "open /usr/lib/libblas.so"); }
            const G: &str = "C:\\models";
        "#;
        assert_eq!(
            told(text),
            [
                "2: compiles differently by `target_os`",
                "3: compiles differently by `unix`",
                "4: compiles differently by `windows`",
                "5: uses os::unix",
                "6: uses os::fd",
                "7: uses consts::OS",
                "8: uses the crate mlx_sys",
                "9: names the path /usr/lib/libblas.so",
                "10: names the path C:\\models",
            ]
        );
    }

    #[test]
    fn what_only_looks_like_it_is_not_found() {
        let text = r#"
            //! On macOS, see /usr/lib/x and #[cfg(target_os = "macos")].
            /// `std::os::unix`, "/etc/hosts"
            #[cfg(test)] mod tests;
            #[cfg(feature = "testing")] fn windows(windows: usize) -> usize { windows / 2 }
            fn route() -> [&'static str; 3] { ["/v1/chat/completions", "/metrics", "a / b /c"] }
            // cfg!(unix)
        "#;
        assert!(told(text).is_empty(), "{:?}", told(text));
    }
}
