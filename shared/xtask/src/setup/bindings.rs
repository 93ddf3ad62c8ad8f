//! `bindings.rs`, which mlx-sys includes: Rust declarations of mlx-c's functions.
//!
//! bindgen loads libclang when it is first used and looks for it in an environment variable, so
//! the work is done by a second process: this program again, with a hidden subcommand.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use console::exec;
use console::progress::Step;

use super::compiler;
use crate::{files, pip};

const LIBCLANG: &str = "libclang==18.1.1";

/// Write Rust bindings of mlx-c (for `setup`).
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Root of mlx-c, inside the mlx-sys crate.
    mlx_c: PathBuf,
    /// The file to write.
    output: PathBuf,
    /// A header to read before mlx-c's.
    #[arg(long)]
    prelude: PathBuf,
    /// Where the compiler's own headers are.
    #[arg(long)]
    include: Option<PathBuf>,
}

/// Writes the bindings with the libclang that bindgen finds.
///
/// # Errors
/// If mlx-sys's settings or headers cannot be read, or libclang cannot parse them. bindgen panics
/// where there is no libclang, which `make` takes for a failure like any other.
pub fn run(args: Args) -> Result<()> {
    let config = args.mlx_c.with_file_name("bindgen_config.rs");
    let settings =
        fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    let mut builder = bindgen::Builder::default()
        .clang_args([format!("-I{}", args.mlx_c.display()), "-include".into()])
        .clang_arg(args.prelude.display().to_string())
        .clang_args(args.include.map(|path| format!("-I{}", path.display())))
        // mlx-rs wants the bits of a float16_t behind `.0`, as bindgen writes it on a Mac.
        .blocklist_type("float16_t")
        .raw_line("#[repr(C)]")
        .raw_line("#[derive(Debug, Default, Copy, Clone)]")
        .raw_line("pub struct float16_t(pub u16);");
    for target in arguments(&settings, "rust_target(") {
        builder = builder.rust_target(target.parse().context("mlx-sys's rust_target")?);
    }
    for name in arguments(&settings, "blocklist_function(") {
        builder = builder.blocklist_function(name);
    }
    for header in headers(&args.mlx_c)? {
        builder = builder.header(header.display().to_string());
    }
    let bindings = builder.generate().context("bindgen failed")?;
    bindings
        .write_to_file(&args.output)
        .context("cannot write the bindings")
}

/// The text in quotes behind each `call` of mlx-sys's own settings, which are Rust source.
fn arguments<'a>(settings: &'a str, call: &'a str) -> impl Iterator<Item = &'a str> {
    settings
        .split(call)
        .skip(1)
        .filter_map(|rest| rest.strip_prefix('"')?.split('"').next())
}

fn headers(mlx_c: &Path) -> Result<Vec<PathBuf>> {
    let folder = mlx_c.join("mlx/c");
    let files =
        files::walk(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let top = |file: &PathBuf| {
        file.extension() == Some(OsStr::new("h")) && file.components().count() == 1
    };
    Ok(files
        .into_iter()
        .filter(top)
        .map(|file| folder.join(file))
        .collect())
}

/// Writes `folder/bindings.rs` with this machine's libclang, else with the one that PyPI has.
pub(crate) fn make(mlx_c: &Path, folder: &Path, downloads: &Path, step: &Step) -> Result<()> {
    let prelude = downloads.join("bindings.h");
    console::files::replace(&prelude, include_bytes!("native/bindings.h"))?;
    let output = folder.join("bindings.rs");
    if again(mlx_c, &output, &prelude, None).is_ok() {
        return Ok(());
    }
    let wheel = pip::unpack_wheel(LIBCLANG, None, downloads, step)?;
    let library = files::walk(&wheel)?
        .into_iter()
        .find(|file| file.file_name() == Some(OsStr::new("libclang.so")))
        .with_context(|| format!("{LIBCLANG} has no libclang.so"))?;
    step.now("reading the headers of mlx-c");
    step.says("Bindings of mlx-c, by PyPI's libclang");
    again(mlx_c, &output, &prelude, wheel.join(library).parent()).context("cannot make bindings.rs")
}

/// This program once more, as the hidden subcommand.
fn again(mlx_c: &Path, output: &Path, prelude: &Path, libclang: Option<&Path>) -> Result<()> {
    let program = env::current_exe().context("cannot find this program itself")?;
    let mut command = Command::new(program);
    command
        .arg("bindings")
        .args([mlx_c, output])
        .arg("--prelude")
        .arg(prelude);
    if let Some(folder) = libclang {
        // The wheel has the library alone; its standard headers are the compiler's.
        let include =
            exec::stdout(Command::new(compiler::c()?.path()).arg("-print-file-name=include"))?;
        command
            .env("LIBCLANG_PATH", folder)
            .arg("--include")
            .arg(include);
    }
    exec::stdout(&mut command)?;
    let text = fs::read_to_string(output).context("no bindings were written")?;
    for name in [
        "fn mlx_array_new",
        "struct float16_t",
        "fn mlx_array_data_bfloat16",
    ] {
        ensure!(text.contains(name), "the bindings lack `{name}`");
    }
    if text.contains("fn malloc(") {
        bail!("the bindings redefine malloc");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_those_of_mlx_sys() {
        let settings = "builder.rust_target(\"1.73.0\".parse().expect(\"rust-version\"))\n\
                        .blocklist_function(\"malloc\")\n.blocklist_function(\"realloc\"),";
        let all = |call| arguments(settings, call).collect::<Vec<_>>();
        assert_eq!(all("rust_target("), ["1.73.0"]);
        assert_eq!(all("blocklist_function("), ["malloc", "realloc"]);
        assert!(all("blocklist_type(").is_empty());
    }
}
