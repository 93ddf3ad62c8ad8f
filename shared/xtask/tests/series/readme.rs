//! `cargo xtask readme`: what it writes, and that it writes it once.

use crate::tree::Tree;

#[test]
fn a_stale_readme_is_told_and_written_anew() {
    let tree = Tree::new();
    tree.edit("part3-more/src/model.rs", "a << 1", "2 * a");
    insta::assert_snapshot!(tree.complaint());
    assert_eq!(tree.xtask(&["readme", "--check"]).code, Some(1));
    let told = tree.xtask(&["readme"]);
    assert_eq!(
        told.stdout,
        "part3-more/README.md: wrote changes\npart4-most/README.md: wrote changes\n"
    );
    assert_eq!(tree.xtask(&["check"]).code, Some(0));
}

#[test]
fn an_idea_whose_function_is_gone_is_told() {
    let tree = Tree::new();
    tree.edit("shared/xtask/ideas.toml", "Cache::len", "Cache::length");
    insta::assert_snapshot!(tree.complaint());
    assert_eq!(tree.xtask(&["readme"]).code, Some(1));
}

#[test]
fn a_readme_without_a_place_is_told_how_to_make_one() {
    let tree = Tree::new();
    tree.edit("README.md", "<!-- end parts -->", "");
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn readmes_are_written_once() {
    let tree = Tree::new();
    let told = tree.xtask(&["readme"]);
    assert_eq!(told.stdout, "4 READMEs say what the code says\n");
    assert_eq!(tree.git(&["status", "--porcelain"]), "");
    insta::assert_snapshot!("readme_of_the_series", tree.read("README.md"));
    insta::assert_snapshot!("readme_of_a_part", tree.read("part3-more/README.md"));
}

#[test]
fn readmes_do_not_depend_on_the_settings_of_whoever_writes_them() {
    let tree = Tree::new();
    let settings = tree.root().join("settings");
    std::fs::write(
        &settings,
        "[diff]\nnoprefix = true\ncontext = 1\nalgorithm = patience\n[color]\nui = always\n\
         [core]\npager = false\n",
    )
    .unwrap();
    assert_cmd::Command::cargo_bin("xtask")
        .unwrap()
        .env("CARGO_MANIFEST_DIR", tree.root().join("shared/xtask"))
        .env("GIT_CONFIG_GLOBAL", &settings)
        .args(["readme", "--check"])
        .assert()
        .success();
}

#[test]
fn a_part_without_files_of_the_one_before_needs_no_table() {
    let tree = Tree::new();
    tree.write(
        "part1-walk/Cargo.toml",
        "[package]\nname = \"part1-walk\"\ndescription = \"Part 1: the walk\"\n",
    );
    tree.write(
        "part1-walk/src/lib.rs",
        "//! In reading order, as in the video:\n//!\n//! - [`walk`]: one step\n\npub mod walk;\n",
    );
    tree.write("part1-walk/src/walk.rs", "//! Walks.\n");
    tree.write("part1-walk/README.md", "# Part 1\n");
    let told = tree.xtask(&["readme"]);
    assert_eq!(told.stdout, "README.md: wrote parts\n", "{}", told.stderr);
    let check = tree.xtask(&["check"]);
    assert_eq!(check.code, Some(0), "{}", check.stdout);
    assert!(
        check.stdout.contains("part 2 beside part 1"),
        "{}",
        check.stdout
    );
}
