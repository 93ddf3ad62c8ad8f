//! What `--model` names: decided by the text and the local disk alone.
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::Embedded;
use crate::gguf::MAGIC;

/// A model argument, told apart but not yet fetched.
#[derive(Debug)]
pub(super) enum Source {
    Embedded(Embedded),
    Directory(PathBuf),
    Gguf(PathBuf),
    Hub(RepoId),
}

/// A repository on the hub.
#[derive(Debug, Clone)]
pub(super) struct RepoId {
    pub(super) owner: String,
    pub(super) name: String,
}

impl std::fmt::Display for RepoId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

pub(super) fn parse(model: &str) -> Result<Source> {
    if let Some(embedded) = Embedded::named(model) {
        return Ok(Source::Embedded(embedded));
    }
    let path = expand_home(model);
    if path.exists() {
        return existing(model, path);
    }
    if looks_like_path(model) {
        bail!(
            "--model {model}: no such file or directory{}; a model on the hub is named owner/name",
            did_you_mean(model)
        );
    }
    if let Some(repo) = repo_id(model) {
        return Ok(Source::Hub(repo));
    }
    bail!(
        "--model {model:?} is no model{}: it takes `tiny` (built in), a directory with config.json \
         and safetensors, a .gguf file, or a hub id owner/name",
        did_you_mean(model)
    )
}

/// What `--tokenizer` names.
pub(super) fn parse_tokenizer(name: &str) -> Result<Source> {
    if let Some(embedded) = Embedded::named(name) {
        return Ok(Source::Embedded(embedded));
    }
    let path = expand_home(name);
    if path.is_dir() {
        return Ok(Source::Directory(path));
    }
    if path.is_file() && has_gguf_extension(&path) {
        return Ok(Source::Gguf(path));
    }
    match repo_id(name) {
        Some(repo) if !path.exists() && !looks_like_path(name) => Ok(Source::Hub(repo)),
        _ => bail!(
            "--tokenizer {name:?} is no tokenizer{}: it takes `tiny` (built in), a directory with a \
             tokenizer.json, such a file, a .gguf file, or a hub id owner/name",
            did_you_mean(name)
        ),
    }
}

fn existing(model: &str, path: PathBuf) -> Result<Source> {
    if path.is_file() {
        if has_gguf_extension(&path) {
            return Ok(Source::Gguf(path));
        }
        if starts_as_gguf(&path) {
            bail!(
                "--model {model} is a GGUF file under another name, and MLX goes by the ending: link it \
                 with `ln -s {model} model.gguf` and give that name"
            );
        }
        bail!(
            "--model {model} is a file, but not a .gguf file: for safetensors, give the directory \
             that holds them and config.json"
        );
    }
    if !path.is_dir() {
        bail!(
            "--model {model} is a device or a pipe: it takes `tiny` (built in), a directory with \
             config.json and safetensors, a .gguf file, or a hub id owner/name"
        );
    }
    if !path.join("config.json").is_file() {
        bail!(
            "--model {model}: the directory holds no config.json{}",
            instead_of_config(&path)
        );
    }
    Ok(Source::Directory(path))
}

/// A directory without `config.json` is often one level off, or a folder of GGUF files.
fn instead_of_config(directory: &Path) -> String {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let model = paths
        .iter()
        .find(|p| has_gguf_extension(p) || p.join("config.json").is_file());
    match model {
        Some(path) => format!("; did you mean {}?", path.display()),
        None => ": give the directory of a checkpoint in Hugging Face or MLX layout".to_string(),
    }
}

fn has_gguf_extension(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Ollama's store, for one, names files by their digests.
fn starts_as_gguf(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = console::files::open(path).map(|mut file| file.read_exact(&mut start));
    matches!(read, Ok(Ok(()))) && &start == MAGIC
}

/// `--model=~/x` reaches us unexpanded: the shell expands a tilde only at the start of a word.
fn expand_home(model: &str) -> PathBuf {
    match (model.strip_prefix('~'), std::env::home_dir()) {
        (Some(""), Some(home)) => home,
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(&rest[1..]),
        _ => PathBuf::from(model),
    }
}

fn looks_like_path(model: &str) -> bool {
    model.starts_with(['.', '/', '~']) || model.ends_with('/') || has_gguf_extension(model.as_ref())
}

/// `owner/name` in the hub's alphabet. Anything else would make a URL of another meaning.
fn repo_id(model: &str) -> Option<RepoId> {
    let (owner, name) = model.split_once('/')?;
    let valid = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty()
            && part.len() <= 96
            && part.chars().all(allowed)
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
            && !part.contains("--")
    };
    (valid(owner) && valid(name)).then(|| RepoId {
        owner: owner.into(),
        name: name.into(),
    })
}

/// `; did you mean X?` with the names nearest to `model` beside it on disk, or nothing.
pub(super) fn did_you_mean(model: &str) -> String {
    let path = expand_home(model.trim_end_matches('/'));
    let Some(wanted) = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
    else {
        return String::new();
    };
    let parent = path.parent().unwrap_or(Path::new(""));
    let listed = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let entries = std::fs::read_dir(listed).into_iter().flatten().flatten();
    let models = entries.filter(|entry| is_model(&entry.path()));
    let beside = models.map(|entry| parent.join(entry.file_name()).display().to_string());
    let near = |name: &String| {
        let last = Path::new(name)
            .file_name()
            .map(|n| n.to_string_lossy().to_lowercase());
        last.map_or(0.0, |last| {
            strsim::normalized_damerau_levenshtein(&last, &wanted)
        })
    };
    let best = beside
        .chain(["tiny".to_string()])
        .max_by(|a, b| near(a).total_cmp(&near(b)));
    match best {
        Some(name) if near(&name) >= 0.6 => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}

fn is_model(path: &Path) -> bool {
    has_gguf_extension(path) || path.join("config.json").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_id_is_owner_slash_name_and_nothing_else() {
        for id in [
            "mlx-community/Mistral-7B-v0.1-4bit-MLX",
            "a/b",
            "Qwen/Qwen2.5-0.5B_x",
        ] {
            assert!(repo_id(id).is_some(), "{id}");
        }
        for no in [
            "a", "a/b/c", "/b", "a/", "a/..", "a/b?x", "a/b c", "-a/b", "a--b/c", "ä/b",
        ] {
            assert!(repo_id(no).is_none(), "{no}");
        }
    }

    #[test]
    fn a_tilde_means_the_home_directory() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(expand_home("~/models/x"), home.join("models/x"));
        assert_eq!(expand_home("~"), home);
        assert_eq!(expand_home("~other/x"), PathBuf::from("~other/x"));
    }

    #[test]
    fn a_device_is_not_called_a_directory() {
        let message = parse("/dev/zero").unwrap_err().to_string();
        assert!(message.contains("/dev/zero is a device"), "{message}");
    }

    #[test]
    fn a_near_miss_of_tiny_is_pointed_out() {
        let message = parse("tinny").unwrap_err().to_string();
        assert!(message.contains("did you mean tiny?"), "{message}");
        assert!(message.contains("owner/name"), "{message}");
    }
}
