//! The C and C++ compilers of this machine, as the `cc` crate finds them (`CC`, `CXX`, … count).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use cc::{Build, Tool};
use console::exec;

use super::system::{self, Need};

/// For C++20, which MLX's headers need.
pub(crate) fn cpp() -> Result<Tool> {
    found(build().cpp(true).std("c++20"))
}

pub(crate) fn c() -> Result<Tool> {
    found(&mut build())
}

fn build() -> Build {
    let (mut build, triple) = (Build::new(), system::triple());
    // The wrappers only pass on pointers: more optimisation would cost time and win none.
    build
        .target(&triple)
        .host(&triple)
        .opt_level(1)
        .debug(false)
        .pic(true);
    build
        .warnings(false)
        .cargo_metadata(false)
        .cargo_warnings(false);
    build
}

fn found(build: &mut Build) -> Result<Tool> {
    let hint = || {
        format!(
            "a C++ compiler is needed: {}",
            system::install_hint(Need::Compiler)
        )
    };
    let tool = build.try_get_compiler().with_context(hint)?;
    version(&tool).with_context(hint)?;
    Ok(tool)
}

/// The compiler's own first line about itself.
pub(crate) fn version(tool: &Tool) -> Result<String> {
    let text = exec::stdout(Command::new(tool.path()).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Links `inputs` to a shared library; `arguments` go to the linker, one by one.
pub(crate) fn link<'a>(
    tool: &Tool,
    output: &Path,
    inputs: impl IntoIterator<Item = &'a Path>,
    arguments: &[&str],
) -> Result<()> {
    let mut command = tool.to_command();
    command.arg("-shared").args(inputs).arg("-o").arg(output);
    command.args(arguments.iter().flat_map(|argument| ["-Xlinker", argument]));
    exec::stdout(&mut command)
        .map(drop)
        .with_context(|| format!("cannot link {}", output.display()))
}
