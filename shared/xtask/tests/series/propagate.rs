//! A fix on its way through the parts, in a repository of its own.

use crate::tree::Tree;

#[test]
fn a_fix_is_copied_to_the_promised_copies() {
    let tree = Tree::new();
    tree.edit(
        "part2-base/src/generate.rs",
        "(0..n).sum()",
        "(0..=n).sum()",
    );
    let told = tree.xtask(&["propagate", "generate.rs"]);
    insta::assert_snapshot!(told.stdout);
    for part in ["part3-more", "part4-most"] {
        assert!(
            tree.read(&format!("{part}/src/generate.rs"))
                .contains("0..=n")
        );
    }
    assert_eq!(tree.xtask(&["readme"]).code, Some(0));
    assert_eq!(tree.xtask(&["check"]).code, Some(0));
}

#[test]
fn a_fix_is_merged_into_files_that_differ_by_design() {
    let tree = Tree::new();
    tree.edit("part2-base/src/model.rs", "a + b", "a.wrapping_add(b)");
    let told = tree.xtask(&["propagate", "model"]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    insta::assert_snapshot!(told.stdout);
    let model = tree.read("part4-most/src/model.rs");
    assert!(model.contains("wrapping_add") && model.contains("a << 1") && model.contains("a >> 1"));
}

#[test]
fn where_a_fix_does_not_fit_is_told_and_the_rest_is_done() {
    let tree = Tree::new();
    tree.edit("part2-base/src/model.rs", "a + b", "a.wrapping_add(b)");
    tree.edit(
        "part2-base/src/model.rs",
        "add(a, a)",
        "add(a, a) // at most 2³¹",
    );
    let told = tree.xtask(&["propagate", "model.rs"]);
    assert_eq!(told.code, Some(1));
    insta::assert_snapshot!(told.stdout + &told.stderr);
    let model = tree.read("part3-more/src/model.rs");
    assert!(model.contains("wrapping_add") && model.contains("    a << 1\n"));
}

#[test]
fn a_committed_fix_is_named_by_the_commit_before_it() {
    let tree = Tree::new();
    tree.edit("part2-base/src/model.rs", "a + b", "a.wrapping_add(b)");
    tree.commit();
    let told = tree.xtask(&["propagate", "model.rs"]);
    assert!(
        told.stdout.contains("nothing changed since HEAD"),
        "{}",
        told.stdout
    );
    let told = tree.xtask(&["propagate", "model.rs", "--since", "HEAD~1"]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(
        tree.read("part4-most/src/model.rs")
            .contains("wrapping_add")
    );
    let wrong = tree.xtask(&["propagate", "model.rs", "--since", "nowhere"]);
    assert_eq!(
        wrong.stderr,
        "error: --since nowhere: git knows no such commit\n"
    );
}

#[test]
fn a_fix_may_begin_in_a_later_part() {
    let tree = Tree::new();
    tree.edit("part3-more/src/cache.rs", "        0\n", "        1\n");
    tree.xtask(&["propagate", "part3-more/src/cache.rs"]);
    assert_eq!(
        tree.read("part3-more/src/cache.rs"),
        tree.read("part4-most/src/cache.rs")
    );
}

#[test]
fn changes_that_nobody_committed_are_not_overwritten() {
    let tree = Tree::new();
    tree.edit(
        "part2-base/src/generate.rs",
        "(0..n).sum()",
        "(0..=n).sum()",
    );
    tree.edit("part4-most/src/generate.rs", "Goes on.", "Somebody's work.");
    let told = tree.xtask(&["propagate", "generate.rs"]);
    assert_eq!(
        told.stderr,
        "error: part4-most/src/generate.rs has changes that are not committed: commit or undo \
         them, or give --force to change it all the same\n"
    );
    assert!(
        tree.read("part4-most/src/generate.rs")
            .contains("Somebody's work.")
    );
    assert!(
        tree.read("part3-more/src/generate.rs").contains("(0..n)"),
        "all or nothing"
    );
    let told = tree.xtask(&["propagate", "generate.rs", "--force"]);
    assert_eq!(told.code, Some(0));
    assert!(tree.read("part4-most/src/generate.rs").contains("0..=n"));
}

#[test]
fn an_accident_in_a_copy_is_no_fix() {
    let tree = Tree::new();
    tree.edit("part3-more/src/generate.rs", "Goes on.", "Goes on and on.");
    let named = tree.xtask(&["propagate", "part3-more/src/generate.rs"]);
    assert_eq!(
        named.stderr,
        "error: part3-more/src/generate.rs is promised to be that of part 2: make the fix there\n"
    );
    tree.commit();
    let told = tree.xtask(&["propagate", "generate"]);
    assert!(
        told.stdout.contains("part 3: copied from part 2"),
        "{}",
        told.stdout
    );
    assert_eq!(
        tree.read("part3-more/src/generate.rs"),
        tree.read("part2-base/src/generate.rs")
    );
}
