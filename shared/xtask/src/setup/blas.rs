//! The library that multiplies matrices on the CPU.
//!
//! MLX's wheel brings the reference BLAS: right, but plain loops, some 18 times slower at reading
//! a prompt than one written for the processor. MLX finds it by the name of its file, so a small
//! library takes that name, `native/blas.c`, which loads a faster one, and nothing else has to know.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use console::exec;
use console::progress::Step;

use super::compiler;
use super::receipt::Facts;
use super::system::{self, Need};
use crate::{files, pip};

/// BLIS is the first choice: at one token at a time it is 1.7 times faster than OpenBLAS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// BLIS where it is installed or the distribution's archive has it, else OpenBLAS
    Auto,
    /// BLIS, installed or unpacked from the distribution's archive
    Blis,
    /// OpenBLAS from PyPI
    Openblas,
    /// The slow one that comes with MLX
    Reference,
}

const OPENBLAS: &str = "scipy-openblas32==0.3.34.481.3";
const REFERENCE: &str = "libblas-reference.so";
const BLIS: &str = "libblis.so";
const DEBIAN_PACKAGE: &str = "libblis4-openmp";

/// Puts the chosen BLAS into `libs`, the wheel's folder of libraries, and says what it is.
pub(crate) fn install(choice: Choice, libs: &Path, downloads: &Path, step: &Step) -> Result<Facts> {
    let slot = slot(libs)?;
    if choice == Choice::Reference {
        return Ok(facts("reference BLAS", "MLX's wheel"));
    }
    fs::rename(&slot, libs.join(REFERENCE))
        .with_context(|| format!("cannot move {} away", slot.display()))?;
    let mut reasons = Vec::new();
    for source in sources(choice) {
        match source(&slot, downloads, step) {
            Ok(facts) => return Ok(facts),
            Err(reason) => reasons.push(format!("{reason:#}")),
        }
    }
    bail!(
        "no fast BLAS ({}): {}, or do without: `cargo setup --blas reference`",
        reasons.join("; "),
        system::install_hint(Need::Blas)
    )
}

type Source = fn(&Path, &Path, &Step) -> Result<Facts>;

fn sources(choice: Choice) -> &'static [Source] {
    match choice {
        Choice::Auto => &[installed_blis, packaged_blis, openblas],
        Choice::Blis => &[installed_blis, packaged_blis],
        Choice::Openblas => &[openblas],
        Choice::Reference => &[],
    }
}

fn facts(name: &str, origin: &str) -> Facts {
    [("blas", name), ("blas_from", origin)]
        .map(|(key, text)| (key.into(), text.into()))
        .into()
}

/// The file that MLX loads as its BLAS. Its name has a hash in it, which differs by processor.
fn slot(libs: &Path) -> Result<PathBuf> {
    let mut names = files::walk(libs).unwrap_or_default().into_iter();
    let name = names.find(|name| {
        let name = name.to_string_lossy();
        name.starts_with("libblas") && name != REFERENCE
    });
    Ok(libs.join(name.with_context(|| format!("no libblas in {}", libs.display()))?))
}

/// The CUDA build has a folder of the same libraries: the same BLAS goes there, if the names say
/// that both builds want the same one.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let name = slot(from)?;
    if slot(to)?.file_name() != name.file_name() {
        return Ok(());
    }
    for file in files::walk(from)? {
        let text = file.to_string_lossy();
        if ["libblas", "libblis", "libscipy"]
            .iter()
            .any(|name| text.starts_with(name))
        {
            fs::copy(from.join(&file), to.join(&file))
                .with_context(|| format!("cannot copy {}", file.display()))?;
        }
    }
    Ok(())
}

fn installed_blis(slot: &Path, downloads: &Path, step: &Step) -> Result<Facts> {
    step.now("BLIS on this machine");
    for library in installed() {
        if blis(&library, slot, downloads).is_ok() {
            return Ok(facts("BLIS", &library.display().to_string()));
        }
    }
    bail!("BLIS is not installed")
}

fn blis(library: &Path, slot: &Path, downloads: &Path) -> Result<()> {
    fs::copy(library, libs(slot).join(BLIS))?;
    forward(slot, downloads, BLIS, "")?;
    works(slot)
}

/// The wheel's folder of libraries.
fn libs(slot: &Path) -> &Path {
    slot.parent().unwrap_or(slot)
}

/// Debian's copies that stand in for `libblas.so.3` have everything in one file; elsewhere the
/// loader's cache knows the library. Those with 64-bit sizes (`libblis64…`) speak another language.
fn installed() -> Vec<PathBuf> {
    let debian = ["openmp", "pthread"].map(|kind| {
        PathBuf::from(format!(
            "/usr/lib/{ARCH}-linux-gnu/blis-{kind}/libblas.so.3"
        ))
    });
    let cache = ["ldconfig", "/sbin/ldconfig"]
        .iter()
        .find_map(|name| exec::stdout(Command::new(name).arg("-p")).ok())
        .unwrap_or_default();
    let cached = cache
        .lines()
        .filter(|line| line.trim().starts_with("libblis"));
    let cached = cached.filter(|line| !line.contains("libblis64") && !line.contains("64_"));
    let cached = cached
        .filter_map(|line| line.split(" => ").nth(1))
        .map(PathBuf::from);
    debian
        .into_iter()
        .chain(cached)
        .filter(|path| path.is_file())
        .collect()
}

/// Debian and Ubuntu give out packages without installing them, which needs no root.
fn packaged_blis(slot: &Path, downloads: &Path, step: &Step) -> Result<Facts> {
    step.now(format!("{DEBIAN_PACKAGE} from the distribution"));
    let folder = downloads.join("apt");
    fs::create_dir_all(&folder)?;
    apt_download(&folder).context("BLIS is not in the distribution's archive")?;
    let package = files::walk(&folder)?
        .into_iter()
        .find(|file| file.extension().is_some_and(|kind| kind == "deb"))
        .context("apt-get downloaded no package")?;
    let unpacked = folder.join("unpacked");
    exec::stdout(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(folder.join(package))
            .arg(&unpacked),
    )?;
    let library = files::walk(&unpacked)?
        .into_iter()
        .find(|file| file.ends_with("blis-openmp/libblas.so.3"))
        .context("the package has no libblas.so.3")?;
    blis(&unpacked.join(library), slot, downloads).context("BLIS does not work here")?;
    Ok(facts("BLIS", &format!("{DEBIAN_PACKAGE}, unpacked")))
}

/// A fresh container has no package lists, and only root may fetch them where they belong: then
/// they are fetched to a folder of our own.
fn apt_download(folder: &Path) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(folder).arg("--quiet=2").args(arguments);
        exec::stdout(&mut command)
    };
    let download = ["download", DEBIAN_PACKAGE];
    if apt(&download).is_ok() {
        return Ok(());
    }
    let (lists, cache) = (folder.join("lists"), folder.join("cache"));
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(cache.join("archives/partial"))?;
    let lists = format!("Dir::State::Lists={}", lists.display());
    let cache = format!("Dir::Cache={}", cache.display());
    let private = ["-o", &lists, "-o", &cache, "-o", "APT::Sandbox::User=root"];
    apt(&[&private[..], &["-o", "Acquire::Retries=1", "update"]].concat())?;
    apt(&[&private[..], &download].concat()).map(drop)
}

fn openblas(slot: &Path, downloads: &Path, step: &Step) -> Result<Facts> {
    let wheel = pip::unpack_wheel(OPENBLAS, None, downloads, step)?;
    for file in files::walk(&wheel)? {
        let name = file.file_name().unwrap_or_default();
        if name.to_string_lossy().contains(".so") {
            fs::copy(wheel.join(&file), libs(slot).join(name))?;
        }
    }
    forward(slot, downloads, "libscipy_openblas.so", "scipy_")?;
    works(slot).context("OpenBLAS does not work here")?;
    Ok(facts("OpenBLAS", OPENBLAS))
}

/// Compiles the forwarders to a library beside the slot, whose names begin with `prefix`. They need
/// the reference BLAS by its new name, but a linker takes the name a library bears inside, which is
/// still the old one: an empty library lends the new name.
fn forward(slot: &Path, folder: &Path, library: &str, prefix: &str) -> Result<()> {
    let (source, empty) = (folder.join("blas.c"), folder.join("empty.c"));
    console::files::replace(&source, include_bytes!("native/blas.c"))?;
    console::files::replace(&empty, b"extern int nothing;\n")?;
    let tool = compiler::c()?;
    let reference = folder.join(REFERENCE);
    compiler::link(&tool, &reference, [&*empty], &["-soname", REFERENCE])?;
    let cores = system::physical_cores().to_string();
    let texts = [("LIBRARY", library), ("PREFIX", prefix), ("CORES", &cores)];
    let name = slot.file_name().unwrap_or_default().to_string_lossy();
    let flags = ["-soname", &name, "-rpath", "$ORIGIN"];
    let mut command = tool.to_command();
    command
        .arg("-shared")
        .args(texts.map(|(name, text)| format!("-D{name}=\"{text}\"")))
        .arg(source)
        // Or the linker drops a library none of whose symbols is used here.
        .args(["-Wl,--no-as-needed".as_ref(), reference.as_os_str()])
        .args(["-Wl,--as-needed", "-ldl"])
        .args(flags.iter().flat_map(|flag| ["-Xlinker", flag]))
        .arg("-o")
        .arg(slot);
    exec::stdout(&mut command)
        .map(drop)
        .with_context(|| format!("cannot link the forwarders to {library}"))
}

/// Loads the library in a process of its own and multiplies two small matrices with it: a file
/// that lacks a symbol, a neighbour or the right instructions must not become MLX's.
fn works(library: &Path) -> Result<()> {
    let script = "import ctypes, os, sys\n\
        blas = ctypes.CDLL(sys.argv[1], os.RTLD_NOW)\n\
        for name in ('cblas_dgemm', 'cblas_cgemm', 'dgemm_', 'dtrsm_', 'cgemm_'):\n\
        \x20   getattr(blas, name)\n\
        one, zero = ctypes.c_float(1), ctypes.c_float(0)\n\
        a, c = (ctypes.c_float * 4)(1, 2, 3, 4), (ctypes.c_float * 4)()\n\
        blas.cblas_sgemm(101, 111, 111, 2, 2, 2, one, a, 2, a, 2, zero, c, 2)\n\
        assert list(c) == [7, 10, 15, 22], 'AssertionError: wrong product'\n";
    exec::stdout(Command::new("python3").args(["-c", script]).arg(library)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wheels_blas_is_found_by_its_name() {
        let place = tempfile::tempdir().unwrap();
        let error = slot(place.path()).unwrap_err().to_string();
        assert!(error.starts_with("no libblas in "), "{error}");
        for name in [
            REFERENCE,
            "libblas-bd8a282c.so.3.10.0",
            "liblapack-86b2c207.so.3.10.0",
        ] {
            fs::write(place.path().join(name), name).unwrap();
        }
        assert!(
            slot(place.path())
                .unwrap()
                .ends_with("libblas-bd8a282c.so.3.10.0")
        );
    }

    #[test]
    fn the_cuda_build_gets_all_that_the_fast_blas_consists_of() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("cpu"), place.path().join("cuda"));
        let slot = "libblas-bd8a282c.so.3.10.0";
        for (folder, names) in [(&from, &[slot, REFERENCE, BLIS][..]), (&to, &[slot])] {
            fs::create_dir(folder).unwrap();
            for name in names {
                fs::write(folder.join(name), folder.to_str().unwrap()).unwrap();
            }
        }
        copy(&from, &to).unwrap();
        for name in [slot, REFERENCE, BLIS] {
            assert_eq!(
                fs::read_to_string(to.join(name)).unwrap(),
                from.to_str().unwrap()
            );
        }
    }

    #[test]
    fn a_library_that_is_no_blas_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let text = place.path().join("libblas-1.so");
        fs::write(&text, "not a library").unwrap();
        assert!(works(&text).is_err());
        assert!(
            works(Path::new("libm.so.6")).is_err(),
            "libm loads, but multiplies no matrices"
        );
    }

    /// Prints what a library that was loaded through the slot, as OpenMP is, finds in its environment.
    #[cfg(target_os = "linux")]
    const FAST: &str = r#"
        #include <stdio.h>
        #include <stdlib.h>
        void fast_cblas_sgemm(void) {}
        void fast_cblas_dgemm(void) {}
        void fast_cblas_cgemm(void) {}
        __attribute__((constructor)) static void look(void) { puts(getenv("OMP_WAIT_POLICY")); }
    "#;

    #[cfg(target_os = "linux")]
    fn start_with(slot: &Path, policy: Option<&str>) -> std::process::Output {
        let script = "import ctypes, sys; ctypes.CDLL(sys.argv[1])";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(slot);
        command.env_remove("OMP_WAIT_POLICY");
        command.envs(policy.map(|policy| ("OMP_WAIT_POLICY", policy)));
        command.output().unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_program_that_is_started_directly_waits_asleep_unless_the_user_says_otherwise() {
        let place = tempfile::tempdir().unwrap();
        let slot = place.path().join("libblas-1.so.3");
        let (source, reference) = (place.path().join("fast.c"), place.path().join(REFERENCE));
        fs::write(&source, FAST).unwrap();
        let tool = compiler::c().unwrap();
        compiler::link(&tool, &place.path().join("libfast.so"), [&*source], &[]).unwrap();
        forward(&slot, place.path(), "libfast.so", "fast_").unwrap();
        assert!(reference.exists());
        for (users, expected) in [(None, "passive\n"), (Some("active"), "active\n")] {
            let stdout = start_with(&slot, users).stdout;
            assert_eq!(String::from_utf8(stdout).unwrap(), expected);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn without_the_fast_library_a_program_ends_with_one_line() {
        let place = tempfile::tempdir().unwrap();
        let slot = place.path().join("libblas-1.so.3");
        forward(&slot, place.path(), "libgone.so", "").unwrap();
        let output = start_with(&slot, None);
        assert_eq!(output.status.code(), Some(1));
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(line.starts_with("error: cannot load the BLAS: "), "{line}");
        assert!(line.ends_with("run `cargo setup` again\n"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}
