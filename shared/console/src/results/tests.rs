use super::*;

fn spread(median: f64) -> Summary {
    Summary::of(&[median - 1.0, median, median + 1.0]).unwrap()
}

fn step(number: u32, rung: bool) -> Step {
    Step {
        part: format!("part{number}-x"),
        number,
        variant: "naive".into(),
        adds: "text".into(),
        rung,
        rows: 1,
        ttft_ms: spread(35.0),
        tpot_ms: spread(8.0),
        decode_tps: spread(125.0),
        throughput_tps: spread(100.0),
        peak_bytes: Some(15 << 20),
        weight_bytes: Some(14_690_000),
        kv_bytes: Some(0),
        ratio_to_part2: Some(1.0),
        first_difference: None,
        margin_nats: None,
    }
}

fn results() -> Results {
    Results {
        schema: SCHEMA,
        date: "2026-01-31".into(),
        commit: Some("3ca7caf".into()),
        machine: Machine {
            name: "Apple M3 Max".into(),
            device: "gpu".into(),
            backend: "metal".into(),
            ram_bytes: 36 << 30,
            os: "macOS 15.1".into(),
            cores: 16,
            bandwidth_bytes_per_s: None,
            bandwidth_is_measured: false,
            products: String::new(),
        },
        versions: Versions {
            mlx: "0.32.2".into(),
            mlx_rs: "0.33.0".into(),
            mlx_sys: "0.7.0".into(),
        },
        model: "tiny".into(),
        dtype: None,
        prompt: "Explain black holes".into(),
        prompt_tokens: 12,
        new_tokens: 64,
        n: 3,
        steps: vec![step(2, true), step(3, true), step(3, false)],
    }
}

#[test]
fn what_is_written_is_read_again_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.json", "a.json"] {
        let text = serde_json::to_string_pretty(&results()).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
    }
    fs::write(folder.path().join("a.svg"), "<svg/>").unwrap();
    let found = read_all(folder.path()).unwrap();
    let paths: Vec<&Path> = found.iter().map(|(path, _)| path.as_path()).collect();
    assert_eq!(
        paths,
        ["a.json", "b.json"].map(|name| folder.path().join(name))
    );
    assert_eq!(found[0].1, results());
    assert_eq!(found[0].1.rungs().count(), 2);
}

#[test]
fn a_file_from_before_there_were_rows_has_one_of_each() {
    let mut json = serde_json::to_value(results()).unwrap();
    for step in json["steps"].as_array_mut().unwrap() {
        step.as_object_mut().unwrap().remove("rows");
        step.as_object_mut().unwrap().remove("margin_nats");
    }
    let read: Results = serde_json::from_value(json).unwrap();
    assert_eq!(read, results());
    assert_eq!(read.steps[0].decode_of_all(), 125.0);
}

#[test]
fn no_folder_is_no_results() {
    let folder = tempfile::tempdir().unwrap();
    assert!(read_all(&folder.path().join("none")).unwrap().is_empty());
}

#[test]
fn a_file_of_something_else_or_of_later_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.json");
    let error = |text: &str| {
        fs::write(&path, text).unwrap();
        format!("{:#}", read(&path).unwrap_err())
    };
    assert!(error("{").contains("x.json is no result of `cargo compare`"));
    assert!(error(r#"{"schema": 1}"#).contains("measure again with `cargo compare`"));
    assert!(error(r#"{"schema": 99}"#).contains("newer than 1: update the checkout"));
}

#[test]
fn a_file_name_has_machine_model_type_and_day_and_no_odd_character() {
    let mut results = results();
    assert_eq!(results.stem(), "apple-m3-max-tiny-2026-01-31");
    results.machine.name = "AMD EPYC (Genoa)/\u{1b}[31m".into();
    results.model = "../mlx-community/SmolLM2.1 x".into();
    results.dtype = Some("f32".into());
    let stem = "amd-epyc-genoa-31m-mlx-community-smollm2.1-x-f32-2026-01-31";
    assert_eq!(results.stem(), stem);
}
