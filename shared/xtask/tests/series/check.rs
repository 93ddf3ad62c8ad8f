//! `cargo xtask check` on small series with one thing wrong in each.

use std::fmt::Write as _;

use crate::tree::Tree;

#[test]
fn a_series_in_order_passes_and_its_changes_are_counted() {
    let told = Tree::new().xtask(&["check"]);
    assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
    insta::assert_snapshot!(told.stdout);
}

#[test]
fn a_drive_by_change_in_a_copied_file_is_told() {
    let tree = Tree::new();
    tree.edit("part3-more/src/generate.rs", "Goes on.", "Goes on and on.");
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn an_equal_file_that_nobody_promised_is_told() {
    let tree = Tree::new();
    tree.edit("part4-most/src/lib.rs", "as in part 3\n", "keeps more\n");
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn a_promise_of_a_file_that_is_not_there_is_told() {
    let tree = Tree::new();
    tree.edit("part4-most/src/lib.rs", "as in part 3\n", "as in part 2\n");
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn a_change_over_its_budget_is_told() {
    let tree = Tree::new();
    let body = |n: usize| -> String {
        (0..n).fold(String::new(), |mut text, i| {
            let _ = writeln!(text, "pub const A{i}: u32 = {i};\n// {i}");
            text
        })
    };
    let model = tree.read("part3-more/src/model.rs");
    // 248 lines more, beside the two that the part changes already; comments do not count.
    tree.write("part3-more/src/model.rs", &(model.clone() + &body(248)));
    let long = tree.complaint();
    assert!(!long.contains("lines of code in files"), "{long}");
    tree.write("part3-more/src/model.rs", &(model + &body(249)));
    tree.edit("part4-most/src/lib.rs", "halves by a shift, too", "halves");
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn long_functions_and_files_are_told() {
    let tree = Tree::new();
    let statements = |n| "    let _ = 1;\n".repeat(n);
    let long = format!(
        "\npub fn short() {{\n{}}}\n\npub fn long() {{\n{}}}\n",
        statements(58),
        statements(59)
    );
    let model = tree.read("part2-base/src/model.rs");
    tree.write("part2-base/src/model.rs", &(model + &long));
    tree.write(
        "part2-base/src/main.rs",
        &format!("fn main() {{\n{}}}\n", statements(39)),
    );
    let comments = "// more\n".repeat(350);
    let generate = tree.read("part2-base/src/generate.rs");
    for part in ["part2-base", "part3-more", "part4-most"] {
        tree.write(
            &format!("{part}/src/generate.rs"),
            &(generate.clone() + &comments),
        );
    }
    tree.xtask(&["readme"]);
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn platform_code_is_told() {
    let tree = Tree::new();
    tree.edit(
        "part2-base/src/main.rs",
        "fn main() {}",
        "#[cfg(target_os = \"macos\")]\nfn place() -> &'static str {\n    \"/usr/local/lib\"\n}\n\nfn main() {}",
    );
    tree.write(
        "part2-base/Cargo.toml",
        &(tree.read("part2-base/Cargo.toml")
            + "\n[dependencies]\nlibc = \"0.2\"\n\n[target.'cfg(unix)'.dependencies]\n"),
    );
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn a_module_that_is_not_on_the_map_is_told() {
    let tree = Tree::new();
    tree.edit(
        "part3-more/src/lib.rs",
        "pub mod cache;\n",
        "pub mod cache;\nmod extra;\n",
    );
    insta::assert_snapshot!(tree.complaint());
}
