//! What kind of Linux this is, and how one installs things there.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Result, ensure};

/// The target of this build, as Cargo's configuration names it.
pub(crate) fn triple() -> String {
    format!("{ARCH}-unknown-linux-gnu")
}

/// MLX has wheels for two processors and one C library.
pub(crate) fn check() -> Result<()> {
    ensure!(
        matches!(ARCH, "x86_64" | "aarch64"),
        "there is no MLX for {ARCH}: it needs x86_64 or aarch64"
    );
    ensure!(
        cfg!(target_env = "gnu"),
        "there is no MLX for musl: use a Rust of target {}",
        triple()
    );
    Ok(())
}

/// What setup may need from the distribution.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    Compiler,
    Pip,
    Blas,
}

/// The command that installs it here, or a sentence where the distribution is not known.
pub(crate) fn install_hint(need: Need) -> String {
    hint(
        need,
        &fs::read_to_string("/etc/os-release").unwrap_or_default(),
    )
}

fn hint(need: Need, os_release: &str) -> String {
    let family = ["debian", "fedora", "rhel", "suse", "arch"]
        .into_iter()
        .find(|family| os_release.lines().any(|line| names(line, family)));
    let command = match (family, need) {
        (Some("debian"), Need::Compiler) => "sudo apt install g++",
        (Some("debian"), Need::Pip) => "sudo apt install python3-pip",
        (Some("debian"), Need::Blas) => "sudo apt install libblis4-openmp",
        (Some("fedora" | "rhel"), Need::Compiler) => "sudo dnf install gcc-c++",
        (Some("fedora" | "rhel"), Need::Pip) => "sudo dnf install python3-pip",
        (Some("fedora" | "rhel"), Need::Blas) => "sudo dnf install blis-openmp",
        (Some("suse"), Need::Compiler) => "sudo zypper install gcc-c++",
        (Some("suse"), Need::Pip) => "sudo zypper install python3-pip",
        (Some("arch"), Need::Compiler) => "sudo pacman -S gcc",
        (Some("arch"), Need::Pip) => "sudo pacman -S python-pip",
        (_, Need::Compiler) => "install GCC 10 or newer, or Clang, with C++",
        (_, Need::Pip) => "install Python 3 and its pip",
        (_, Need::Blas) => "install BLIS with OpenMP",
    };
    command.to_owned()
}

/// Whether a line of os-release says that the system is of this family.
fn names(line: &str, family: &str) -> bool {
    let value = line
        .strip_prefix("ID=")
        .or_else(|| line.strip_prefix("ID_LIKE="));
    value.is_some_and(|value| {
        value
            .trim_matches('"')
            .split(' ')
            .any(|word| word.contains(family))
    })
}

/// Cores that compute: two hardware threads of one core share its multipliers, and a BLAS that
/// starts a thread on each only makes them wait for each other.
pub(crate) fn physical_cores() -> usize {
    let allowed = thread::available_parallelism().map_or(1, usize::from);
    let cores = cores_below(Path::new("/sys/devices/system/cpu"));
    if cores == 0 {
        allowed
    } else {
        cores.min(allowed)
    }
}

fn cores_below(cpus: &Path) -> usize {
    let entries = fs::read_dir(cpus).into_iter().flatten().flatten();
    let siblings = entries.filter_map(|cpu| {
        fs::read_to_string(cpu.path().join("topology/thread_siblings_list")).ok()
    });
    siblings.collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_distribution_gets_its_own_command() {
        let ubuntu = "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n";
        let rocky = "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n";
        assert_eq!(hint(Need::Compiler, ubuntu), "sudo apt install g++");
        assert_eq!(hint(Need::Compiler, "ID=debian\n"), "sudo apt install g++");
        assert_eq!(hint(Need::Pip, rocky), "sudo dnf install python3-pip");
        assert_eq!(
            hint(Need::Pip, "ID=opensuse-leap\n"),
            "sudo zypper install python3-pip"
        );
        assert_eq!(
            hint(Need::Blas, "ID=slackware\n"),
            "install BLIS with OpenMP"
        );
        assert_eq!(hint(Need::Pip, ""), "install Python 3 and its pip");
    }

    #[test]
    fn two_threads_of_one_core_count_once() {
        let place = tempfile::tempdir().unwrap();
        for (cpu, siblings) in ["0,2", "1,3", "0,2", "1,3"].iter().enumerate() {
            let topology = place.path().join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("thread_siblings_list"), siblings).unwrap();
        }
        assert_eq!(cores_below(place.path()), 2);
        assert_eq!(cores_below(&place.path().join("nowhere")), 0);
    }
}
