use super::*;
use serde_json::json;

use crate::judge::Judge;

fn package(name: &str, description: &str, kind: &str, metadata: Value) -> Value {
    let targets =
        json!([{"name": name.replace('-', "_"), "kind": ["lib"]}, {"name": name, "kind": [kind]}]);
    json!({"name": name, "description": description, "targets": targets, "metadata": metadata})
}

fn found(packages: &[Value]) -> Result<Vec<Part>> {
    parse(&json!({ "packages": packages }).to_string())
}

#[test]
fn parts_that_decode_are_found_in_their_order_and_nothing_else() {
    let rung =
        json!({"compare": {"rung": ["--cache", "prealloc"], "others": [["--cache", "off"]]}});
    let parts = found(&[
        package("part10-later", "Part 10: more", "bin", Value::Null),
        package("part3-kv-cache", "Part 3: the KV cache", "bin", rung),
        package(
            "part1-walkthrough",
            "Part 1: how it works",
            "bin",
            Value::Null,
        ),
        package(
            "part2-first-inference",
            "No prefix",
            "bin",
            json!({"other": 1}),
        ),
        package("part4-library", "Part 4: no program", "test", Value::Null),
        package("shared", "x", "lib", Value::Null),
        package("partly-done", "x", "bin", Value::Null),
    ])
    .unwrap();
    let numbers: Vec<u32> = parts.iter().map(|part| part.number).collect();
    assert_eq!(numbers, [2, 3, 10]);
    assert_eq!(parts[0].adds, "No prefix");
    assert!(parts[0].rung.is_empty());
    assert_eq!(parts[1].adds, "the KV cache");
    let names = |all| -> Vec<String> {
        let lineup = Lineup {
            all,
            against: false,
            rows: 8,
        };
        let contestants = parts[1].contestants(Path::new("x"), lineup);
        contestants.iter().map(Contestant::name).collect()
    };
    assert_eq!(names(false), ["part 3"]);
    assert_eq!(names(true), ["part 3", "part 3 --cache off"]);
}

#[test]
fn a_part_that_answers_in_rows_is_told_how_many_and_only_one_beside_another_program() {
    let metadata = json!({"compare": {
        "rung": ["answer", "--bits", "4"], "against": ["answer"], "rows": true, "margin": ["margin"],
    }});
    let parts = found(&[package("part5-rows", "Part 5: rows", "bin", metadata)]).unwrap();
    let runs = |against| {
        let lineup = Lineup {
            all: false,
            against,
            rows: 6,
        };
        let contestant = parts[0].contestants(Path::new("x"), lineup).remove(0);
        (contestant.flags.join(" "), contestant.rows())
    };
    assert_eq!(runs(false), ("answer --bits 4".to_owned(), 6));
    assert_eq!(runs(true), ("answer".to_owned(), 1));
    let judge = Judge::find(Path::new("x"), &parts, "dev").unwrap();
    assert!(format!("{judge:?}").contains(r#"["margin"]"#));
    assert!(Judge::find(Path::new("x"), &[], "dev").is_none());
}

#[test]
fn a_part_may_have_more_than_one_lane_but_one_beside_another_program() {
    let metadata = json!({"compare": {
        "rung": ["answer"], "rows": true, "more": [["answer", "--rows", "1", "--guess"]], "others": [["answer", "--x"]],
    }});
    let parts = found(&[package("part6-x", "Part 6: x", "bin", metadata)]).unwrap();
    let lanes = |all, against| -> Vec<(String, bool, u32)> {
        let lineup = Lineup {
            all,
            against,
            rows: 8,
        };
        let contestants = parts[0].contestants(Path::new("x"), lineup);
        let lane = |one: &Contestant| (one.name(), one.rung, one.rows());
        contestants.iter().map(lane).collect()
    };
    let first = ("part 6".to_owned(), true, 8);
    let more = ("part 6 answer --rows 1 --guess".to_owned(), true, 1);
    let other = ("part 6 answer --x".to_owned(), false, 8);
    assert_eq!(lanes(false, false), [first.clone(), more.clone()]);
    assert_eq!(lanes(true, false), [first, more, other]);
    assert_eq!(lanes(false, true), [("part 6".to_owned(), true, 1)]);
}

#[test]
fn flags_that_are_written_wrongly_are_named() {
    let wrong = json!({"compare": {"rungs": []}});
    let error = found(&[package("part3-kv-cache", "x", "bin", wrong)]).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.starts_with("part3-kv-cache: [package.metadata.compare]"),
        "{text}"
    );
    assert!(text.contains("rungs"), "{text}");
}

#[test]
fn a_number_without_a_part_is_told_with_those_there_are() {
    let parts = || {
        let part = |name| package(name, "x", "bin", Value::Null);
        found(&[part("part2-a"), part("part3-b")]).unwrap()
    };
    assert_eq!(select(parts(), &[]).unwrap().len(), 2);
    assert_eq!(select(parts(), &[3]).unwrap()[0].number, 3);
    let error = select(parts(), &[2, 7]).unwrap_err().to_string();
    assert_eq!(error, "there is no part 7 to compare: --parts takes 2, 3");
    assert!(select(Vec::new(), &[]).is_err());
}

#[test]
fn this_workspace_has_parts_whose_flags_can_be_read() {
    let workspace = console::workspace::Workspace::find().unwrap();
    let parts = find(workspace.root()).unwrap();
    let numbers: Vec<u32> = parts.iter().map(|part| part.number).collect();
    assert!(numbers.starts_with(&[2, 3, 4, 5, 6]), "{numbers:?}");
    assert!(
        parts
            .iter()
            .all(|part| !part.adds.is_empty() && !part.adds.starts_with("Part "))
    );
}
