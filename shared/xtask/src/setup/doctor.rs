//! `cargo setup` on macOS: mlx-sys builds MLX by itself, if the tools are there. This looks.

use std::fmt::Write as _;
use std::process::Command;

use anstyle::{AnsiColor, Style};
use anyhow::{Result, bail};

use console::exec;

/// Asks other programs; tests answer from a list.
trait Probe {
    /// What the program printed on stdout, if it ended well; the line that tells why it did not.
    fn ask(&self, program: &str, arguments: &[&str]) -> Result<String, String>;
}

struct ThisMac;

impl Probe for ThisMac {
    fn ask(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let answer = exec::stdout(Command::new(program).args(arguments));
        answer.map_err(|error| format!("{error:#}"))
    }
}

/// Prints the list.
///
/// # Errors
/// If anything is missing.
pub(crate) fn run() -> Result<()> {
    let checks = examine(&ThisMac);
    anstream::eprint!("{}", render(&checks));
    match checks.iter().filter(|check| check.found.is_err()).count() {
        0 => Ok(()),
        1 => bail!("one thing is missing: do what the arrow says, then `cargo setup` again"),
        n => bail!("{n} things are missing: do what the arrows say, then `cargo setup` again"),
    }
}

/// One line of the list: what was found, or what is wrong; and the command that helps.
struct Check {
    name: &'static str,
    found: Result<String, String>,
    fix: &'static str,
}

fn examine(mac: &dyn Probe) -> Vec<Check> {
    let check = |name, found, fix| Check { name, found, fix };
    let processor = processor(mac);
    // Without Apple Silicon nothing else matters.
    if processor.as_ref().is_err_and(|problem| problem == INTEL) {
        return vec![check(
            "Apple Silicon",
            processor,
            "use a Mac with an M-series chip",
        )];
    }
    vec![
        check(
            "Apple Silicon",
            processor,
            "untick \"Open using Rosetta\" in the Terminal's info",
        ),
        check(
            "Rust",
            rust(mac),
            "rustup default stable-aarch64-apple-darwin && rustup update",
        ),
        check(
            "Xcode",
            mac.ask("xcode-select", &["-p"]),
            "xcode-select --install",
        ),
        check(
            "macOS SDK",
            sdk(mac),
            "install the current Xcode from the App Store",
        ),
        metal(mac),
        check("CMake", cmake(mac), "brew install cmake"),
    ]
}

const INTEL: &str = "this Mac has an Intel processor, for which MLX is not made";

fn processor(mac: &dyn Probe) -> Result<String, String> {
    let machine = mac.ask("uname", &["-m"])?;
    if machine == "arm64" {
        return Ok(machine);
    }
    match mac
        .ask("sysctl", &["-n", "sysctl.proc_translated"])
        .as_deref()
    {
        Ok("1") => Err("this terminal runs under Rosetta".into()),
        _ => Err(INTEL.into()),
    }
}

fn rust(mac: &dyn Probe) -> Result<String, String> {
    let text = mac.ask("rustc", &["-vV"])?;
    let field = |name| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
    };
    let (release, host) = (field("release: "), field("host: "));
    if host != "aarch64-apple-darwin" {
        return Err(format!("it is for {host}"));
    }
    at_least(release, env!("CARGO_PKG_RUST_VERSION"))
}

fn sdk(mac: &dyn Probe) -> Result<String, String> {
    at_least(
        &mac.ask("xcrun", &["--sdk", "macosx", "--show-sdk-version"])?,
        "14.0",
    )
}

/// The compiler of Metal's shaders is in Xcode, not in the command-line tools alone, and from
/// Xcode 26 on it is a download of its own: then there is a `metal` that only tells so.
fn metal(mac: &dyn Probe) -> Check {
    let download = "xcodebuild -downloadComponent MetalToolchain";
    let xcode = "install Xcode, then sudo xcode-select -s /Applications/Xcode.app";
    let (found, fix) = match mac.ask("xcrun", &["-f", "metal"]) {
        Err(_) => (Err("the command-line tools do not have it".into()), xcode),
        Ok(_) => (
            first_line(mac.ask("xcrun", &["metal", "--version"])),
            download,
        ),
    };
    Check {
        name: "Metal compiler",
        found,
        fix,
    }
}

fn cmake(mac: &dyn Probe) -> Result<String, String> {
    let text = first_line(mac.ask("cmake", &["--version"]))?;
    at_least(text.trim_start_matches("cmake version "), "3.25")
}

fn first_line(answer: Result<String, String>) -> Result<String, String> {
    answer.map(|text| text.lines().next().unwrap_or_default().to_owned())
}

fn at_least(version: &str, least: &str) -> Result<String, String> {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(['.', '-'])
            .map_while(|part| part.parse().ok())
            .collect()
    };
    if numbers(version) >= numbers(least) {
        Ok(version.to_owned())
    } else {
        Err(format!("{version} is too old: {least} or newer is needed"))
    }
}

fn render(checks: &[Check]) -> String {
    let (good, bad) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default());
    let bold = Style::new().bold();
    let mut text = String::new();
    for Check { name, found, fix } in checks {
        let _ = match found {
            Ok(what) => writeln!(text, "{good}✓{good:#} {name:<16} {}", cut(what)),
            Err(why) => writeln!(
                text,
                "{bad}✗{bad:#} {name:<16} {}\n  → {bold}{fix}{bold:#}",
                cut(why)
            ),
        };
    }
    if checks.iter().all(|check| check.found.is_ok()) {
        text.push_str("This Mac is ready; the first build takes some minutes, as it builds MLX.\n");
    }
    text
}

/// To the width of a terminal.
fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands and what they print; `Err` for those that fail.
    struct Answers(Vec<(&'static str, Result<&'static str, &'static str>)>);

    impl Probe for Answers {
        fn ask(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
            let command = [&[program], arguments].concat().join(" ");
            let known = self.0.iter().rev().find(|(asked, _)| *asked == command);
            let answer = known.map(|(_, answer)| *answer);
            let missing = format!("cannot start `{program}`: No such file or directory");
            answer.map_or(Err(missing), |answer| {
                answer.map(Into::into).map_err(Into::into)
            })
        }
    }

    const RUST: &str = "rustc 1.95.0 (1 2026-04-14)\nhost: aarch64-apple-darwin\nrelease: 1.95.0\n";

    fn healthy() -> Answers {
        Answers(vec![
            ("uname -m", Ok("arm64")),
            ("rustc -vV", Ok(RUST)),
            (
                "xcode-select -p",
                Ok("/Applications/Xcode.app/Contents/Developer"),
            ),
            ("xcrun --sdk macosx --show-sdk-version", Ok("26.0")),
            ("xcrun -f metal", Ok("/var/run/metal")),
            (
                "xcrun metal --version",
                Ok("Apple metal version 32023.830\nTarget: air64"),
            ),
            ("cmake --version", Ok("cmake version 4.1.2\n\nCMake suite")),
        ])
    }

    fn with(changes: &[(&'static str, Result<&'static str, &'static str>)]) -> String {
        let mut answers = healthy();
        answers.0.extend_from_slice(changes);
        anstream::adapter::strip_str(&render(&examine(&answers))).to_string()
    }

    #[test]
    fn a_healthy_mac_is_ready() {
        insta::assert_snapshot!(with(&[]), @r"
        ✓ Apple Silicon    arm64
        ✓ Rust             1.95.0
        ✓ Xcode            /Applications/Xcode.app/Contents/Developer
        ✓ macOS SDK        26.0
        ✓ Metal compiler   Apple metal version 32023.830
        ✓ CMake            4.1.2
        This Mac is ready; the first build takes some minutes, as it builds MLX.
        ");
    }

    #[test]
    fn each_missing_thing_comes_with_its_remedy() {
        insta::assert_snapshot!(with(&[
            ("rustc -vV", Ok("host: aarch64-apple-darwin\nrelease: 1.85.1")),
            ("xcode-select -p", Err("xcode-select: error: unable to get active developer directory")),
            ("xcrun --sdk macosx --show-sdk-version", Ok("13.3")),
            ("xcrun -f metal", Err("xcrun: error: unable to find utility \"metal\"")),
            ("cmake --version", Err("cannot start `cmake`: No such file or directory")),
        ]), @r"
        ✓ Apple Silicon    arm64
        ✗ Rust             1.85.1 is too old: 1.95 or newer is needed
          → rustup default stable-aarch64-apple-darwin && rustup update
        ✗ Xcode            xcode-select: error: unable to get active developer director
          → xcode-select --install
        ✗ macOS SDK        13.3 is too old: 14.0 or newer is needed
          → install the current Xcode from the App Store
        ✗ Metal compiler   the command-line tools do not have it
          → install Xcode, then sudo xcode-select -s /Applications/Xcode.app
        ✗ CMake            cannot start `cmake`: No such file or directory
          → brew install cmake
        ");
    }

    #[test]
    fn a_metal_compiler_that_is_only_a_notice_is_not_enough() {
        let notice = "error: cannot execute tool 'metal' due to missing Metal Toolchain";
        let text = with(&[("xcrun metal --version", Err(notice))]);
        assert!(text.contains("✗ Metal compiler"), "{text}");
        assert!(
            text.contains("→ xcodebuild -downloadComponent MetalToolchain"),
            "{text}"
        );
    }

    #[test]
    fn rosetta_is_told_from_an_intel_mac() {
        let rosetta = with(&[
            ("uname -m", Ok("x86_64")),
            ("sysctl -n sysctl.proc_translated", Ok("1")),
        ]);
        assert!(rosetta.contains("runs under Rosetta"), "{rosetta}");
        let intel = with(&[("uname -m", Ok("x86_64"))]);
        assert!(
            intel.contains("Intel") && intel.lines().count() == 2,
            "{intel}"
        );
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(at_least("3.9.1", "3.25").is_err());
        assert!(at_least("1.97.0-nightly", "1.95").is_ok());
        assert!(at_least("4.0", "3.25").is_ok());
    }
}
