//! Answers and caches that nobody thought of: thousands of made-up ones, drawn with a fixed seed.
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};
use shared::hub::{HubLimits, HubSettings, ModelFiles, locate_with};
use shared::testing::hub_server::{Says, Then};

use crate::setup::{REPO, Setup, WEIGHTS, names};

const CASES: u64 = 40;

/// Whatever the hub answers and whatever lies in the cache: nothing is written outside of it, nothing
/// panics, everything ends, and a failure is one readable line.
///
/// It takes some seconds. `HUB_RANDOM_SECONDS=600 cargo test -p shared --test hub_hostile random` goes on
/// for ten minutes with ever new answers; `HUB_RANDOM_FROM=1234` begins at the case that failed.
#[test]
fn no_answer_of_a_hub_writes_outside_of_the_cache_or_panics() {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let from = number("HUB_RANDOM_FROM").unwrap_or(0);
    let seconds = number("HUB_RANDOM_SECONDS");
    let start = Instant::now();
    let mut seen = Seen::default();
    for case in from.. {
        let over = match seconds {
            Some(seconds) => start.elapsed() >= Duration::from_secs(seconds),
            None => case >= from + CASES,
        };
        if over {
            break;
        }
        attack(case, &mut seen);
    }
    println!("{seen:?}, slowest {:?}", seen.slowest);
    // A test whose every case fails at the first request would test nothing.
    assert!(seen.found > 0 && seen.refused > 0, "{seen:?}");
}

/// What the cases came to.
#[derive(Debug, Default)]
struct Seen {
    found: u64,
    refused: u64,
    requests: usize,
    slowest: Duration,
}

fn attack(case: u64, seen: &mut Seen) {
    let setup = Setup::new();
    let mut dice = Dice::new(case);
    // Whoever has a part of the model asks for less.
    if dice.one_in(3) {
        // No attack yet, so nothing has to end soon.
        let patient = HubSettings {
            limits: HubLimits::default(),
            ..setup.settings()
        };
        locate_with(REPO, None, &patient).unwrap();
        let _ = std::fs::remove_file(setup.snapshot().join(dice.pick(&[WEIGHTS, "config.json"])));
    }
    let litter = Litter::strewn(&setup, &mut dice);
    make_up(&setup, &mut dice);
    let settings = settings(&setup);
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| locate_with(REPO, None, &settings)));
    let took = start.elapsed();
    let result = result.unwrap_or_else(|_| panic!("case {case}: a panic"));
    assert!(took < Duration::from_secs(30), "case {case}: {took:?}");
    match &result {
        Ok(ModelFiles::Directory(path)) => assert!(path.is_dir(), "case {case}"),
        Ok(other) => panic!("case {case}: {other:?}"),
        Err(error) => assert_readable(case, &format!("{error:#}")),
    }
    litter.assert_untouched(case);
    setup.assert_untouched();
    assert!(
        setup.hub.flooded() < 200 << 20,
        "case {case}: {}",
        setup.hub.flooded()
    );
    seen.slowest = seen.slowest.max(took);
    seen.requests += setup.hub.requests().len();
    if setup.snapshot().join(WEIGHTS).exists() {
        seen.found += 1;
    } else {
        seen.refused += 1;
    }
}

fn settings(setup: &Setup) -> HubSettings {
    HubSettings {
        limits: HubLimits {
            silence: Duration::from_millis(300),
            listing: Duration::from_millis(600),
            window: Duration::from_millis(300),
            ..HubLimits::default()
        },
        ..setup.settings()
    }
}

fn assert_readable(case: u64, message: &str) {
    assert!(
        message.len() < 1500,
        "case {case}: {} bytes: {message}",
        message.len()
    );
    assert!(
        !message.contains(char::is_control),
        "case {case}: {message:?}"
    );
    assert!(!message.contains("hf_secret"), "case {case}: {message}");
}

/// Random numbers of one case.
struct Dice(TestRng);

impl Dice {
    fn new(case: u64) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&case.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
    }

    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// Bytes, or what looks like text.
    fn bytes(&mut self) -> Vec<u8> {
        let text = self.one_in(2);
        let length = self.below(300);
        let mut byte = || {
            if text {
                b' ' + self.below(95) as u8
            } else {
                self.below(256) as u8
            }
        };
        (0..length).map(|_| byte()).collect()
    }

    /// A word where a hash, a name or an address belongs.
    fn word(&mut self, setup: &Setup) -> String {
        let (commit, etag) = setup.hub.etag("main", WEIGHTS);
        let victim = setup.victim().display().to_string();
        let outside = format!(
            "../../../../{}",
            self.pick(&["profile", "x", "hub/x", "../x"])
        );
        let words = [
            commit.as_str(),
            &etag,
            &etag[..40],
            &victim,
            &outside,
            "../../../profile",
            "",
            "..",
            "config.json",
            "model.safetensors",
            "model/../../x.safetensors",
            "model.safetensors.index.json",
            "\u{1b}[2J\u{7}\r\n",
            "é/ß",
        ];
        match self.below(12) {
            0 => String::from_utf8_lossy(&self.bytes()).into_owned(),
            1 => self.pick(&words).repeat(1 + self.below(200)),
            // What would do most harm comes most.
            2..6 => self
                .pick(&[victim.as_str(), &outside, "../../../profile"])
                .to_string(),
            _ => self.pick(&words).to_string(),
        }
    }

    fn json(&mut self, setup: &Setup) -> Value {
        match self.below(9) {
            0 => Value::Null,
            1 => json!(-1),
            2 => json!(u64::MAX),
            3 => json!(1e300),
            4 => json!([]),
            5 => json!({"oid": self.word(setup)}),
            6 => json!(self.below(300_000)),
            _ => json!(self.word(setup)),
        }
    }
}

/// Gives some of the requests made-up answers. Where all is wrong, the first wrong thing ends the
/// download, so in most cases a single word is.
fn make_up(setup: &Setup, dice: &mut Dice) {
    match dice.below(4) {
        0 => setup.says("/revision/", Says::answer(200, &[], &info(setup, dice))),
        1 => setup.says("/tree/", Says::answer(200, &[], &listing(setup, dice))),
        2 => {
            let asked = dice.pick(&["/resolve/", "/resolve-cache/", "/cdn/"]);
            setup.says(asked, answer(setup, dice, asked));
        }
        _ => make_up_all(setup, dice),
    }
}

fn make_up_all(setup: &Setup, dice: &mut Dice) {
    let asked = [
        "/revision/",
        "cursor=",
        "/tree/",
        "/resolve/",
        "/resolve-cache/",
        "/cdn/",
        ".json",
    ];
    for asked in asked {
        if dice.one_in(3) {
            setup.says(asked, answer(setup, dice, asked));
        }
    }
}

fn answer(setup: &Setup, dice: &mut Dice, asked: &str) -> Says {
    if dice.one_in(30) {
        return Says::nothing();
    }
    if dice.one_in(20) {
        return Says {
            bytes: dice.bytes(),
            then: Then::End,
        };
    }
    let status = [
        200, 200, 200, 200, 206, 204, 301, 302, 307, 401, 403, 404, 416, 429, 503, 999,
    ];
    let status = status[dice.below(status.len())];
    let headers: Vec<String> = (0..dice.below(4)).map(|_| header(setup, dice)).collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    if dice.one_in(25) {
        let endless = [Then::Silence, Then::Drip, Then::Flood];
        return Says::head(status, &headers, endless[dice.below(3)]);
    }
    let mut says = Says::answer(status, &headers, &body(setup, dice, asked));
    if dice.one_in(10) {
        says.bytes.truncate(dice.below(says.bytes.len()));
    }
    says
}

fn header(setup: &Setup, dice: &mut Dice) -> String {
    let word = dice.word(setup).replace(['\r', '\n'], "");
    let url = setup.hub.url();
    match dice.below(8) {
        0 => format!(
            "Location: {}{word}",
            dice.pick(&["", "/cdn/", "file://", "//", url.as_str()])
        ),
        1 => format!(
            "Link: <{url}/api/models/{REPO}/tree/x?cursor={}>; rel=\"next\"",
            dice.below(9)
        ),
        2 => format!("Link: <{word}>; rel=\"next\""),
        3 => format!("Content-Length: {}", dice.below(300_000)),
        4 => format!("Content-Range: bytes {}-9/10", dice.below(9)),
        5 => "Transfer-Encoding: chunked".to_string(),
        6 => format!(
            "X-Error-Code: {}",
            dice.pick(&["RepoNotFound", "GatedRepo", word.as_str()])
        ),
        _ => {
            let names = [
                "ETag",
                "X-Linked-Etag",
                "X-Repo-Commit",
                "X-Xet-Hash",
                "X-Linked-Size",
                "Content-Encoding",
            ];
            format!("{}: {word}", dice.pick(&names))
        }
    }
}

fn body(setup: &Setup, dice: &mut Dice, asked: &str) -> Vec<u8> {
    let read = |name: &str| std::fs::read(setup.model.path().join(name)).unwrap();
    match dice.below(6) {
        0 => dice.bytes(),
        1 => dice.json(setup).to_string().into_bytes(),
        _ if asked == "/revision/" => info(setup, dice),
        _ if matches!(asked, "/tree/" | "cursor=") => listing(setup, dice),
        2 => dice
            .pick(&[
                r#"{"weight_map": {"x": "../../x"}}"#,
                r#"{"weight_map": {"x": "a//b"}}"#,
            ])
            .into(),
        3 => read("config.json"),
        _ => {
            let mut bytes = read(WEIGHTS);
            if dice.one_in(2) {
                let at = dice.below(bytes.len());
                bytes[at] ^= 1;
            }
            bytes
        }
    }
}

fn info(setup: &Setup, dice: &mut Dice) -> Vec<u8> {
    let sha = if dice.one_in(3) {
        dice.json(setup)
    } else {
        dice.word(setup).into()
    };
    json!({"id": REPO, "sha": sha, "siblings": null})
        .to_string()
        .into_bytes()
}

/// The hub's own list with a word of it changed, or some.
fn listing(setup: &Setup, dice: &mut Dice) -> Vec<u8> {
    let mut entries = setup.entries();
    for _ in 0..1 + dice.below(3) {
        let at = dice.below(entries.len());
        let entry = &mut entries[at];
        match dice.below(6) {
            0..3 if entry["lfs"].is_null() => entry["oid"] = dice.word(setup).into(),
            0..3 => entry["lfs"] = json!({"oid": dice.word(setup)}),
            3 => entry["path"] = dice.word(setup).into(),
            4 => entry["size"] = dice.below(300_000).into(),
            _ => entry[dice.pick(&["type", "path", "size", "oid", "lfs"])] = dice.json(setup),
        }
    }
    if dice.one_in(3) {
        let names = [
            "model.safetensors.index.json",
            "chat_template.jinja",
            "model/../../../x.safetensors",
        ];
        let (path, oid) = (dice.pick(&names), dice.word(setup));
        entries.push(json!({"type": "file", "path": path, "size": dice.below(500), "oid": oid}));
    }
    Value::from(entries).to_string().into_bytes()
}

/// Things that no download puts into a cache, and a folder of the user's that links lead to.
struct Litter {
    folder: PathBuf,
    links: BTreeMap<PathBuf, PathBuf>,
    /// A socket is a file that nobody can open, and is there as long as this is.
    _sockets: Vec<UnixListener>,
}

impl Litter {
    fn strewn(setup: &Setup, dice: &mut Dice) -> Self {
        let mut litter = Self {
            // Resolved, for on macOS the place of temporary files is a link.
            folder: setup.home.path().canonicalize().unwrap().join("profile.d"),
            links: BTreeMap::new(),
            _sockets: Vec::new(),
        };
        std::fs::create_dir(&litter.folder).unwrap();
        let pieces = if dice.one_in(2) { dice.below(4) } else { 0 };
        for _ in 0..pieces {
            let path = place(setup, dice);
            // Not through a link that lies there already.
            let there = path.ancestors().skip(1).find_map(|p| p.canonicalize().ok());
            if there.is_none_or(|there| there.starts_with(&litter.folder)) {
                continue;
            }
            let _ = std::fs::create_dir_all(path.parent().unwrap());
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
            litter.drop_at(&path, setup, dice);
        }
        litter
    }

    fn drop_at(&mut self, path: &Path, setup: &Setup, dice: &mut Dice) {
        // Those in a folder that this replaces are gone.
        self.links.retain(|link, _| !link.starts_with(path));
        let target = match dice.below(6) {
            0 => return drop(std::fs::write(path, dice.bytes())),
            1 => return drop(std::fs::create_dir_all(path)),
            2 => return self._sockets.extend(UnixListener::bind(path)),
            3 => setup.victim(),
            4 => self.folder.clone(),
            _ => "/no/such/file".into(),
        };
        if symlink(&target, path).is_ok() {
            self.links.insert(path.to_owned(), target);
        }
    }

    /// The links are there, and lead to where they did; the folder has nothing new.
    fn assert_untouched(self, case: u64) {
        assert_eq!(names(&self.folder), Vec::<String>::new(), "case {case}");
        std::fs::remove_dir(&self.folder).unwrap();
        for (path, target) in self.links {
            let found = path.read_link().ok();
            assert_eq!(found, Some(target), "case {case}: {}", path.display());
        }
    }
}

/// A place in the cache.
fn place(setup: &Setup, dice: &mut Dice) -> PathBuf {
    let names = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        WEIGHTS,
    ];
    let (repository, snapshot) = (setup.repository(), setup.snapshot());
    let name = dice.pick(&names);
    match dice.below(8) {
        0 => setup.blob(name),
        1 => setup
            .repository()
            .join("blobs")
            .join(format!("{}.incomplete", setup.hub.etag("main", name).1)),
        2 => repository.join("refs/main"),
        3 => snapshot,
        4 => repository
            .join(".no_exist")
            .join(setup.commit())
            .join("chat_template.jinja"),
        5 => repository.join(dice.pick(&["refs", ".no_exist"])),
        _ => snapshot.join(name),
    }
}
