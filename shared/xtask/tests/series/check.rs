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

/// So many lines of code, with a comment between them.
fn body(n: usize) -> String {
    (0..n).fold(String::new(), |mut text, i| {
        let _ = writeln!(text, "pub const A{i}: u32 = {i};\n// {i}");
        text
    })
}

#[test]
fn a_part_over_its_budget_is_told() {
    let tree = Tree::new();
    let model = tree.read("part4-most/src/model.rs");
    // 248 lines more, beside the two that the part changes already; comments do not count.
    tree.write("part4-most/src/model.rs", &(model.clone() + &body(248)));
    let long = tree.complaint();
    assert!(!long.contains("can be followed"), "{long}");
    tree.write("part4-most/src/model.rs", &(model + &body(249)));
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn new_files_count_too_and_have_room_of_their_own() {
    let tree = Tree::new();
    let cache = tree.read("part3-more/src/cache.rs");
    let with = |lines| {
        for part in ["part3-more", "part4-most"] {
            tree.write(
                &format!("{part}/src/cache.rs"),
                &(cache.clone() + &body(lines)),
            );
        }
        tree.complaint()
    };
    // Beside the new type (6) and what changes (2).
    let long = with(392);
    assert!(!long.contains("can be followed"), "{long}");
    insta::assert_snapshot!(with(393));
}

#[test]
fn the_size_of_each_crate_and_its_circles_are_told() {
    let tree = Tree::new();
    tree.write("Cargo.toml", "[workspace]\nmembers = [\"part3-more\"]\n");
    let uses = |file: &str, line: &str| {
        let path = format!("part3-more/src/{file}.rs");
        let text = tree.read(&path);
        tree.write(&path, &text.replacen("\n\n", &format!("\n\n{line}\n\n"), 1));
    };
    uses("cache", "use crate::model::add;");
    uses("model", "use super::cache::Cache;");
    let told = tree.xtask(&["check", "--stat"]);
    assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
    insta::assert_snapshot!(told.stdout);
}

#[test]
fn long_files_are_told() {
    let tree = Tree::new();
    let statements = |n| "    let _ = 1;\n".repeat(n);
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
        "// On target_os = \"linux\", too.\n#[cfg(target_os = \"macos\")]\nuse std::os::fd::AsRawFd;\n\nfn main() {}",
    );
    tree.write(
        "part2-base/Cargo.toml",
        &(tree.read("part2-base/Cargo.toml") + "\n[target.'cfg(unix)'.dependencies]\n"),
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
