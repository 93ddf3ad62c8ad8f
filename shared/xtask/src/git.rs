//! git, told apart from the repository that a hook may have named in the environment.

use std::path::Path;
use std::process::Command;

/// A git that works in `folder`.
pub(crate) fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder);
    for variable in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_COMMON_DIR",
        "GIT_PREFIX",
    ] {
        command.env_remove(variable);
    }
    command
}

/// The same without anybody's settings, for a folder that this program made: what a README keeps
/// must not depend on who wrote it.
pub(crate) fn plain_git(folder: &Path) -> Command {
    let mut command = git(folder);
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", folder.join(".git").join("no-settings"))
        .env("LC_ALL", "C");
    for variable in [
        "GIT_EXTERNAL_DIFF",
        "GIT_DIFF_OPTS",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_PARAMETERS",
    ] {
        command.env_remove(variable);
    }
    command
}
