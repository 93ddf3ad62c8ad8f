//! `.mlx/cargo.toml`, which `.cargo/config.toml` includes: where Cargo finds MLX.

use std::path::Path;

use anyhow::Result;
use console::files;
use console::workspace::Workspace;

use super::system;

/// Writes the file, or leaves it alone if it says the same already.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let text = render(
        &workspace.mlx("mlxc"),
        &system::triple(),
        system::physical_cores(),
    );
    files::replace_if_changed(&workspace.mlx("cargo.toml"), &text)
}

/// The table named after `links = "mlx"` stands in for mlx-sys's build script: Cargo neither
/// builds nor runs it, and the crate itself stays as published. There are no compiler flags in
/// here on purpose: they would make Cargo build every crate again, this program included.
fn render(mlxc: &Path, triple: &str, threads: usize) -> String {
    let native = quoted(&format!("native={}", mlxc.display()));
    let out_dir = quoted(&mlxc.display().to_string());
    format!(
        "# Written by `cargo setup`, which writes it again at each run.\n\
         [target.{triple}.mlx]\n\
         rustc-link-search = [{native}]\n\
         rustc-link-lib = [\"dylib=mlxc\"]\n\
         rustc-env = {{ OUT_DIR = {out_dir} }}\n\
         \n\
         [env]\n\
         # Threads of the BLAS: one for each core. Set it yourself and yours counts.\n\
         OMP_NUM_THREADS = {{ value = \"{threads}\", force = false }}\n\
         # Asleep, not in a busy loop: the cores are MLX's own, too.\n\
         OMP_WAIT_POLICY = {{ value = \"passive\", force = false }}\n"
    )
}

/// A basic string of TOML is written as one of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_where_mlx_is() {
        let mlxc = Path::new("/home/a \"b\"/.mlx/mlxc");
        insta::assert_snapshot!(render(mlxc, "aarch64-unknown-linux-gnu", 8), @r#"
        # Written by `cargo setup`, which writes it again at each run.
        [target.aarch64-unknown-linux-gnu.mlx]
        rustc-link-search = ["native=/home/a \"b\"/.mlx/mlxc"]
        rustc-link-lib = ["dylib=mlxc"]
        rustc-env = { OUT_DIR = "/home/a \"b\"/.mlx/mlxc" }

        [env]
        # Threads of the BLAS: one for each core. Set it yourself and yours counts.
        OMP_NUM_THREADS = { value = "8", force = false }
        # Asleep, not in a busy loop: the cores are MLX's own, too.
        OMP_WAIT_POLICY = { value = "passive", force = false }
        "#);
    }
}
