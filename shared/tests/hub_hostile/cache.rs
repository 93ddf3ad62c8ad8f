//! What lies in the cache that no download made.
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use shared::hub::{HubSettings, locate_with};

use crate::ends::ends;
use crate::environment::{child, stdout};
use crate::setup::{FOLDER, REPO, Setup, WEIGHTS, assert_says, names};

/// A model in the cache that has to be completed: the tokenizer's configuration is gone.
fn incomplete() -> Setup {
    let setup = Setup::new();
    setup.assert_whole();
    std::fs::remove_file(setup.snapshot().join("tokenizer_config.json")).unwrap();
    setup
}

/// Puts a link to `target` where `path` was.
fn link(target: &Path, path: &Path) {
    let _ = std::fs::remove_file(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

#[test]
fn a_file_of_the_users_own_that_is_linked_in_the_cache_is_used_named_and_kept() {
    let setup = incomplete();
    let own = setup.home.path().join("profile");
    let edited = "{\"file\": \"config.json\", \"edited\": true}\n";
    std::fs::write(&own, edited).unwrap();
    let linked = setup.snapshot().join("config.json");
    link(&own, &linked);
    let output = child(&setup, &[]);
    assert_says(&stdout(&output), &["FOUND"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_says(
        &stderr,
        &["Using", own.to_str().unwrap(), "for config.json"],
    );
    assert_eq!(std::fs::read_to_string(&own).unwrap(), edited);
    assert_eq!(linked.read_link().unwrap(), own);
    assert!(setup.snapshot().join("tokenizer_config.json").is_file());
}

#[test]
fn a_link_out_of_the_cache_that_cannot_be_used_is_named_and_left() {
    let missing = Path::new("/no/such/file.json");
    for target in [
        None,
        Some(missing),
        Some(Path::new("/dev/zero")),
        Some(Path::new("/")),
    ] {
        let setup = incomplete();
        let target = target.map_or_else(|| setup.victim(), Path::to_path_buf);
        let linked = setup.snapshot().join("config.json");
        link(&target, &linked);
        assert_says(
            &ends("link", || setup.error()),
            &[linked.to_str().unwrap(), "move it away"],
        );
        assert_eq!(linked.read_link().unwrap(), target);
        setup.assert_untouched();
    }
}

#[test]
fn links_where_the_cache_writes_are_not_written_through() {
    for place in [
        "blob", "part", "ref", "absent", "lock", "snapshot", "refs", "no_exist",
    ] {
        let setup = Setup::new();
        let (repository, commit, victim) = (setup.repository(), setup.commit(), setup.victim());
        let blob = setup.blob("config.json");
        let folder = setup.home.path().join("profile.d");
        std::fs::create_dir(&folder).unwrap();
        let (path, target) = match place {
            "blob" => (blob, &victim),
            "part" => (blob.with_extension("incomplete"), &victim),
            "ref" => (repository.join("refs/main"), &victim),
            "absent" => (
                repository
                    .join(".no_exist")
                    .join(commit)
                    .join("chat_template.jinja"),
                &victim,
            ),
            "lock" => (
                setup
                    .home
                    .path()
                    .join("hub/.locks")
                    .join(FOLDER)
                    .join("download.lock"),
                &victim,
            ),
            "snapshot" => (setup.snapshot(), &folder),
            "refs" => (repository.join("refs"), &folder),
            _ => (repository.join(".no_exist"), &folder),
        };
        link(target, &path);
        // Notes of what is absent are a favour: without them the model is used all the same.
        match setup.locate() {
            Ok(_) => assert!(matches!(place, "absent" | "no_exist"), "{place}"),
            Err(message) => assert_says(&message, &[path.to_str().unwrap(), "move it away"]),
        }
        assert_eq!(path.read_link().unwrap(), *target, "{place}");
        assert_eq!(names(&folder), Vec::<String>::new(), "{place}");
        std::fs::remove_dir(folder).unwrap();
        setup.assert_untouched();
    }
}

#[test]
fn a_repository_that_was_moved_and_linked_is_the_users_to_move() {
    let setup = incomplete();
    let moved = tempfile::tempdir().unwrap();
    let place = moved.path().join("a-model");
    std::fs::rename(setup.repository(), &place).unwrap();
    symlink(&place, setup.repository()).unwrap();
    std::fs::write(setup.snapshot().join("config.json"), "").unwrap();
    setup.assert_whole();
}

fn make_pipe(path: &Path) {
    let _ = std::fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_pipe_in_the_cache_is_not_waited_for() {
    let files = [
        "config.json",
        "tokenizer.json",
        "generation_config.json",
        WEIGHTS,
        "model.safetensors.index.json",
        "chat_template.jinja",
    ];
    for file in files {
        let setup = Setup::new();
        setup.assert_whole();
        make_pipe(&setup.snapshot().join(file));
        let message = ends(file, || setup.error());
        assert_says(&message, &[file, "no regular file"]);
        let offline = HubSettings {
            offline: true,
            ..setup.settings()
        };
        let message = ends(file, || locate_with(REPO, None, &offline).unwrap_err());
        assert_says(&format!("{message:#}"), &["HF_HUB_OFFLINE", file]);
    }
    let setup = incomplete();
    make_pipe(&setup.repository().join("refs/main"));
    assert_says(
        &ends("ref", || setup.error()),
        &["refs/main", "no regular file"],
    );
}

#[test]
fn a_ref_that_is_no_commit_leads_nowhere() {
    let setup = Setup::new();
    setup.assert_whole();
    let reference = setup.repository().join("refs/main");
    for text in ["../../../..", "", "/", "main", "\0"] {
        std::fs::write(&reference, text).unwrap();
        let offline = HubSettings {
            offline: true,
            ..setup.settings()
        };
        let message = locate_with(REPO, None, &offline).unwrap_err();
        assert_says(&format!("{message:#}"), &["all of it"]);
        setup.assert_whole();
    }
}

#[test]
fn hf_hub_finds_in_the_cache_what_was_fetched() {
    let setup = Setup::new();
    setup.assert_whole();
    let client = hf_hub::HFClient::builder().cache_dir(setup.home.path().join("hub"));
    let client = client.build_sync().unwrap();
    let model = client.model("somebody", "a-model");
    let found = model
        .snapshot_download()
        .local_files_only(true)
        .send()
        .unwrap();
    assert_eq!(found, setup.snapshot());
    let absent = model
        .download_file()
        .filename("chat_template.jinja")
        .local_files_only(true)
        .send();
    assert!(
        matches!(absent, Err(hf_hub::HFError::EntryNotFound { .. })),
        "{absent:?}"
    );
}
