//! Thousands of damaged files: each is read, or refused in one line. No panic, no crash, no hang.
//!
//! The damage follows from a fixed seed, so that a failure comes again. For a longer run with seeds of
//! its own, which takes so many minutes for each kind of file and says how far it came:
//!
//! ```sh
//! DAMAGED_MINUTES=10 cargo test -p shared --test damaged -- --nocapture
//! ```
//!
//! The file under test lies in `target/tmp/damaged-…`, also after a crash of the process.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use shared::checkpoint::Checkpoint;
use shared::config::ModelConfig;
use shared::hub::ModelFiles;
use shared::testing::checkpoints::chain::{Chain, added_token};
use shared::testing::checkpoints::gguf::GgufFile;
use shared::testing::fixtures;
use shared::tokenizer::{Tokenizer, TokenizerFiles};

/// Cases of each kind where nothing else is said.
const CASES: u64 = 250;

/// Characters of a message on the terminal.
const LONGEST: usize = 600;

/// Numbers by a rule (SplitMix64), the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

/// Runs `case` with one seed after the other. It may fail in one line; it may not panic.
fn survives(kind: &str, mut case: impl FnMut(&mut Dice) -> Result<()>) {
    let minutes = std::env::var("DAMAGED_MINUTES").ok();
    let minutes: Option<u64> = minutes.map(|text| text.parse().unwrap());
    let (started, mut refused, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    let mut seed = 0;
    loop {
        let over = match minutes {
            Some(minutes) => started.elapsed() >= Duration::from_secs(60 * minutes),
            None => seed >= CASES,
        };
        if over {
            break;
        }
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&mut Dice(seed))));
        slowest = slowest.max(began.elapsed());
        match outcome {
            Err(_) => panic!("{kind}, seed {seed}: a panic"),
            Ok(Err(error)) => {
                refused += 1;
                let line = format!("{error:#}");
                let told = console::text::message(&line);
                let plain = !line.contains(char::is_control) && told.chars().count() <= LONGEST;
                assert!(plain && !told.is_empty(), "{kind}, seed {seed}: {told}");
            }
            Ok(Ok(())) => {}
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{kind}, seed {seed}: too slow"
        );
        seed += 1;
    }
    println!(
        "{kind}: {seed} files, {refused} refused, {} read, the slowest in {} ms",
        seed - refused,
        slowest.as_millis()
    );
}

/// A directory whose contents stay after a crash.
fn directory(kind: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("damaged-{kind}"));
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn open(directory: &Path) -> Result<Checkpoint> {
    Checkpoint::open("damaged", ModelFiles::Directory(directory.to_owned()))
}

/// Reads all that a run reads before it computes.
fn read(checkpoint: &Checkpoint) -> Result<()> {
    checkpoint.inspect(Some(1 << 34));
    checkpoint.check_fit(100, 1 << 34)?;
    checkpoint.load_weights().map(|_| ())
}

// ---- JSON

/// A value that a file should not have, or not there.
fn odd(dice: &mut Dice) -> Value {
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let values = [
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(2.5),
        json!(1u64 << 31),
        json!(1u64 << 53),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("x\n\u{1b}[31m\u{202e}é"),
        json!("y".repeat(20_000)),
        json!([]),
        json!({}),
        json!([1, "a", null]),
        json!({"type": "x", "content": "y"}),
        json!({"__float__": "NaN"}),
        json!(dice.roll()),
        nested(100),
    ];
    dice.pick(&values).clone()
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(members) => members.values().map(nodes).sum(),
        _ => 0,
    }
}

/// Replaces, removes, renames or doubles what is at the place `at` in the order of the text.
fn change(value: &mut Value, at: &mut usize, dice: &mut Dice) {
    if *at == 0 {
        *value = odd(dice);
        *at = usize::MAX;
        return;
    }
    *at -= 1;
    match value {
        Value::Array(items) => {
            for place in 0..items.len() {
                if *at == 0 && dice.one_in(3) {
                    let item = items.remove(place);
                    if dice.one_in(2) {
                        items.extend([item.clone(), item]);
                    }
                    *at = usize::MAX;
                    return;
                }
                change(&mut items[place], at, dice);
                if *at == usize::MAX {
                    return;
                }
            }
        }
        Value::Object(members) => {
            let keys: Vec<String> = members.keys().cloned().collect();
            for key in &keys {
                if *at == 0 && dice.one_in(3) {
                    let member = members.remove(key).unwrap();
                    if dice.one_in(2) {
                        members.insert(dice.pick(&keys).clone(), member);
                    }
                    *at = usize::MAX;
                    return;
                }
                change(&mut members[key], at, dice);
                if *at == usize::MAX {
                    return;
                }
            }
        }
        _ => {}
    }
}

/// A few changes of the values, and sometimes of the text itself.
fn damaged_json(value: &Value, dice: &mut Dice) -> String {
    let mut value = value.clone();
    for _ in 0..dice.below(4) {
        let mut at = dice.below(nodes(&value));
        change(&mut value, &mut at, dice);
    }
    let mut text = value.to_string();
    for _ in 0..[0, 0, 0, 1, 3][dice.below(5)] {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let Some(&at) = places.get(dice.below(places.len())) else {
            break;
        };
        let pieces = [
            "NaN",
            "-Infinity",
            "1e999",
            ",",
            "}",
            "\"",
            "\\",
            "[",
            "\u{feff}",
            "\\ud800",
        ];
        match dice.below(3) {
            0 => text.insert_str(at, pieces[dice.below(pieces.len())]),
            1 => text.truncate(at),
            _ => drop(text.remove(at)),
        }
    }
    text
}

fn json_of(fixture: &str, file: &str) -> Value {
    fixtures::json(&format!("{fixture}/{file}")).unwrap()
}

#[test]
fn damaged_configs_are_read_or_refused() {
    let mut configs: Vec<Value> = [
        "llama-rope-llama3",
        "llama-rope-yarn",
        "qwen3-8bit-mixed",
        "llama-nvfp4-mixed",
        "llama-awq",
        "llama-gptq",
    ]
    .map(|name| json_of(name, "config.json"))
    .to_vec();
    configs.push(json_of("mistral-layer-types", "config.json"));
    configs.push(json_of("gpt2/hub", "config.json"));
    let generation = json!({"eos_token_id": [1, 2], "temperature": 0.6, "do_sample": true});
    survives("config.json", |dice| {
        let mut config = dice.pick(&configs).clone();
        if dice.one_in(3) {
            let inside = json!({"rope_type": "linear", "factor": 2, "rope_theta": 1e5});
            config["rope_parameters"] = inside;
        }
        let config = damaged_json(&config, dice);
        let generation = damaged_json(&generation, dice);
        let config = ModelConfig::from_json(&config, dice.one_in(2).then_some(&generation))?;
        config.kv_bytes_per_token(4);
        config.require_llama()
    });
}

#[test]
fn damaged_lists_of_tokens_are_read_or_refused() {
    let chain = Chain::new(&["<|endoftext|>", "a", "<|eot|>", "b"], &[1, 2]);
    let mut config = chain.tokenizer_config();
    config["added_tokens_decoder"] = json!({"2": added_token(2, "<|eot|>")});
    config["chat_template"] = json!("<|eot|>{{ messages[0].content }}<|x|>");
    config["extra_special_tokens"] = json!(["b"]);
    let map = json!({"eot_token": {"content": "<|eot|>"}, "pad_token": "b"});
    survives("tokenizer_config.json", |dice| {
        let files = TokenizerFiles {
            name: "damaged".to_owned(),
            tokenizer: Some(chain.tokenizer().to_string()),
            tokenizer_config: Some(damaged_json(&config, dice)),
            special_tokens_map: Some(damaged_json(&map, dice)),
            vocab_size: chain.width,
            ..TokenizerFiles::default()
        };
        let tokenizer = Tokenizer::from_files(&files)?;
        let ids = tokenizer.encode_raw("a<|eot|>b")?;
        tokenizer.decode(&ids, false).map(|_| ())
    });
}

// ---- safetensors

/// Header and data of a safetensors file.
fn split(file: &[u8]) -> (Value, &[u8]) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    (
        serde_json::from_slice(&file[8..8 + length]).unwrap(),
        &file[8 + length..],
    )
}

/// The same with a damaged header, and sometimes another length or data that are cut.
fn damaged_safetensors(header: &Value, data: &[u8], dice: &mut Dice) -> Vec<u8> {
    let header = damaged_json(header, dice);
    let length = match dice.below(8) {
        0 => *dice.pick(&[0, 1, u64::MAX, 1 << 40, data.len() as u64]),
        1 => header.len() as u64 + 1,
        _ => header.len() as u64,
    };
    let mut bytes = [&length.to_le_bytes()[..], header.as_bytes(), data].concat();
    if dice.one_in(6) {
        bytes.truncate(dice.below(bytes.len()));
    }
    bytes
}

#[test]
fn damaged_safetensors_are_read_or_refused() {
    let directory = directory("safetensors");
    let index = json!({"weight_map": {
        "model.norm.weight": "model.safetensors", "b": "model-00002-of-00002.safetensors",
    }});
    let sound = [
        "llama",
        "llama-4bit-tied",
        "qwen3-8bit-mixed",
        "llama-nvfp4-mixed",
        "llama-mxfp4",
        "llama-awq",
        "llama-gptq",
        "llama-nvfp4-packed",
    ]
    .map(|name| {
        let root = fixtures::directory().join(name);
        let read = |file: &str| fs::read(root.join(file)).unwrap();
        (read("config.json"), read("model.safetensors"))
    });
    survives("safetensors", |dice| {
        let (config, weights) = dice.pick(&sound);
        let (header, data) = split(weights);
        let (weights, place) = (
            damaged_safetensors(&header, data, dice),
            directory.join("model.safetensors.index.json"),
        );
        fs::write(directory.join("config.json"), config)?;
        fs::write(directory.join("model.safetensors"), weights)?;
        if dice.one_in(3) {
            fs::write(place, damaged_json(&index, dice))?;
        } else if place.exists() {
            fs::remove_file(place)?;
        }
        read(&open(&directory)?)
    });
}

// ---- GGUF

/// Numbers at which something begins or ends.
fn edge(dice: &mut Dice) -> u64 {
    let near = *dice.pick(&[
        0,
        1,
        8,
        32,
        64,
        255,
        1 << 16,
        1 << 24,
        1 << 31,
        1 << 32,
        1 << 63,
        u64::MAX,
    ]);
    near.wrapping_add(dice.below(3) as u64).wrapping_sub(1)
}

/// Changes entries as a whole: values of other types, keys that come twice, tensors elsewhere.
fn damage_entries(file: &mut GgufFile, dice: &mut Dice) {
    match dice.below(6) {
        0 => {
            let at = dice.below(file.metadata.len());
            file.metadata[at].1 = dice.below(14) as u32;
        }
        1 => {
            let at = dice.below(file.metadata.len());
            let mut value = edge(dice).to_le_bytes().to_vec();
            value.resize(dice.below(20), 0xff);
            file.metadata[at].2 = value;
        }
        2 => {
            let mut entry = dice.pick(&file.metadata).clone();
            if dice.one_in(2) {
                entry.0 = dice
                    .pick(&["general.alignment", "split.count", "x"])
                    .to_string();
                entry.1 = *dice.pick(&[0, 4, 10]);
                entry.2 = edge(dice).to_le_bytes()[..[1, 4, 8][dice.below(3)]].to_vec();
            }
            file.metadata.push(entry);
        }
        3 => drop(file.metadata.remove(dice.below(file.metadata.len()))),
        4 if !file.tensors.is_empty() => {
            let at = dice.below(file.tensors.len());
            let tensor = &mut file.tensors[at];
            match dice.below(4) {
                0 => tensor.1 = (0..dice.below(6)).map(|_| edge(dice)).collect(),
                1 => tensor.2 = dice.below(42) as u32,
                2 => tensor.3 = edge(dice),
                _ => {
                    tensor.0 =
                        ["a".repeat(300), "x\n".to_owned(), String::new()][dice.below(3)].clone()
                }
            }
        }
        _ if !file.tensors.is_empty() => {
            let tensor = file.tensors.remove(dice.below(file.tensors.len()));
            if dice.one_in(2) {
                file.tensors.extend([tensor.clone(), tensor]);
            }
        }
        _ => {}
    }
}

/// Changes bytes of the file, wherever they are.
fn damage_bytes(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let within = bytes.len().min(4_000);
    match dice.below(4) {
        0 => {
            let at = dice.below(within);
            bytes[at] = dice.roll() as u8;
        }
        1 => {
            let number = edge(dice).to_le_bytes();
            let width = [1, 2, 4, 8][dice.below(4)];
            let at = dice.below(within - 8);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        2 => {
            let length = dice.below(200);
            let (from, to) = (dice.below(within - length), dice.below(within - length));
            bytes.copy_within(from..from + length, to);
        }
        _ => bytes.truncate(dice.below(bytes.len())),
    }
}

#[test]
fn damaged_gguf_files_are_read_or_refused() {
    let path = directory("gguf").join("model.gguf");
    let chain = Chain {
        width: 256,
        ..Chain::new(&["<|endoftext|>", "a", "b"], &[1, 2])
    };
    let whole = [
        chain.gguf_q4_0(),
        Chain::new(&["<|endoftext|>", "a", "b"], &[1]).gguf(),
    ];
    let fixtures = ["gguf-llama", "gguf-qwen2", "gguf-k"]
        .map(|name| fs::read(fixtures::directory().join(name).join("model.gguf")).unwrap());
    survives("gguf", |dice| {
        let mut bytes = if dice.one_in(2) {
            let mut file = dice.pick(&whole).clone();
            for _ in 0..=dice.below(3) {
                damage_entries(&mut file, dice);
            }
            file.bytes()
        } else {
            let mut bytes = dice.pick(&fixtures).clone();
            damage_bytes(&mut bytes, dice);
            bytes
        };
        if dice.one_in(4) && bytes.len() > 4_000 {
            damage_bytes(&mut bytes, dice);
        }
        fs::write(&path, bytes)?;
        let checkpoint = Checkpoint::open("damaged", ModelFiles::Gguf(path.clone()))?;
        read(&checkpoint)?;
        let tokenizer = Tokenizer::open(&checkpoint)?;
        tokenizer.encode_raw("a b").map(|_| ())
    });
}
