//! A small series of three parts, as files in a temporary folder under git.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// What a program printed.
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) struct Tree(TempDir);

const MODEL: &str = "\
//! The model.

/// Adds.
pub fn add(a: u32, b: u32) -> u32 {
    a + b
}

/// Doubles.
pub fn double(a: u32) -> u32 {
    add(a, a)
}

/// Halves.
pub fn half(a: u32) -> u32 {
    a / 2
}
";
const GENERATE: &str = "\
//! The loop.

/// Goes on.
pub fn generate(n: u32) -> u32 {
    (0..n).sum()
}
";
const CACHE: &str = "\
//! The cache.

/// What was computed.
pub struct Cache;

impl Cache {
    /// How much.
    pub fn len(&self) -> u32 {
        0
    }
}
";
const MAIN: &str = "fn main() {}\n";
const LADDER: &str = "<!-- begin ladder: written by cargo xtask readme -->\n<!-- end ladder -->";
const PARTS: &str = "<!-- begin parts: written by cargo xtask readme -->\n<!-- end parts -->";
const INDEX: &str = "<!-- begin index: written by cargo xtask readme -->\n<!-- end index -->";
const CHANGES: &str = "<!-- begin changes: written by cargo xtask readme -->\n<!-- end changes -->";

impl Tree {
    /// Three parts that `check` has nothing to say about.
    pub(crate) fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("Cargo.lock", "");
        tree.write(
            "README.md",
            &format!("# Series\n\n{LADDER}\n\n{PARTS}\n\nBye.\n"),
        );
        tree.write("GLOSSARY.md", &format!("# Words\n\n{INDEX}\n"));
        tree.write(
            "shared/xtask/planned.toml",
            "[[part]]\nnumber = 5\ntitle = \"the rest\"\nshows = \"what is left\"\n",
        );
        tree.write(
            "shared/xtask/ideas.toml",
            "[[idea]]\nname = \"Cache\"\nfile = \"part3-more/src/cache.rs\"\nitem = \"Cache::len\"\n",
        );
        tree.part(
            2,
            "base",
            "- [`model`]: adds\n- [`generate`]: goes on\n",
            "",
        );
        tree.write("part2-base/src/model.rs", MODEL);
        tree.write("part2-base/src/generate.rs", GENERATE);
        tree.part(
            3,
            "more",
            "- [`cache`]: keeps\n- [`model`]: doubles by a shift\n- [`generate`]: as in part 2\n",
            CHANGES,
        );
        tree.write("part3-more/src/cache.rs", CACHE);
        tree.write(
            "part3-more/src/model.rs",
            &MODEL.replace("add(a, a)", "a << 1"),
        );
        tree.write("part3-more/src/generate.rs", GENERATE);
        tree.part(
            4,
            "most",
            "- [`cache`]: as in part 3\n- [`model`]: halves by a shift, too\n\
             - [`generate`]: as in part 3, which has it from part 2\n",
            CHANGES,
        );
        tree.write("part4-most/src/cache.rs", CACHE);
        let model = MODEL
            .replace("add(a, a)", "a << 1")
            .replace("a / 2", "a >> 1");
        tree.write("part4-most/src/model.rs", &model);
        tree.write("part4-most/src/generate.rs", GENERATE);
        tree.git(&["init", "--quiet"]);
        tree.xtask(&["readme"]);
        tree.commit();
        tree
    }

    fn part(&self, number: u32, title: &str, map: &str, readme: &str) {
        let folder = format!("part{number}-{title}");
        let docs: String = map.lines().map(|line| format!("//! {line}\n")).collect();
        let modules: String = map
            .split("[`")
            .skip(1)
            .map(|rest| format!("pub mod {};\n", rest.split('`').next().unwrap()))
            .collect();
        self.write(
            &format!("{folder}/Cargo.toml"),
            &format!(
                "[package]\nname = \"{folder}\"\ndescription = \"Part {number}: the {title}\"\n"
            ),
        );
        self.write(
            &format!("{folder}/src/lib.rs"),
            &format!("//! Part {number}.\n//!\n//! In reading order:\n//!\n{docs}\n{modules}"),
        );
        self.write(&format!("{folder}/src/main.rs"), MAIN);
        self.write(
            &format!("{folder}/README.md"),
            &format!("# Part {number}: {title}\n\n{readme}\n"),
        );
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.root().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root().join(file)).unwrap()
    }

    /// Changes a piece that must be there.
    pub(crate) fn edit(&self, file: &str, old: &str, new: &str) {
        let text = self.read(file);
        assert!(text.contains(old), "{file} has no {old:?}");
        self.write(file, &text.replacen(old, new, 1));
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.arg("-C")
            .arg(self.root())
            .args(["-c", "user.name=A", "-c", "user.email=a@b.c"]);
        let output = git.args(args).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "git {args:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "Change"]);
    }

    pub(crate) fn xtask(&self, args: &[&str]) -> Told {
        let output: Output = assert_cmd::Command::cargo_bin("xtask")
            .unwrap()
            .env("CARGO_MANIFEST_DIR", self.root().join("shared/xtask"))
            .args(args)
            .output()
            .unwrap();
        Told {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What `check` prints about a rule that is broken, without the rules that are kept.
    pub(crate) fn complaint(&self) -> String {
        let told = self.xtask(&["check"]);
        assert_eq!(told.code, Some(1), "{}{}", told.stdout, told.stderr);
        let rules = told.stdout.split("\n\n").next().unwrap();
        let broken: Vec<&str> = rules
            .lines()
            .filter(|line| !line.starts_with('✓'))
            .collect();
        format!("{}\n{}", broken.join("\n"), told.stderr)
    }
}
