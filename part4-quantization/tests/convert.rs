//! What `convert` writes: the bytes of `mlx_lm.convert`, and a checkpoint that answers alike here and there.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process;

use assert_cmd::Command;
use mlx_rs::Dtype;
use part4_quantization::generate::{Generator, generate};
use part4_quantization::kinds::{CacheKind, empty_cache};
use part4_quantization::model::Model;
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::kernels::with_mlx;
use shared::request::Request;
use shared::testing::fixtures;
use shared::testing::skip::skipped;
use shared::tokenizer::Tokenizer;
use tempfile::TempDir;

/// Converts; the new directory is in `place`.
fn convert(place: &TempDir, args: &[&str]) -> PathBuf {
    let out = place.path().join("converted");
    let mut command = Command::cargo_bin("part4-quantization").unwrap();
    command.arg("convert").arg("--out").arg(&out);
    command.args(args).assert().success();
    let left = std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left, 1, "something is left beside the directory");
    out
}

fn read(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn open(folder: &Path) -> Checkpoint {
    let name = folder.to_str().unwrap();
    let checkpoint = Checkpoint::open(name, hub::locate(name, None).unwrap()).unwrap();
    assert_eq!(checkpoint.remarks, Vec::<String>::new());
    checkpoint
}

fn greedy(folder: &Path, ids: &[u32], count: usize) -> Vec<u32> {
    let checkpoint = open(folder);
    let model = Model::load(&checkpoint).unwrap();
    let request = Request {
        ids: ids.to_vec(),
        max_tokens: count,
        ..Request::default()
    };
    let mut cache = empty_cache(CacheKind::Prealloc, &checkpoint.config);
    let mut generator = Generator::new(&model, &mut cache, &request, 512).unwrap();
    let generation = generate(&mut generator, |_| Ok(ControlFlow::Continue(())));
    generation.unwrap().tokens
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// What mlx-lm was told, as flags.
fn flags(settings: &Value) -> Vec<String> {
    let mut flags = Vec::new();
    for (setting, flag) in [
        ("q_bits", "--bits"),
        ("q_group_size", "--group-size"),
        ("quant_predicate", "--mixed"),
        ("dtype", "--dtype"),
    ] {
        let text = match &settings[setting] {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            number => number.to_string(),
        };
        let text = match text.as_str() {
            "float32" => "f32".to_owned(),
            "float16" => "f16".to_owned(),
            _ => text,
        };
        flags.extend([flag.to_owned(), text]);
    }
    flags
}

/// What stands in `config.json`, modules apart, in the form of the fixture.
fn parts_of_config(folder: &Path) -> (Value, Value, Value) {
    let mut config = read(folder.join("config.json"));
    let keys: Vec<&String> = config.as_object().unwrap().keys().collect();
    assert!(keys.is_sorted(), "{keys:?}");
    let take = |config: &mut Value, key: &str| config.as_object_mut().unwrap().remove(key);
    let quantization = take(&mut config, "quantization").unwrap();
    assert_eq!(
        take(&mut config, "quantization_config").as_ref(),
        Some(&quantization)
    );
    let (mut top, mut modules) = (Map::new(), BTreeMap::new());
    for (key, value) in quantization.as_object().unwrap() {
        if key.contains('.') {
            assert_eq!(value["mode"], "affine");
            assert_eq!(value["group_size"], quantization["group_size"]);
            modules.insert(key.clone(), value["bits"].clone());
        } else {
            top.insert(key.clone(), value.clone());
        }
    }
    (config, top.into(), json!(modules))
}

#[test]
fn a_conversion_is_byte_for_byte_that_of_mlx_lm() {
    let fixture: Value = fixtures::json("tiny/converted.json").unwrap();
    for (name, expected) in fixture["conversions"].as_object().unwrap() {
        let place = TempDir::new().unwrap();
        let flags = flags(&expected["settings"]);
        let folder = convert(
            &place,
            &flags.iter().map(String::as_str).collect::<Vec<_>>(),
        );

        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut digest = Sha256::new();
        let mut names = file.names();
        names.sort_unstable();
        names
            .iter()
            .for_each(|name| digest.update(file.tensor(name).unwrap().data()));
        let digest: String = digest
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(expected["tensors"], names.len(), "{name}");
        assert_eq!(expected["sha256"], digest, "{name}");

        let (mut config, quantization, modules) = parts_of_config(&folder);
        if expected["settings"]["dtype"].is_string() {
            // Ours says which type the tensors have; mlx-lm's keeps the old one.
            assert_ne!(config["torch_dtype"], expected["config"]["torch_dtype"]);
            config["torch_dtype"] = expected["config"]["torch_dtype"].clone();
        }
        assert_eq!(config, expected["config"], "{name}");
        assert_eq!(quantization, expected["quantization"], "{name}");
        assert_eq!(modules, expected["modules"], "{name}");
        let index = read(folder.join("model.safetensors.index.json"));
        assert_eq!(index["metadata"], expected["metadata"], "{name}");
        assert_eq!(index["weight_map"].as_object().unwrap().len(), names.len());
    }
}

#[test]
fn a_conversion_gives_the_greedy_tokens_of_mlx_lm() {
    let fixture: Value = fixtures::json("tiny/converted.json").unwrap();
    let mut prompts = 0;
    for expected in fixture["conversions"].as_object().unwrap().values() {
        let Some(of_fixture) = expected["prompts"].as_array() else {
            continue;
        };
        let place = TempDir::new().unwrap();
        let flags = flags(&expected["settings"]);
        let folder = convert(
            &place,
            &flags.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        for prompt in of_fixture {
            let tokens = || greedy(&folder, &ids(&prompt["ids"]), 64);
            assert_eq!(tokens(), ids(&prompt["greedy"]));
            assert_eq!(with_mlx(tokens), ids(&prompt["greedy"]));
            prompts += 1;
        }
    }
    assert_eq!(prompts, 4);
}

#[test]
fn files_around_the_weights_are_copied_as_they_are() {
    let place = TempDir::new().unwrap();
    let folder = convert(&place, &[]);
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/tiny");
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
    ] {
        let [ours, source] = [&folder, &tiny].map(|from| std::fs::read(from.join(name)).unwrap());
        assert!(ours == source, "{name}");
    }
    let card = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(card.contains("library_name: mlx\n"), "{card}");
    assert!(
        card.contains("4 bits in groups of 64 (57 modules)"),
        "{card}"
    );
}

/// The interpreter that `cargo xtask fetch mlx-lm` installs.
fn mlx_lm() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.mlx/oracle/bin/python");
    if python.exists() {
        return Some(python);
    }
    skipped("needs mlx-lm: `cargo xtask fetch mlx-lm`");
    None
}

fn greedy_by_mlx_lm(python: &Path, folder: &Path, ids: &[u32]) -> Vec<u32> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/xtask/python/greedy.py");
    let mut command = process::Command::new(python);
    command.arg(script).arg(folder).arg("64");
    command.args(ids.iter().map(u32::to_string));
    let output = command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Overrides are no flag of mlx-lm, but its loader knows what they leave in the configuration.
#[test]
fn mlx_lm_loads_what_overrides_left_and_gives_the_same_tokens() {
    let Some(python) = mlx_lm() else {
        return;
    };
    let place = TempDir::new().unwrap();
    let overrides = [
        ["--override", "embed_tokens=8:32"],
        ["--override", r"layers\.[01]\.=none"],
        ["--override", "o_proj=5"],
    ];
    let flags = [
        &["--dtype", "f32", "--mixed", "mixed_3_4"][..],
        &overrides.concat(),
    ]
    .concat();
    let folder = convert(&place, &flags);
    let prompt: Vec<u32> = (0..20).map(|index| 100 + index * 37 % 3900).collect();
    let tokens = greedy(&folder, &prompt, 64);
    assert_eq!(tokens, greedy_by_mlx_lm(&python, &folder, &prompt));
    let quantization = open(&folder).config.quantization.unwrap();
    let of = |module: &str| {
        quantization
            .of(module)
            .map(|group| (group.bits, group.group_size))
    };
    assert_eq!(of("model.embed_tokens"), Some((8, 32)));
    assert_eq!(of("model.layers.1.mlp.up_proj"), None);
    assert_eq!(of("model.layers.1.self_attn.o_proj"), Some((5, 64)));
}

/// Converts `model` with mlx-lm at run time: float modes have no fixture.
fn convert_by_mlx_lm(python: &Path, model: &Path, out: &Path, mode: &str) {
    let script = "
import sys
import mlx.core as mx
mx.set_default_device(mx.cpu)
from mlx_lm.convert import convert
model, out, mode = sys.argv[1:]
convert(model, out, quantize=True, q_mode=mode, q_group_size=None, q_bits=None)
";
    let mut command = process::Command::new(python);
    command.args(["-c", script]).args([model, out]).arg(mode);
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output();
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

/// All tensors, and the configuration without what mlx-lm orders otherwise.
fn contents(folder: &Path) -> (BTreeMap<String, Vec<u8>>, Value) {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| {
        let view = file.tensor(name).unwrap();
        let head = format!("{:?} {:?} ", view.dtype(), view.shape());
        (name.to_owned(), [head.as_bytes(), view.data()].concat())
    };
    let tensors = file.names().into_iter().map(tensor).collect();
    (tensors, read(folder.join("config.json")))
}

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/models/tiny");

/// Of the first conversion among the fixtures: a question to the built-in model.
fn prompts() -> Vec<Vec<u32>> {
    let fixture: Value = fixtures::json("tiny/converted.json").unwrap();
    let mut conversions = fixture["conversions"].as_object().unwrap().values();
    let prompts = conversions.find_map(|of| of["prompts"].as_array()).unwrap();
    prompts.iter().map(|prompt| ids(&prompt["ids"])).collect()
}

/// In f32: in 16 bits MLX adds up the products of float modes in 16 bits, which is done in f32 here.
fn assert_same_tokens(python: &Path, folder: &Path, what: &str) {
    let prompt = &prompts()[0];
    let theirs = greedy_by_mlx_lm(python, folder, prompt);
    assert_eq!(greedy(folder, prompt, 64), theirs, "{what}");
}

#[test]
fn float_modes_are_byte_for_byte_those_of_mlx_lm() {
    let Some(python) = mlx_lm() else {
        return;
    };
    for mode in ["mxfp4", "mxfp8", "nvfp4"] {
        let place = TempDir::new().unwrap();
        let folder = convert(&place, &["--mode", mode]);
        let theirs = place.path().join("theirs");
        convert_by_mlx_lm(&python, Path::new(TINY), &theirs, mode);
        let (ours, theirs) = (contents(&folder), contents(&theirs));
        assert!(ours.0 == theirs.0, "tensors of {mode}");
        assert_eq!(ours.1, theirs.1, "{mode}");
    }
}

#[test]
fn mlx_lm_loads_float_modes_and_gives_the_same_tokens() {
    let Some(python) = mlx_lm() else {
        return;
    };
    let mut all = Vec::new();
    for flags in [
        "--mode mxfp4 --dtype f32",
        "--mode mxfp4 --fit best --dtype f32",
        "--mode mxfp8 --dtype f32",
        "--mode nvfp4 --fit best --dtype f32 --override o_proj=6 --override v_proj=mxfp8",
        r"--override mlp=mxfp4 --override layers\.0\.=none --dtype f32",
    ] {
        let place = TempDir::new().unwrap();
        let folder = convert(&place, &flags.split(' ').collect::<Vec<_>>());
        assert_same_tokens(&python, &folder, flags);
        all.push(contents(&folder).0);
    }
    let sizes = |tensors: &BTreeMap<String, Vec<u8>>| -> Vec<usize> {
        tensors.values().map(Vec::len).collect()
    };
    assert!(all[0] != all[1] && sizes(&all[0]) == sizes(&all[1]));
}

/// A GGUF file of floats, made by llama.cpp's own writer: config.json and the tokenizer are made of its metadata.
#[test]
fn a_gguf_file_of_floats_becomes_a_directory_that_mlx_lm_loads() {
    let Some(python) = mlx_lm() else {
        return;
    };
    let source = TempDir::new().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/xtask/python");
    let script = "
import sys
from pathlib import Path
import gguf_fixtures as fixtures
for spec in (fixtures.LLAMA, fixtures.QWEN2):
    path = Path(sys.argv[1]) / (spec['name'] + '.gguf')
    fixtures.write(path, spec | {'types': {'': fixtures.Q.F16}}, spec['seed'])
";
    let mut command = process::Command::new(&python);
    command.args(["-c", script]).arg(source.path());
    command
        .env("PYTHONPATH", &scripts)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for name in ["gguf-llama", "gguf-qwen2"] {
        let place = TempDir::new().unwrap();
        let file = source.path().join(format!("{name}.gguf"));
        let flags = [
            "--dtype",
            "f32",
            "--group-size",
            "32",
            "--bits",
            "8",
            "--model",
        ];
        let folder = convert(&place, &[&flags[..], &[file.to_str().unwrap()]].concat());
        let checkpoint = open(&folder);
        let original = Checkpoint::open(name, hub::locate(file.to_str().unwrap(), None).unwrap());
        let [ours, theirs] = [&checkpoint, &original.unwrap()]
            .map(|checkpoint| Tokenizer::open(checkpoint).unwrap());
        let text = "hello there, 12 other lines! 🙂";
        let encoded = ours.encode_prompt(text, false).unwrap();
        assert_eq!(encoded, theirs.encode_prompt(text, false).unwrap());
        assert_eq!(ours.stop_ids(), theirs.stop_ids());
        let tokens = greedy(&folder, &encoded, 32);
        assert_eq!(
            tokens,
            greedy_by_mlx_lm(&python, &folder, &encoded)[..32],
            "{name}"
        );
    }
}

fn gguf(name: &str) -> PathBuf {
    fixtures::directory().join(name).join("model.gguf")
}

#[test]
fn blocks_of_a_gguf_file_become_the_very_tensors_that_loading_it_gives() {
    for (name, card) in [
        ("gguf-k", "Q4_K code by code, scales in F32 (3)"),
        ("gguf-k", "Q5_0 code by code, scales in F16 (1)"),
        ("gguf-k", "Q6_K unpacked to F16 (2)"),
        ("gguf-llama", "Q8_0 code by code, scales in F16"),
        ("gguf-qwen2", "Q4_0 code by code, scales in F16"),
    ] {
        let place = TempDir::new().unwrap();
        let file = gguf(name);
        let folder = convert(&place, &["--model", file.to_str().unwrap()]);
        let loaded = |path: &Path| {
            let path = path.to_str().unwrap();
            let checkpoint = Checkpoint::open(path, hub::locate(path, None).unwrap()).unwrap();
            checkpoint.load_weights().unwrap().into_tensors()
        };
        let (ours, file) = (loaded(&folder), loaded(&file));
        assert_eq!(ours.len(), file.len(), "{name}");
        for (tensor, array) in &file {
            // Loading makes F16 of BF16, as MLX's reader does; a conversion has no need to.
            let (ours, kept) = (&ours[tensor], Dtype::Bfloat16);
            assert!(
                [array.dtype(), kept].contains(&ours.dtype()),
                "{tensor} of {name}"
            );
            let ours = ours.as_dtype(array.dtype()).unwrap();
            assert!(ours.eq_values(array).unwrap(), "{tensor} of {name}");
        }
        let text = std::fs::read_to_string(folder.join("README.md")).unwrap();
        assert!(text.contains(card), "{text}");
    }
}

#[test]
fn mlx_lm_loads_what_was_blocks_and_gives_the_same_tokens() {
    let Some(python) = mlx_lm() else {
        return;
    };
    for (name, flags, packed) in [
        ("gguf-k", "--dtype f32", [None, Some((5, 32))]),
        (
            "gguf-k",
            "--dtype f32 --requantize",
            [Some((6, 32)), Some((5, 32))],
        ),
        (
            "gguf-k",
            "--dtype f32 --requantize --override self_attn=8:32",
            [Some((8, 32)), Some((5, 32))],
        ),
        ("gguf-llama", "--dtype f32", [None, Some((4, 32))]),
    ] {
        let place = TempDir::new().unwrap();
        let file = gguf(name);
        let mut args = vec!["--model", file.to_str().unwrap()];
        args.extend(flags.split(' '));
        let folder = convert(&place, &args);
        let checkpoint = open(&folder);
        let prompt = Tokenizer::open(&checkpoint).unwrap();
        let prompt = prompt
            .encode_prompt("hello there, 12 other lines!", false)
            .unwrap();
        let tokens = greedy(&folder, &prompt, 64);
        assert_eq!(
            tokens,
            greedy_by_mlx_lm(&python, &folder, &prompt),
            "{flags}"
        );
        let quantization = checkpoint.config.quantization.unwrap();
        let of = |module: &str| {
            let group = quantization.of(&format!("model.layers.{module}"));
            group.map(|group| (group.bits, group.group_size))
        };
        let found = [of("1.self_attn.q_proj"), of("1.mlp.gate_proj")];
        println!("{name} {flags}: {found:?}");
        assert_eq!(found, packed, "{name} {flags}");
    }
}

/// The fixture was converted by mlx-lm from the same directory.
#[test]
fn smollm2_gives_the_greedy_tokens_of_mlx_lms_conversion() {
    let Some(source) = fixtures::smollm2_f32() else {
        return;
    };
    let place = TempDir::new().unwrap();
    let folder = convert(&place, &["--model", source.to_str().unwrap()]);
    let expected: Value = fixtures::json("smollm2/expected.json").unwrap();
    let variants = expected["variants"].as_array().unwrap();
    let variant = variants.iter().find(|v| v["variant"] == "4-bit").unwrap();
    for prompt in variant["prompts"].as_array().unwrap() {
        let tokens = greedy(&folder, &ids(&prompt["ids"]), 64);
        assert_eq!(tokens, ids(&prompt["greedy"]));
    }
}

#[test]
fn smollm2_in_float_modes_gives_the_greedy_tokens_of_mlx_lm() {
    let (Some(source), Some(python)) = (fixtures::smollm2_f32(), mlx_lm()) else {
        return;
    };
    let expected: Value = fixtures::json("smollm2/expected.json").unwrap();
    let prompt = ids(&expected["variants"][0]["prompts"][0]["ids"]);
    for flags in ["--mode mxfp4 --fit best", "--mode nvfp4"] {
        let place = TempDir::new().unwrap();
        let mut args = vec!["--model", source.to_str().unwrap()];
        args.extend(flags.split(' '));
        let folder = convert(&place, &args);
        let theirs = greedy_by_mlx_lm(&python, &folder, &prompt);
        assert_eq!(greedy(&folder, &prompt, 64), theirs, "{flags}");
    }
}
