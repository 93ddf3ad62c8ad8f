//! The mlx-sys crate that Cargo.lock pins: it carries the sources of mlx-c, and says which MLX
//! they were written for.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use console::exec;
use console::workspace::Workspace;

/// Where the crate's sources are, and what they ask for.
pub(crate) struct MlxSys {
    pub(crate) version: String,
    /// Root of mlx-c: `mlx/c/*.{h,cpp}` lie below it.
    pub(crate) mlx_c: PathBuf,
    /// The version of MLX, such as `0.32.2`.
    pub(crate) mlx: String,
    pub(crate) sources: Vec<PathBuf>,
}

impl MlxSys {
    /// Asks Cargo, which downloads the crate if need be.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        let version = locked_version(workspace)?;
        let manifest = manifest_path(workspace, &version)?;
        let mlx_c = manifest.with_file_name("src").join("mlx-c");
        let list = mlx_c.join("CMakeLists.txt");
        let cmake =
            fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        let mlx = mlx_version(&cmake)
            .with_context(|| format!("no GIT_TAG with MLX's version in {}", list.display()))?;
        let sources = sources(&cmake).map(|file| mlx_c.join(file)).collect();
        Ok(Self {
            version,
            mlx: mlx.to_owned(),
            sources,
            mlx_c,
        })
    }
}

/// The version of mlx-sys in Cargo.lock: read as text, since asking Cargo takes longer than all
/// else that a second `cargo setup` does.
pub(crate) fn locked_version(workspace: &Workspace) -> Result<String> {
    let path = workspace.root().join("Cargo.lock");
    let lock =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let version = version_in(&lock);
    Ok(version
        .with_context(|| format!("no mlx-sys in {}", path.display()))?
        .to_owned())
}

fn version_in(lock: &str) -> Option<&str> {
    let entry = lock
        .split("[[package]]")
        .find(|entry| entry.contains("name = \"mlx-sys\"\n"))?;
    entry.split_once("version = \"")?.1.split('"').next()
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

fn manifest_path(workspace: &Workspace, version: &str) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let json = exec::stdout(
        Command::new(cargo)
            .current_dir(workspace.root())
            .args([
                "metadata",
                "--format-version=1",
                "--locked",
                "--filter-platform",
            ])
            .arg(super::system::triple()),
    )
    .context("cargo could not fetch the crates; check the network and run it again")?;
    let metadata: Metadata = serde_json::from_str(&json).context("cannot read cargo's metadata")?;
    let mut packages = metadata.packages.into_iter();
    let package = packages.find(|one| one.name == "mlx-sys" && one.version == version);
    Ok(package
        .context("cargo's metadata has no mlx-sys")?
        .manifest_path)
}

/// `v0.32.2` behind `GIT_TAG`, without the `v`.
fn mlx_version(cmake: &str) -> Option<&str> {
    let tag = cmake
        .lines()
        .find_map(|line| line.trim().strip_prefix("GIT_TAG"))?
        .trim();
    let version = tag.strip_prefix('v')?.trim_end_matches(')');
    version
        .starts_with(|first: char| first.is_ascii_digit())
        .then_some(version)
}

/// The files that CMake would compile, relative to the list; commented ones are left out.
fn sources(cmake: &str) -> impl Iterator<Item = &Path> {
    cmake.lines().filter_map(|line| {
        let file = line.trim().strip_prefix("${CMAKE_CURRENT_LIST_DIR}/")?;
        let file = file.trim_end_matches(')');
        file.ends_with(".cpp").then(|| Path::new(file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CMAKE: &str = "
set(mlxc-src
    ${CMAKE_CURRENT_LIST_DIR}/mlx/c/array.cpp
    # ${CMAKE_CURRENT_LIST_DIR}/mlx/c/object.cpp
    ${CMAKE_CURRENT_LIST_DIR}/mlx/c/version.cpp)
  FetchContent_Declare(
    mlx
    GIT_REPOSITORY \"https://github.com/ml-explore/mlx.git\"
    GIT_TAG v0.32.2)
";

    #[test]
    fn the_version_of_mlx_is_the_tag_of_its_repository() {
        assert_eq!(mlx_version(CMAKE), Some("0.32.2"));
        assert_eq!(mlx_version("GIT_TAG v1.0.0\n"), Some("1.0.0"));
        assert_eq!(mlx_version("GIT_TAG main)"), None, "a branch is no version");
        assert_eq!(mlx_version("project(mlx.data)"), None);
    }

    #[test]
    fn only_sources_that_cmake_compiles_are_listed() {
        let found: Vec<_> = sources(CMAKE).collect();
        assert_eq!(
            found,
            [Path::new("mlx/c/array.cpp"), Path::new("mlx/c/version.cpp")]
        );
    }

    #[test]
    fn the_locked_version_is_that_of_the_crate_itself() {
        let lock = "[[package]]\nname = \"mlx-rs\"\nversion = \"0.33.0\"\ndependencies = [\n \
                    \"mlx-sys\",\n]\n\n[[package]]\nname = \"mlx-sys\"\nversion = \"0.7.0\"\n";
        assert_eq!(version_in(lock), Some("0.7.0"));
        assert_eq!(
            version_in("[[package]]\nname = \"mlx-rs\"\nversion = \"1\"\n"),
            None
        );
    }
}
