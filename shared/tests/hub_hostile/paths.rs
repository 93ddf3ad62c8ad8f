//! What a server says is no path.
use std::collections::BTreeMap;

use serde_json::json;
use shared::hub::{ModelFiles, locate_with};
use shared::testing::hub_server::Says;

use crate::setup::{REPO, Setup, WEIGHTS, assert_says, model, write_weights};

/// Words that a server could say where a hash belongs.
fn no_hashes(setup: &Setup) -> Vec<String> {
    let (hash, victim) = ("0123456789".repeat(4), setup.victim());
    [
        "../../../../profile",
        "../../../profile",
        victim.to_str().unwrap(),
        "",
        ".",
        "..",
        "main",
        &hash[1..],
        &format!("{}/../x", &hash[..35]),
        &format!("{hash}\0"),
        &"é".repeat(20),
    ]
    .map(String::from)
    .to_vec()
}

#[test]
fn an_etag_that_is_no_hash_is_refused_and_the_users_files_stay() {
    for file in [WEIGHTS, "config.json"] {
        let setup = Setup::new();
        for word in no_hashes(&setup) {
            setup.hub.clear_faults();
            setup.lists(|entries| {
                let entry = entries
                    .iter_mut()
                    .find(|entry| entry["path"] == file)
                    .unwrap();
                let oid = if entry["lfs"].is_null() {
                    &mut entry["oid"]
                } else {
                    &mut entry["lfs"]["oid"]
                };
                *oid = word.clone().into();
            });
            assert_says(&setup.error(), &["without the hash", file]);
            setup.assert_untouched();
        }
    }
}

#[test]
fn the_headers_of_a_content_decide_nothing() {
    let setup = Setup::new();
    let body = std::fs::read(setup.model.path().join("config.json")).unwrap();
    for word in ["../../../../profile", setup.victim().to_str().unwrap()] {
        let headers = ["ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Xet-Hash"];
        let headers = headers.map(|name| format!("{name}: \"{word}\""));
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        setup.hub.clear_faults();
        setup.says("/config.json", Says::answer(200, &headers, &body));
        setup.assert_whole();
        setup.assert_untouched();
        std::fs::remove_dir_all(setup.repository()).unwrap();
    }
}

#[test]
fn a_commit_that_is_no_hash_is_refused_and_nothing_is_made_outside() {
    let setup = Setup::new();
    for word in no_hashes(&setup) {
        setup.hub.clear_faults();
        let info = json!({"id": REPO, "sha": word}).to_string();
        setup.says("/revision/", Says::answer(200, &[], info.as_bytes()));
        assert_says(&setup.error(), &["as the commit", "HF_ENDPOINT"]);
        setup.assert_untouched();
    }
    assert!(
        !setup
            .hub
            .requests()
            .iter()
            .any(|request| request.contains("/tree/"))
    );
}

#[test]
fn another_commit_than_the_one_asked_for_is_refused() {
    let setup = Setup::new();
    let info = json!({"id": REPO, "sha": setup.commit()}).to_string();
    setup.says("/revision/", Says::answer(200, &[], info.as_bytes()));
    let pinned = "0123456789".repeat(4);
    let error = locate_with(REPO, Some(&pinned), &setup.settings()).unwrap_err();
    assert_says(&format!("{error:#}"), &["as the commit", &setup.commit()]);
}

#[test]
fn a_listed_name_that_leads_elsewhere_is_no_file_of_the_model() {
    let setup = Setup::new();
    for name in [
        "model/../../../../x.safetensors",
        "model\0.safetensors",
        "model/x.safetensors",
    ] {
        setup.hub.clear_faults();
        setup.lists(|entries| {
            let entry = entries
                .iter_mut()
                .find(|entry| entry["path"] == WEIGHTS)
                .unwrap();
            entry["path"] = name.into();
        });
        assert_says(&setup.error(), &["no safetensors"]);
        setup.assert_untouched();
    }
}

#[test]
fn a_shard_that_is_named_like_a_pattern_is_a_name() {
    let model = model();
    let shards = ["[a", "model-*.safetensors", "{a,b}"];
    let mut map = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        write_weights(&model.path().join(shard), 10 + index);
        map.insert(format!("tensor.{index}"), shard);
    }
    let index = json!({"weight_map": map}).to_string();
    std::fs::write(model.path().join("model.safetensors.index.json"), index).unwrap();
    std::fs::remove_file(model.path().join(WEIGHTS)).unwrap();
    write_weights(&model.path().join("model-x.safetensors"), 5);
    let setup = Setup::serving(model);
    let files = ModelFiles::Directory(setup.locate().unwrap());
    let found = files.shards().unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(found, shards);
    assert_eq!(setup.requests_of("model-x.safetensors"), 0);
}

#[test]
fn a_shard_that_is_named_in_a_roundabout_way_is_refused_before_weights_are_fetched() {
    for shard in ["a//b", "a/./b", "./a", "a/"] {
        let model = model();
        let index = json!({"weight_map": {"x": shard}}).to_string();
        std::fs::write(model.path().join("model.safetensors.index.json"), index).unwrap();
        let whole = model.path().join(WEIGHTS);
        std::fs::rename(whole, model.path().join("other.safetensors")).unwrap();
        let setup = Setup::serving(model);
        assert_says(&setup.error(), &["model.safetensors.index.json", shard]);
        assert_eq!(setup.requests_of("other.safetensors"), 0);
    }
}

#[test]
fn beside_whole_weights_an_index_of_roundabout_names_is_asked_for_nothing() {
    let model = model();
    let index = json!({"weight_map": {"x": "a/../../b"}}).to_string();
    std::fs::write(model.path().join("model.safetensors.index.json"), index).unwrap();
    let setup = Setup::serving(model);
    setup.assert_whole();
    assert_eq!(setup.requests_of("/b"), 0);
}

#[test]
fn a_large_file_of_another_content_is_not_taken() {
    let setup = Setup::new();
    let mut body = std::fs::read(setup.model.path().join(WEIGHTS)).unwrap();
    *body.last_mut().unwrap() ^= 1;
    setup.says("/cdn/", Says::answer(200, &[], &body));
    assert_says(&setup.error(), &[WEIGHTS, "another content"]);
    assert!(!setup.blob(WEIGHTS).exists());
    setup.hub.clear_faults();
    setup.assert_whole();
}
