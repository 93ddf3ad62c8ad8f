//! Room on the disk and in memory.
use shared::hub::ModelFiles;
use shared::testing::hub_server::Fault;

use crate::setup::{REPO, Setup, WEIGHTS, assert_says};

/// On macOS, which makes room on demand, it is only a warning.
#[test]
#[cfg(not(target_os = "macos"))]
fn what_the_disk_has_no_room_for_is_refused_before_a_byte_of_it_is_asked_for() {
    // The rest of a part is asked about, too.
    for part in [None, Some(1000)] {
        let setup = Setup::new();
        if let Some(length) = part {
            std::fs::create_dir_all(setup.repository().join("blobs")).unwrap();
            std::fs::write(
                setup.blob(WEIGHTS).with_extension("incomplete"),
                vec![0; length],
            )
            .unwrap();
        }
        setup.lists(|entries| {
            let weights = entries.iter_mut().find(|entry| entry["path"] == WEIGHTS);
            weights.unwrap()["size"] = (5_u64 << 60).into();
        });
        let message = setup.error();
        assert_says(
            &message,
            &[
                REPO,
                "needs 5,764,607,523",
                "more on the disk",
                " GB free",
                "HF_HOME",
                "hub",
            ],
        );
        assert!(
            !setup
                .hub
                .requests()
                .iter()
                .any(|request| request.contains("/resolve/"))
        );
        assert!(!setup.snapshot().exists());
        setup.assert_untouched();
        setup.hub.clear_faults();
        setup.assert_whole();
    }
}

#[test]
#[cfg(not(target_os = "macos"))]
fn a_number_of_bytes_that_overflows_is_refused_as_well() {
    let setup = Setup::new();
    setup.lists(|entries| {
        for entry in entries {
            entry["size"] = u64::MAX.into();
        }
    });
    assert_says(&setup.error(), &["more on the disk", "HF_HOME"]);
}

#[test]
fn a_file_that_is_listed_and_not_there_is_named_and_the_model_is_not_said_to_be_unknown() {
    let setup = Setup::new();
    let (file, code) = (WEIGHTS.to_owned(), 404);
    setup.hub.fault(Fault::Status { file, code });
    let message = setup.error();
    assert_says(&message, &[WEIGHTS, REPO, "has no such file"]);
    assert!(!message.contains("spelling"), "{message}");
}

#[test]
fn a_text_that_is_too_long_for_what_it_should_be_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let files = ModelFiles::Directory(dir.path().to_owned());
    for (name, limit) in [
        ("config.json", 16 << 20),
        ("chat_template.jinja", 16 << 20),
        ("model.safetensors.index.json", 64 << 20),
        ("tokenizer.json", 256 << 20),
    ] {
        let file = std::fs::File::create(dir.path().join(name)).unwrap();
        file.set_len(limit + 1).unwrap();
        let message = files.read_text(name).unwrap_err().to_string();
        assert_says(&message, &[name, "more than the"]);
    }
}
