//! `.mlx/setup.json`: what a finished `cargo setup` left behind. It is written last.

use std::fs;

use anyhow::Result;
use clap::ValueEnum;
use console::files;
use console::workspace::Workspace;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::receipt::{Facts, Receipt};
use super::{Args, blas, cuda, mlx_sys};

const NAME: &str = "setup.json";

/// What this run shall bring about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Absolute: libmlxc.so and `.mlx/cargo.toml` have it inside.
    workspace: String,
    mlx_sys: String,
    pub(crate) cuda: bool,
    blas: String,
}

impl Wanted {
    pub(crate) fn new(workspace: &Workspace, args: &Args) -> Result<Self> {
        Ok(Self {
            workspace: workspace.root().display().to_string(),
            mlx_sys: mlx_sys::locked_version(workspace)?,
            cuda: args.cuda,
            blas: blas_name(args.blas),
        })
    }

    /// Key of the folder `.mlx/mlx`, for this version of MLX.
    pub(crate) fn mlx_key(&self, mlx: &str) -> String {
        format!("mlx-cpu {mlx}, BLAS {}, recipe {}", self.blas, recipe())
    }

    pub(crate) fn mlxc_key(&self, mlx: &str) -> String {
        format!(
            "mlx-sys {}, MLX {mlx}, in {}, recipe {}",
            self.mlx_sys,
            self.workspace,
            recipe()
        )
    }

    pub(crate) fn cuda_key(&self, mlx: &str) -> String {
        format!("mlx-cuda {mlx}, BLAS {}", self.blas)
    }
}

fn blas_name(choice: blas::Choice) -> String {
    choice
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Changes when the sources do that are compiled into `.mlx`.
fn recipe() -> String {
    let sources = [
        include_str!("native/prelude.hpp"),
        include_str!("native/platform.c"),
        include_str!("native/bindings.h"),
        include_str!("native/blas.c"),
    ];
    let hash = Sha256::digest(sources.concat());
    hash.iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stamp {
    wanted: Wanted,
    mlx: String,
    /// Which BLAS, from where, by which compiler.
    facts: Facts,
}

impl Stamp {
    pub(crate) fn new(wanted: Wanted, mlx: &str, facts: Facts) -> Self {
        Self {
            wanted,
            mlx: mlx.to_owned(),
            facts,
        }
    }

    pub(crate) fn write(&self, workspace: &Workspace) -> Result<()> {
        files::replace(&workspace.mlx(NAME), &serde_json::to_vec_pretty(self)?)
    }

    /// From here on `.mlx` counts as unfinished.
    pub(crate) fn remove(workspace: &Workspace) {
        let _ = fs::remove_file(workspace.mlx(NAME));
    }

    /// The stamp, if it is what `wanted` asks for and all it vouches for is as it was.
    /// Without one there is no reason to tell; otherwise the error says what is different.
    pub(crate) fn check(workspace: &Workspace, wanted: &Wanted) -> Result<Self, Option<String>> {
        let text = fs::read(workspace.mlx(NAME)).map_err(|_| None)?;
        let stamp: Self = serde_json::from_slice(&text)
            .map_err(|_| Some(format!(".mlx/{NAME} is not readable")))?;
        stamp.differs(workspace, wanted).map_err(Some)?;
        Ok(stamp)
    }

    fn differs(&self, workspace: &Workspace, wanted: &Wanted) -> Result<(), String> {
        let had = &self.wanted;
        if had.workspace != wanted.workspace {
            return Err(format!("this was set up in {}", had.workspace));
        }
        if had.mlx_sys != wanted.mlx_sys {
            return Err(format!("this was set up for mlx-sys {}", had.mlx_sys));
        }
        if had.blas != wanted.blas {
            return Err(format!("this was set up with `--blas {}`", had.blas));
        }
        if (had.cuda, cuda::is_on(workspace)) != (wanted.cuda, wanted.cuda) {
            return Err(format!(
                "switching MLX to {}",
                if wanted.cuda { "CUDA" } else { "the CPU" }
            ));
        }
        Receipt::check(&workspace.mlx("mlx"), &wanted.mlx_key(&self.mlx))?;
        Receipt::check(&workspace.mlx("mlxc"), &wanted.mlxc_key(&self.mlx))?;
        if wanted.cuda {
            Receipt::check(&workspace.mlx("cuda"), &wanted.cuda_key(&self.mlx))?;
        }
        Ok(())
    }

    /// `MLX 0.32.2 (CPU, BLIS) is ready`.
    pub(crate) fn summary(&self) -> String {
        let fact = |name| self.facts.get(name).map_or("?", String::as_str);
        match self.wanted.cuda {
            true => format!("MLX {} (CUDA {}) is ready", self.mlx, fact("cuda")),
            false => format!("MLX {} (CPU, {}) is ready", self.mlx, fact("blas")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::setup::receipt;

    const LOCK: &str = "[[package]]\nname = \"mlx-sys\"\nversion = \"0.7.0\"\n";
    const ARGS: Args = Args {
        cuda: false,
        blas: blas::Choice::Auto,
    };

    /// A workspace as setup leaves it, with small files for libraries.
    fn set_up(root: &Path) -> (Workspace, Wanted) {
        fs::write(root.join("Cargo.lock"), LOCK).unwrap();
        let workspace = Workspace::at(root);
        let wanted = Wanted::new(&workspace, &ARGS).unwrap();
        let files = [
            ("mlx", "libmlx.so", wanted.mlx_key("1")),
            ("mlxc", "libmlxc.so", wanted.mlxc_key("1")),
        ];
        for (folder, library, key) in files {
            receipt::make(&workspace, folder, &key, |new| {
                fs::write(new.join(library), "machine code")?;
                fs::write(new.join("libblas-1.so"), "fast")?;
                Ok(Facts::new())
            })
            .unwrap();
        }
        let facts = Facts::from([("blas".into(), "BLIS".into())]);
        Stamp::new(wanted.clone(), "1", facts)
            .write(&workspace)
            .unwrap();
        (workspace, wanted)
    }

    fn reason(workspace: &Workspace, wanted: &Wanted) -> String {
        Stamp::check(workspace, wanted)
            .unwrap_err()
            .unwrap_or_default()
    }

    #[test]
    fn what_is_whole_is_ready() {
        let place = tempfile::tempdir().unwrap();
        let (workspace, wanted) = set_up(place.path());
        let stamp = Stamp::check(&workspace, &wanted).unwrap();
        assert_eq!(stamp.summary(), "MLX 1 (CPU, BLIS) is ready");
    }

    #[test]
    fn each_kind_of_damage_is_noticed() {
        type Damage = fn(&Workspace);
        let damages: [(&str, Damage); 6] = [
            ("libmlx.so is missing", |at| {
                fs::remove_file(at.mlx("mlx/libmlx.so")).unwrap()
            }),
            ("libmlx.so has changed", |at| {
                fs::write(at.mlx("mlx/libmlx.so"), "mac").unwrap()
            }),
            ("libblas-1.so has changed", |at| {
                fs::write(at.mlx("mlx/libblas-1.so"), "slow").unwrap()
            }),
            ("mlxc is not finished", |at| {
                fs::remove_dir_all(at.mlx("mlxc")).unwrap()
            }),
            ("setup.json is not readable", |at| {
                fs::write(at.mlx(NAME), "{").unwrap()
            }),
            ("switching MLX to the CPU", |at| {
                fs::create_dir(at.mlx("cuda")).unwrap()
            }),
        ];
        for (expected, damage) in damages {
            let place = tempfile::tempdir().unwrap();
            let (workspace, wanted) = set_up(place.path());
            damage(&workspace);
            let told = reason(&workspace, &wanted);
            assert!(told.contains(expected), "{expected}: {told}");
        }
    }

    #[test]
    fn a_moved_checkout_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let old = place.path().join("old");
        fs::create_dir(&old).unwrap();
        set_up(&old);
        let new = place.path().join("new");
        fs::rename(&old, &new).unwrap();
        let workspace = Workspace::at(&new);
        let wanted = Wanted::new(&workspace, &ARGS).unwrap();
        assert!(reason(&workspace, &wanted).ends_with("/old"));
    }

    #[test]
    fn other_wishes_are_noticed() {
        let place = tempfile::tempdir().unwrap();
        let (workspace, wanted) = set_up(place.path());
        let cuda = Wanted {
            cuda: true,
            ..wanted.clone()
        };
        assert_eq!(reason(&workspace, &cuda), "switching MLX to CUDA");
        let blas = Wanted {
            blas: "openblas".into(),
            ..wanted.clone()
        };
        assert_eq!(
            reason(&workspace, &blas),
            "this was set up with `--blas auto`"
        );
        let newer = Wanted {
            mlx_sys: "0.8.0".into(),
            ..wanted
        };
        assert_eq!(
            reason(&workspace, &newer),
            "this was set up for mlx-sys 0.7.0"
        );
    }
}
