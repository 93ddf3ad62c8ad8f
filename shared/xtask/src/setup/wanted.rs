//! What `cargo setup` is to bring about, and whether it is there. Each folder of `.mlx` has a receipt;
//! there is no other record.

use anyhow::Result;
use clap::ValueEnum;
use console::workspace::Workspace;
use sha2::{Digest, Sha256};

use super::receipt::{Facts, Key, Receipt};
use super::{Args, blas, cuda, mlx_sys};

/// What this run shall bring about.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Absolute: libmlxc.so and `.mlx/cargo.toml` have it inside.
    workspace: String,
    mlx_sys: String,
    pub(crate) cuda: bool,
    blas: String,
}

/// What is there, as the last line of `cargo setup` tells it.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) mlx: String,
    pub(crate) cuda: bool,
    /// Which BLAS, from where, by which compiler.
    pub(crate) facts: Facts,
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

    /// What the folder `.mlx/mlx` is made from, for this version of MLX.
    pub(crate) fn mlx_key(&self, mlx: &str) -> Key {
        key([("MLX", mlx), ("BLAS", &self.blas), ("recipe", &recipe())])
    }

    pub(crate) fn mlxc_key(&self, mlx: &str) -> Key {
        key([
            ("mlx-sys", &self.mlx_sys),
            ("MLX", mlx),
            ("workspace", &self.workspace),
            ("recipe", &recipe()),
        ])
    }

    pub(crate) fn cuda_key(&self, mlx: &str) -> Key {
        key([("MLX", mlx), ("BLAS", &self.blas), ("recipe", &recipe())])
    }

    /// What is there, if it is all that is wanted and every file is as it was. Where nothing was made
    /// yet there is no reason to tell; otherwise the error says what is different.
    pub(crate) fn check(&self, workspace: &Workspace) -> Result<Ready, Option<String>> {
        if !workspace.mlx("mlx").exists() {
            return Err(None);
        }
        self.whole(workspace).map_err(Some)
    }

    fn whole(&self, workspace: &Workspace) -> Result<Ready, String> {
        if cuda::is_on(workspace) != self.cuda {
            let to = if self.cuda { "CUDA" } else { "the CPU" };
            return Err(format!("switching MLX to {to}"));
        }
        // Which MLX it has to be, mlx-sys says; that takes longer to ask than what is there.
        let mlx = Receipt::read(&workspace.mlx("mlx"))?.made_from("MLX");
        let mut folders = vec![("mlx", self.mlx_key(&mlx)), ("mlxc", self.mlxc_key(&mlx))];
        folders.extend(self.cuda.then(|| ("cuda", self.cuda_key(&mlx))));
        let mut facts = Facts::new();
        for (folder, key) in folders {
            facts.extend(Receipt::check(&workspace.mlx(folder), &key)?.facts);
        }
        let cuda = self.cuda;
        Ok(Ready { mlx, cuda, facts })
    }
}

impl Ready {
    /// `MLX 0.32.2 (CPU, BLIS) is ready`.
    pub(crate) fn summary(&self) -> String {
        let fact = |name| self.facts.get(name).map_or("?", String::as_str);
        if self.cuda {
            format!("MLX {} (CUDA {}) is ready", self.mlx, fact("cuda"))
        } else {
            format!("MLX {} (CPU, {}) is ready", self.mlx, fact("blas"))
        }
    }
}

fn key<const N: usize>(pairs: [(&str, &str); N]) -> Key {
    let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Key::from(owned)
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

#[cfg(test)]
mod tests {
    use std::fs;
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
                Ok(Facts::from([("blas".into(), "BLIS".into())]))
            })
            .unwrap();
        }
        (workspace, wanted)
    }

    fn reason(workspace: &Workspace, wanted: &Wanted) -> String {
        wanted.check(workspace).unwrap_err().unwrap_or_default()
    }

    #[test]
    fn what_is_whole_is_ready() {
        let place = tempfile::tempdir().unwrap();
        let (workspace, wanted) = set_up(place.path());
        let ready = wanted.check(&workspace).unwrap();
        assert_eq!(ready.summary(), "MLX 1 (CPU, BLIS) is ready");
    }

    #[test]
    fn where_nothing_was_made_there_is_no_reason_to_tell() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("Cargo.lock"), LOCK).unwrap();
        let workspace = Workspace::at(place.path());
        let wanted = Wanted::new(&workspace, &ARGS).unwrap();
        assert_eq!(wanted.check(&workspace).unwrap_err(), None);
    }

    #[test]
    fn each_kind_of_damage_is_noticed() {
        type Damage = fn(&Workspace);
        let damages: [(&str, Damage); 4] = [
            ("libmlx.so has changed", |at| {
                fs::write(at.mlx("mlx/libmlx.so"), "mac").unwrap()
            }),
            ("mlxc is not finished", |at| {
                fs::remove_dir_all(at.mlx("mlxc")).unwrap()
            }),
            ("mlx/receipt.json is not readable", |at| {
                fs::write(at.mlx("mlx/receipt.json"), "{").unwrap()
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
        let (was, is) = (old.display(), new.display());
        let told = format!("is made from workspace {was}, not {is}");
        assert!(reason(&workspace, &wanted).ends_with(&told));
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
        assert!(reason(&workspace, &blas).ends_with("is made from BLAS auto, not openblas"));
        let newer = Wanted {
            mlx_sys: "0.8.0".into(),
            ..wanted
        };
        assert!(reason(&workspace, &newer).ends_with("is made from mlx-sys 0.7.0, not 0.8.0"));
    }
}
