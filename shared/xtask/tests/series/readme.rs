//! `cargo xtask readme`: what it writes, and that it writes it once.

use serde_json::json;

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
fn a_planned_part_that_is_there_is_told() {
    let tree = Tree::new();
    tree.edit("shared/xtask/planned.toml", "number = 5", "number = 4");
    insta::assert_snapshot!(tree.complaint());
    assert_eq!(tree.xtask(&["readme"]).code, Some(1));
}

#[test]
fn a_part_without_a_title_is_told() {
    let tree = Tree::new();
    tree.edit("part3-more/README.md", "# Part 3: more", "# More");
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn a_part_without_a_readme_is_told() {
    let tree = Tree::new();
    std::fs::remove_file(tree.root().join("part3-more/README.md")).unwrap();
    insta::assert_snapshot!(tree.complaint());
}

#[test]
fn readmes_are_written_once() {
    let tree = Tree::new();
    let told = tree.xtask(&["readme"]);
    assert_eq!(told.stdout, "5 pages say what the code says\n");
    assert_eq!(tree.git(&["status", "--porcelain"]), "");
    insta::assert_snapshot!("readme_of_the_series", tree.read("README.md"));
    insta::assert_snapshot!("index_of_the_glossary", tree.read("GLOSSARY.md"));
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
    tree.write("part1-walk/README.md", "# Part 1: walk\n");
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

/// A file of `cargo compare`, with numbers that nobody measured.
fn results(date: &str, model: &str, decode_tps: f64) -> String {
    let spread = |median: f64| json!({"median": median, "half_iqr": median / 10.0, "min": median / 2.0, "max": median * 2.0});
    let step = |number: u32, part: &str, rung: bool, factor: f64| {
        json!({
            "part": part, "number": number, "variant": "variant", "adds": "the base", "rung": rung,
            "ttft_ms": spread(1234.5), "tpot_ms": spread(0.5),
            "decode_tps": spread(decode_tps * factor), "throughput_tps": spread(5.0),
            "peak_bytes": 1 << 20, "weight_bytes": 14_690_000, "kv_bytes": null,
            "ratio_to_part2": factor,
            "first_difference": if number == 4 { json!(7) } else { json!(null) },
        })
    };
    let results = json!({
        "schema": 1, "date": date, "commit": null,
        "machine": {"name": "Bench", "device": "cpu", "backend": "cpu", "ram_bytes": 8_u64 << 30,
            "os": "TestOS 1", "cores": 2},
        "versions": {"mlx": "0.0", "mlx_rs": "0.1", "mlx_sys": "0.2"},
        "model": model, "dtype": null, "prompt": "Hello", "prompt_tokens": 3, "new_tokens": 4, "n": 5,
        "steps": [step(2, "part2-base", true, 1.0), step(3, "part3-more", false, 2.0),
            step(3, "part3-more", true, 3.0), step(4, "part4-most", true, 4.0)],
    });
    results.to_string()
}

#[test]
fn the_ladder_is_the_newest_measurement_of_each_machine_and_model() {
    let tree = Tree::new();
    tree.write(
        "results/bench-tiny-2026-01-02.json",
        &results("2026-01-02", "tiny", 10.0),
    );
    tree.write("results/bench-tiny-2026-01-02.svg", "<svg/>");
    tree.write(
        "results/bench-tiny-2026-01-01.json",
        &results("2026-01-01", "tiny", 99.0),
    );
    tree.write(
        "results/bench-other-2025-01-01.json",
        &results("2025-01-01", "other", 2.0),
    );
    assert_eq!(
        tree.xtask(&["readme", "--check"]).code,
        Some(1),
        "it is stale now"
    );
    assert_eq!(tree.xtask(&["readme"]).stdout, "README.md: wrote ladder\n");
    let readme = tree.read("README.md");
    let ladder = readme.split("<!-- end ladder").next().unwrap();
    insta::assert_snapshot!(ladder);
}

#[test]
fn a_file_in_results_that_is_none_is_told() {
    let tree = Tree::new();
    tree.write("results/notes.json", "{}");
    let told = tree.xtask(&["readme"]);
    assert_eq!(told.code, Some(1));
    assert!(
        told.stderr
            .contains("results/notes.json is no result of `cargo compare`"),
        "{}",
        told.stderr
    );
}
