//! `cargo xtask diff`, on a pipe.

use crate::tree::Tree;

#[test]
fn a_diff_shows_taught_files_in_reading_order() {
    let tree = Tree::new();
    tree.edit(
        "part3-more/src/main.rs",
        "fn main() {}",
        "fn main() { /* not taught */ }",
    );
    insta::assert_snapshot!(tree.xtask(&["diff", "2", "3"]).stdout);
    let words = tree.xtask(&["diff", "2", "3", "model", "--words"]).stdout;
    insta::assert_snapshot!("a_diff_word_by_word", words);
    let main = tree.xtask(&["diff", "2", "3", "main.rs", "--stat"]).stdout;
    assert!(main.contains("src/main.rs | 2 +-"), "{main}");
    let same = tree.xtask(&["diff", "2", "3", "generate"]);
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""));
    assert_eq!(same.stderr, "src/generate.rs: the same in parts 2 and 3\n");
}

#[test]
fn a_diff_that_cannot_be_is_told_in_one_line() {
    let tree = Tree::new();
    for (args, error) in [
        (
            vec!["diff", "2", "7"],
            "there is no part 7; the parts are 2, 3, 4",
        ),
        (
            vec!["diff", "3", "3"],
            "part 3 beside part 3 shows nothing: give two parts",
        ),
        (
            vec!["diff", "2", "3", "batch.rs"],
            "neither part 2 nor part 3 has a file batch.rs; they teach cache.rs, model.rs, generate.rs",
        ),
    ] {
        let told = tree.xtask(&args);
        assert_eq!(told.stderr, format!("error: {error}\n"));
        assert_eq!(told.code, Some(1));
    }
}
