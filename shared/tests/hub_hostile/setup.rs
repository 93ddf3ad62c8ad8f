//! A hub, a cache, and beside the cache a file of the user's that nobody may touch.
use std::path::{Path, PathBuf};
use std::time::Duration;

use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use shared::hub::{HubLimits, HubSettings, ModelFiles, locate_with};
use shared::testing::hub_server::{Fault, HubServer, Says};
use tempfile::TempDir;

pub(crate) const REPO: &str = "somebody/a-model";
pub(crate) const FOLDER: &str = "models--somebody--a-model";
pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const PRECIOUS: &str = "my precious profile\n";

/// A model with a large and some small files, on a hub; beside the cache lies a file of the user's.
pub(crate) struct Setup {
    pub(crate) home: TempDir,
    pub(crate) model: TempDir,
    pub(crate) hub: HubServer,
}

pub(crate) fn write_weights(path: &Path, floats: usize) {
    let bytes = vec![7; 4 * floats];
    let view = TensorView::new(safetensors::Dtype::F32, vec![floats], &bytes).unwrap();
    std::fs::write(path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
}

pub(crate) fn model() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::write(dir.path().join(name), format!("{{\"file\": \"{name}\"}}\n")).unwrap();
    }
    write_weights(&dir.path().join(WEIGHTS), 50_000);
    dir
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::serving(model())
    }

    pub(crate) fn serving(model: TempDir) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("profile"), PRECIOUS).unwrap();
        let hub = HubServer::start(REPO, model.path());
        Self { home, model, hub }
    }

    pub(crate) fn victim(&self) -> PathBuf {
        self.home.path().join("profile")
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.home.path().join("hub").join(FOLDER)
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(self.commit())
    }

    pub(crate) fn commit(&self) -> String {
        self.hub.etag("main", WEIGHTS).0
    }

    pub(crate) fn blob(&self, file: &str) -> PathBuf {
        self.repository()
            .join("blobs")
            .join(self.hub.etag("main", file).1)
    }

    /// Ends are near: a test should not wait for what a user may.
    pub(crate) fn settings(&self) -> HubSettings {
        HubSettings {
            endpoint: self.hub.url(),
            cache: self.home.path().join("hub"),
            token: Some("hf_secret".into()),
            offline: false,
            limits: HubLimits {
                silence: Duration::from_millis(800),
                listing: Duration::from_millis(1500),
                window: Duration::from_millis(500),
                ..HubLimits::default()
            },
        }
    }

    pub(crate) fn locate(&self) -> Result<PathBuf, String> {
        match locate_with(REPO, None, &self.settings()) {
            Ok(ModelFiles::Directory(path)) => Ok(path),
            Ok(other) => panic!("expected a directory, got {other:?}"),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    /// How many requests there were whose path ends so.
    pub(crate) fn requests_of(&self, end: &str) -> usize {
        let requests = self.hub.requests();
        requests
            .iter()
            .filter(|request| request.ends_with(end))
            .count()
    }

    /// The message of a failure: one line of a readable length.
    pub(crate) fn error(&self) -> String {
        let message = self.locate().unwrap_err();
        assert!(!message.contains('\n') && message.len() < 900, "{message}");
        message
    }

    pub(crate) fn says(&self, path: &str, says: Says) {
        self.hub.fault(Fault::Says {
            path: path.into(),
            says,
        });
    }

    /// The files as the hub lists them.
    pub(crate) fn entries(&self) -> Vec<Value> {
        let entry = |name: &String| {
            let size = self.model.path().join(name).metadata().unwrap().len();
            let etag = self.hub.etag("main", name).1;
            let lfs = (etag.len() == 64).then(|| json!({"oid": etag, "size": size}));
            json!({"type": "file", "path": name, "size": size, "oid": &etag[..40], "lfs": lfs})
        };
        names(self.model.path()).iter().map(entry).collect()
    }

    /// The listing as the hub gives it, changed.
    pub(crate) fn listing(&self, change: impl Fn(&mut Vec<Value>)) -> Says {
        let mut entries = self.entries();
        change(&mut entries);
        Says::answer(200, &[], Value::from(entries).to_string().as_bytes())
    }

    pub(crate) fn lists(&self, change: impl Fn(&mut Vec<Value>)) {
        self.says("/tree/", self.listing(change));
    }

    /// The file beside the cache is whole, nothing lies beside it, and the cache has no name that
    /// the server made up.
    pub(crate) fn assert_untouched(&self) {
        assert_eq!(std::fs::read_to_string(self.victim()).unwrap(), PRECIOUS);
        let outside = names(self.home.path());
        assert!(
            outside
                .iter()
                .all(|name| ["hub", "profile"].contains(&name.as_str())),
            "{outside:?}"
        );
        let models = names(&self.home.path().join("hub"));
        assert!(
            models
                .iter()
                .all(|name| [FOLDER, ".locks"].contains(&name.as_str())),
            "{models:?}"
        );
        for (directory, lengths) in [
            ("blobs", &[40, 64][..]),
            ("snapshots", &[40]),
            (".no_exist", &[40]),
        ] {
            for name in names(&self.repository().join(directory)) {
                let hash = name.strip_suffix(".incomplete").unwrap_or(&name);
                let hex = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
                assert!(hex && lengths.contains(&hash.len()), "{directory}/{name}");
            }
        }
    }

    /// The model's files are in the snapshot, with the hub's bytes.
    pub(crate) fn assert_whole(&self) {
        let snapshot = self.locate().unwrap();
        for name in names(self.model.path()) {
            let same = std::fs::read(snapshot.join(&name)).unwrap()
                == std::fs::read(self.model.path().join(&name)).unwrap();
            assert!(same, "{name}");
        }
    }
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

pub(crate) fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
