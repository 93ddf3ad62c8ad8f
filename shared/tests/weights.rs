//! Checkpoints and their tensors: each one is taken once, and each defect has one clear line.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use mlx_rs::{Array, Dtype, ops};
use proptest::prelude::*;
use serde_json::json;
use shared::checkpoint::Checkpoint;
use shared::config::{Mode, ModelConfig};
use shared::ffi::quantized::quantize;
use shared::hub::{Embedded, ModelFiles, embedded};
use shared::layers::to_f32;
use shared::testing::checkpoints::{self, Defect, broken};
use shared::testing::fixtures;
use shared::weights::Weights;
use tempfile::TempDir;

fn tiny() -> Checkpoint {
    Checkpoint::open("tiny", ModelFiles::Embedded(Embedded::Tiny)).unwrap()
}

fn open(path: &Path) -> anyhow::Result<Checkpoint> {
    let files = match path.extension() {
        Some(ending) if ending == "gguf" => ModelFiles::Gguf(path.to_owned()),
        _ => ModelFiles::Directory(path.to_owned()),
    };
    Checkpoint::open("broken", files)
}

/// Takes all tensors that the configuration asks for, as a model does.
fn take_all(config: &ModelConfig, mut weights: Weights) -> anyhow::Result<()> {
    for (module, shape) in modules(config) {
        if let [rows, columns] = shape[..]
            && weights.take_quantized(&module, rows, columns)?.is_some()
        {
            continue;
        }
        weights.take(&format!("{module}.weight"), &shape)?;
    }
    for (name, width) in biases(config) {
        weights.take(&name, &[width])?;
    }
    if !weights.tied() {
        let (vocabulary, width) = (config.vocab_size, config.hidden_size);
        if weights
            .take_quantized("lm_head", vocabulary, width)?
            .is_none()
        {
            weights.take("lm_head.weight", &[vocabulary, width])?;
        }
    }
    weights.finish()
}

/// Modules with a weight, and its shape; without the head.
fn modules(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (e, f, d) = (
        config.hidden_size,
        config.intermediate_size,
        config.head_dim,
    );
    let (q, kv) = (
        config.num_attention_heads * d,
        config.num_key_value_heads * d,
    );
    let mut found = vec![("model.embed_tokens".to_owned(), vec![config.vocab_size, e])];
    found.push(("model.norm".to_owned(), vec![e]));
    for layer in 0..config.num_hidden_layers {
        let mut add = |name: &str, shape: &[usize]| {
            found.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
        };
        add("input_layernorm", &[e]);
        add("post_attention_layernorm", &[e]);
        add("self_attn.q_proj", &[q, e]);
        add("self_attn.k_proj", &[kv, e]);
        add("self_attn.v_proj", &[kv, e]);
        add("self_attn.o_proj", &[e, q]);
        add("mlp.gate_proj", &[f, e]);
        add("mlp.up_proj", &[f, e]);
        add("mlp.down_proj", &[e, f]);
        if config.qk_norm {
            add("self_attn.q_norm", &[d]);
            add("self_attn.k_norm", &[d]);
        }
    }
    found
}

fn biases(config: &ModelConfig) -> Vec<(String, usize)> {
    let (e, f, d) = (
        config.hidden_size,
        config.intermediate_size,
        config.head_dim,
    );
    let (q, kv) = (
        config.num_attention_heads * d,
        config.num_key_value_heads * d,
    );
    let all = [
        ("self_attn.q_proj", q, config.attention_bias),
        ("self_attn.k_proj", kv, config.attention_bias),
        ("self_attn.v_proj", kv, config.attention_bias),
        ("self_attn.o_proj", e, config.attention_out_bias),
        ("mlp.gate_proj", f, config.mlp_bias),
        ("mlp.up_proj", f, config.mlp_bias),
        ("mlp.down_proj", e, config.mlp_bias),
    ];
    let layers = 0..config.num_hidden_layers;
    let present = all.into_iter().filter(|&(_, _, there)| there);
    let names = present.flat_map(|(name, width, _)| {
        layers
            .clone()
            .map(move |layer| (format!("model.layers.{layer}.{name}.bias"), width))
    });
    names.collect()
}

/// What a model's loading says, from opening the files to the last tensor.
fn load(path: &Path) -> anyhow::Result<()> {
    let checkpoint = open(path)?;
    take_all(&checkpoint.config, checkpoint.load_weights()?)
}

#[track_caller]
fn says<T>(result: anyhow::Result<T>, words: &[&str]) {
    let Err(error) = result else {
        panic!("no error, expected {words:?}")
    };
    let line = format!("{error:#}");
    assert!(!line.contains('\n'), "{line}");
    assert!(line.len() < 600, "{line}");
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
}

#[test]
fn the_embedded_model_has_every_tensor_once_and_no_other() {
    let checkpoint = tiny();
    take_all(&checkpoint.config, checkpoint.load_weights().unwrap()).unwrap();
}

#[test]
fn the_embedded_model_stays_in_bf16_and_equals_its_files() {
    let directory = TempDir::new().unwrap();
    checkpoints::intact(directory.path()).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight";
    let mut inside = tiny().load_weights().unwrap();
    let mut outside = open(directory.path()).unwrap().load_weights().unwrap();
    let (inside, outside) = (
        inside.take(name, &[768, 256]).unwrap(),
        outside.take(name, &[768, 256]).unwrap(),
    );
    assert_eq!(inside.dtype(), Dtype::Bfloat16);
    assert_eq!(to_f32(&inside).unwrap(), to_f32(&outside).unwrap());
}

#[test]
fn every_fixture_has_every_tensor_once_and_no_other() {
    for name in fixtures::checkpoints().unwrap() {
        let checkpoint = fixtures::checkpoint(&name).unwrap();
        take_all(&checkpoint.config, checkpoint.load_weights().unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

#[test]
fn parameters_are_those_of_the_architecture_packed_or_not() {
    for name in fixtures::checkpoints().unwrap() {
        let checkpoint = fixtures::checkpoint(&name).unwrap();
        let config = &checkpoint.config;
        let weights: usize = modules(config)
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        let biases: usize = biases(config).iter().map(|(_, width)| width).sum();
        let head = if checkpoint.tied() {
            0
        } else {
            config.vocab_size * config.hidden_size
        };
        assert_eq!(
            checkpoint.parameters(),
            (weights + biases + head) as u64,
            "{name}"
        );
    }
}

#[test]
fn weight_bytes_are_those_that_mlx_holds() {
    for name in fixtures::checkpoints().unwrap() {
        let checkpoint = fixtures::checkpoint(&name).unwrap();
        let held: usize = checkpoint
            .load_weights()
            .unwrap()
            .into_tensors()
            .values()
            .map(|array| array.nbytes())
            .sum();
        assert_eq!(checkpoint.weight_bytes(), held as u64, "{name}");
    }
}

#[test]
fn every_defect_has_one_clear_line() {
    let words = |defect| match defect {
        Defect::TruncatedShard => &["model.safetensors", "ends before", "download it again"][..],
        Defect::HeaderLongerThanFile => &["model.safetensors", "header is longer than the file"],
        Defect::OverlappingOffsets => &["model.safetensors", "mlp", "overlap"],
        Defect::OffsetsOutOfRange => &["model.safetensors", "download it again"],
        Defect::MissingTensor => &["model.layers.3.mlp.down_proj.weight", "missing"],
        Defect::ExtraTensor => &["model.layers.3.mlp.router.weight", "1 extra"],
        Defect::WrongShape => &["mlp.down_proj.weight", "[768, 256]", "[256, 768]"],
        Defect::UnknownModelType => &["llamma", "qwen3"],
        Defect::Awq => &["awq", "MLX"],
        Defect::IQuantGguf => &["IQ2_XXS", "blk.0.ffn_down.weight", "Q4_K"],
        Defect::BrokenJson => &["config.json", "line"],
        Defect::NoConfig => &["config.json", "broken"],
        Defect::NoTokenizer | Defect::RaisingTemplate | Defect::NotANumber => &[],
    };
    for defect in Defect::ALL {
        let directory = TempDir::new().unwrap();
        let path = broken(defect, directory.path()).unwrap();
        match words(defect) {
            [] => load(&path).unwrap(),
            words => says(load(&path), words),
        }
    }
}

/// Writes tensors of one value each as safetensors.
fn write(path: &Path, tensors: &[(&str, &[i32])]) {
    let arrays: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| (*name, Array::ones::<f32>(shape).unwrap()))
        .collect();
    Array::save_safetensors(
        arrays.iter().map(|(name, array)| (*name, array)),
        None,
        path,
    )
    .unwrap();
}

/// A checkpoint of mixed bits, its `quantization` changed.
fn mixed(change: impl Fn(&mut serde_json::Value)) -> Checkpoint {
    let directory = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        let from = fixtures::directory().join("qwen3-8bit-mixed").join(file);
        fs::copy(from, directory.path().join(file)).unwrap();
    }
    let path = directory.path().join("config.json");
    let mut config = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
    let checkpoint = open(directory.path()).unwrap();
    take_all(&checkpoint.config, checkpoint.load_weights().unwrap()).unwrap();
    checkpoint
}

#[test]
fn bits_and_group_size_are_those_of_the_shapes_whatever_the_config_says() {
    let right = mixed(|_| {});
    assert!(right.remarks.is_empty(), "{:?}", right.remarks);
    type Change = fn(&mut serde_json::Value);
    let changes: [(Change, &str); 4] = [
        // What conversions have done: entries lost.
        (
            |config| config["quantization"] = json!({"group_size": 64, "bits": 8}),
            "layers.1.mlp.down_proj, which decide",
        ),
        (
            |config| config["quantization"]["bits"] = json!(4),
            "more, which decide",
        ),
        (
            |config| config["quantization"]["model.layers.0.mlp.up_proj"] = json!(false),
            "layers.0.mlp.up_proj, which decide",
        ),
        (
            |config| {
                config["quantization"] = json!(null);
                config["quantization_config"] = json!(null);
            },
            "more, which decide",
        ),
    ];
    for (change, words) in changes {
        let checkpoint = mixed(change);
        let [remark] = &checkpoint.remarks[..] else {
            panic!("{:?}", checkpoint.remarks)
        };
        assert!(remark.contains(words), "no {words:?} in {remark}");
        assert_eq!(checkpoint.parameters(), right.parameters());
        let of = |checkpoint: &Checkpoint, module: &str| {
            checkpoint.config.quantization.clone().unwrap().of(module)
        };
        for (module, shape) in modules(&right.config) {
            let scaled =
                |tensor: &shared::checkpoint::TensorInfo| tensor.name == format!("{module}.scales");
            if shape.len() == 2 && right.tensors.iter().any(scaled) {
                assert_eq!(of(&checkpoint, &module), of(&right, &module), "{module}");
            }
        }
    }
}

/// A directory with a configuration, an index and shards of the given names.
fn sharded(index: serde_json::Value, shards: &[(&str, &[&str])]) -> TempDir {
    let directory = TempDir::new().unwrap();
    let config = fixtures::directory().join("llama-sharded/config.json");
    fs::copy(config, directory.path().join("config.json")).unwrap();
    let index = json!({"weight_map": index}).to_string();
    fs::write(directory.path().join("model.safetensors.index.json"), index).unwrap();
    for (shard, names) in shards {
        let tensors: Vec<_> = names.iter().map(|name| (*name, &[2][..])).collect();
        write(&directory.path().join(shard), &tensors);
    }
    directory
}

const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";

#[test]
fn an_index_whose_shard_is_not_there_names_the_shard() {
    let directory = sharded(json!({"a": ONE, "b": TWO}), &[(ONE, &["a"])]);
    says(open(directory.path()), &[TWO]);
}

#[test]
fn an_index_that_promises_a_tensor_to_the_wrong_shard_is_refused() {
    let directory = sharded(
        json!({"a": ONE, "b": TWO, "c": TWO}),
        &[(ONE, &["a"]), (TWO, &["b"])],
    );
    says(open(directory.path()), &["c is in", TWO]);
    let swapped = sharded(json!({"a": TWO, "b": ONE}), &[(ONE, &["a"]), (TWO, &["b"])]);
    says(open(swapped.path()), &["a is in", TWO]);
}

/// The embedded model in a directory: its weights in one file, or in two of which each has its half.
fn tiny_in(shards: &[&str]) -> TempDir {
    let directory = TempDir::new().unwrap();
    checkpoints::intact(directory.path()).unwrap();
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(embedded::WEIGHTS).unwrap();
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let half = tensors.len().div_ceil(shards.len());
    for (shard, tensors) in shards.iter().zip(tensors.chunks(half)) {
        let bytes = safetensors::serialize(tensors.to_vec(), None).unwrap();
        fs::write(directory.path().join(shard), bytes).unwrap();
    }
    directory
}

fn write_index(directory: &Path, map: serde_json::Value) {
    let index = json!({ "weight_map": map }).to_string();
    fs::write(directory.join("model.safetensors.index.json"), index).unwrap();
}

const EMBEDDING: &str = "model.embed_tokens.weight";

#[test]
fn an_index_of_another_build_beside_a_whole_model_is_told_and_not_believed() {
    let single = "model.safetensors";
    let four = [
        "model-00001-of-00004.safetensors",
        "model-00004-of-00004.safetensors",
    ];
    for (shards, map) in [
        (
            &[single][..],
            json!({EMBEDDING: ONE, "model.norm.weight": TWO}),
        ),
        (
            &[ONE, TWO],
            json!({EMBEDDING: four[0], "model.norm.weight": four[1]}),
        ),
        // Tied: no file has the head.
        (
            &[single],
            json!({EMBEDDING: single, "lm_head.weight": single}),
        ),
        (&[ONE, TWO], json!({EMBEDDING: TWO})),
    ] {
        let directory = tiny_in(shards);
        write_index(directory.path(), map);
        let checkpoint = open(directory.path()).unwrap();
        assert_eq!(checkpoint.parameters(), tiny().parameters());
        take_all(&checkpoint.config, checkpoint.load_weights().unwrap()).unwrap();
        let [remark] = &checkpoint.remarks[..] else {
            panic!("{:?}", checkpoint.remarks)
        };
        assert!(
            remark.contains("index.json says that") && remark.contains("decide"),
            "{remark}"
        );
    }
    let directory = tiny_in(&[single]);
    fs::write(directory.path().join("model.safetensors.index.json"), "{").unwrap();
    let checkpoint = open(directory.path()).unwrap();
    assert!(checkpoint.remarks[0].contains("cannot be read"));
}

#[test]
fn half_a_model_is_refused_before_it_is_described() {
    let directory = tiny_in(&[ONE, TWO]);
    fs::remove_file(directory.path().join(TWO)).unwrap();
    says(
        open(directory.path()),
        &["not whole", "model.layers.7.input", "download complete?"],
    );
    write_index(
        directory.path(),
        json!({EMBEDDING: ONE, "model.norm.weight": TWO}),
    );
    says(open(directory.path()), &[TWO, "incomplete"]);
    // A head that is not tied and not there.
    let directory = tiny_in(&["model.safetensors"]);
    checkpoints::edit(
        directory.path(),
        "config.json",
        "tie_word_embeddings",
        json!(false),
    )
    .unwrap();
    says(open(directory.path()), &["lm_head.weight", "missing"]);
}

#[test]
fn a_tensor_in_two_shards_names_both() {
    let directory = sharded(
        json!({"a": ONE, "b": TWO}),
        &[(ONE, &["a"]), (TWO, &["a", "b"])],
    );
    says(open(directory.path()), &["tensor a", ONE, TWO]);
}

#[test]
fn a_broken_index_is_located() {
    let directory = sharded(json!({"a": ONE}), &[(ONE, &["a"])]);
    let index = directory.path().join("model.safetensors.index.json");
    fs::write(&index, "{\"weight_map\": ").unwrap();
    says(
        open(directory.path()),
        &["model.safetensors.index.json", "line"],
    );
}

#[test]
fn a_header_that_is_quoted_in_a_message_cannot_break_the_line() {
    let directory = TempDir::new().unwrap();
    checkpoints::intact(directory.path()).unwrap();
    let tensor = json!({"dtype": "F\n\u{1b}[31m", "shape": [1], "data_offsets": [0, 4]});
    let header = json!({ "a": tensor }).to_string();
    let bytes = [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        &[0; 4],
    ]
    .concat();
    fs::write(directory.path().join("model.safetensors"), bytes).unwrap();
    let error = format!("{:#}", open(directory.path()).unwrap_err());
    assert!(error.contains("header is damaged"), "{error}");
    assert!(!error.contains(char::is_control), "{error:?}");
}

#[test]
fn only_files_that_end_in_safetensors_are_loaded() {
    let directory = sharded(json!({"a": "pytorch_model.bin"}), &[]);
    fs::write(directory.path().join("pytorch_model.bin"), "x").unwrap();
    says(
        open(directory.path()),
        &["pytorch_model.bin", "safetensors"],
    );
}

#[test]
fn an_empty_shard_or_a_directory_in_its_place_is_refused() {
    let directory = TempDir::new().unwrap();
    checkpoints::intact(directory.path()).unwrap();
    let shard = directory.path().join("model.safetensors");
    fs::write(&shard, "").unwrap();
    says(open(directory.path()), &["model.safetensors", "too short"]);
    fs::remove_file(&shard).unwrap();
    fs::create_dir(&shard).unwrap();
    says(open(directory.path()), &["model.safetensors"]);
}

#[test]
fn a_type_that_no_layer_computes_in_is_refused() {
    let directory = TempDir::new().unwrap();
    checkpoints::intact(directory.path()).unwrap();
    let ids = Array::from_slice(&[1i64, 2], &[2]);
    let path = directory.path().join("model.safetensors");
    Array::save_safetensors([("model.ids", &ids)], None, &path).unwrap();
    says(open(directory.path()), &["model.ids", "I64", "BF16"]);
}

/// Weights of a configuration with 4-bit groups of 32 and one matrix `[4, 64]`.
fn quantized(change: impl FnOnce(&mut HashMap<String, Array>)) -> Weights {
    let dense = Array::ones::<f32>(&[4, 64]).unwrap();
    let (weight, scales, biases) = ops::quantize(&dense, 32, 4).unwrap();
    let mut tensors = HashMap::from([
        ("m.weight".to_owned(), weight),
        ("m.scales".to_owned(), scales),
        ("m.biases".to_owned(), biases),
    ]);
    change(&mut tensors);
    Weights::new(tensors, &quantized_config(json!({})))
}

fn quantized_config(overrides: serde_json::Value) -> ModelConfig {
    let mut config: serde_json::Value = serde_json::from_str(embedded::CONFIG).unwrap();
    config["quantization"] = json!({"group_size": 32, "bits": 4});
    for (key, value) in overrides.as_object().unwrap() {
        config["quantization"][key] = value.clone();
    }
    ModelConfig::from_json(&config.to_string(), None).unwrap()
}

#[test]
fn a_quantized_matrix_is_taken_with_scales_and_biases() {
    let mut weights = quantized(|_| ());
    let triple = weights.take_quantized("m", 4, 64).unwrap().unwrap();
    assert_eq!((triple.group_size, triple.bits), (32, 4));
    assert_eq!(triple.weight.shape(), [4, 8]);
    weights.finish().unwrap();
}

/// Weights with one matrix `[4, 64]` packed in a float mode, and a global scale.
fn in_mode(mode: Mode, change: impl FnOnce(&mut HashMap<String, Array>)) -> Weights {
    let dense = Array::ones::<f32>(&[4, 64]).unwrap();
    let group = mode.only_packing().unwrap();
    let (weight, scales, _) = quantize(&dense, group).unwrap();
    let mut tensors = HashMap::from([
        ("m.weight".to_owned(), weight),
        ("m.scales".to_owned(), scales),
        ("m.global_scale".to_owned(), Array::from_f32(5376.0)),
    ]);
    change(&mut tensors);
    Weights::new(
        tensors,
        &quantized_config(json!({"m": {"mode": mode.name()}})),
    )
}

#[test]
fn only_nvfp4_takes_a_global_scale() {
    let x = Array::ones::<f32>(&[1, 64]).unwrap();
    let product = |mut weights: Weights| {
        let matrix = weights.root().linear("m", 4, 64, false).unwrap();
        weights.finish().unwrap();
        to_f32(&matrix.forward(&x).unwrap()).unwrap()
    };
    let plain = product(in_mode(Mode::Nvfp4, |tensors| {
        tensors.remove("m.global_scale");
    }));
    let doubled: Vec<f32> = plain.iter().map(|y| 2.0 * y).collect();
    assert_eq!(product(in_mode(Mode::Nvfp4, |_| ())), doubled); // 5376 is 2 · 6 · 448
    for mode in [Mode::Mxfp4, Mode::Mxfp8] {
        let mut weights = in_mode(mode, |_| ());
        let triple = weights.take_quantized("m", 4, 64).unwrap().unwrap();
        assert!(triple.global_scale.is_none() && triple.biases.is_none());
        says(weights.finish(), &["m.global_scale"]);
    }
}

#[test]
fn pieces_of_a_float_mode_that_do_not_fit_are_named() {
    let ones = |shape: &[i32]| Array::ones::<f32>(shape).unwrap();
    let cases: [(&str, Array, &[&str]); 3] = [
        (
            "m.scales",
            ones(&[4, 4]),
            &["m.scales", "Float32", "nvfp4", "one byte"],
        ),
        (
            "m.scales",
            Array::ones::<u8>(&[4, 2]).unwrap(),
            &["m.scales", "[4, 2]", "[4, 4]"],
        ),
        (
            "m.global_scale",
            ones(&[2]),
            &["m.global_scale", "one float"],
        ),
    ];
    for (name, part, words) in cases {
        let mut weights = in_mode(Mode::Nvfp4, |tensors| {
            tensors.insert(name.to_owned(), part);
        });
        says(weights.take_quantized("m", 4, 64), words);
    }
}

/// A fixture with one of its tensors changed.
fn changed(fixture: &str, tensor: &str, change: impl Fn(Array) -> Option<Array>) -> TempDir {
    let directory = TempDir::new().unwrap();
    let from = fixtures::directory().join(fixture);
    fs::copy(
        from.join("config.json"),
        directory.path().join("config.json"),
    )
    .unwrap();
    let mut tensors = Array::load_safetensors(from.join("model.safetensors")).unwrap();
    let array = tensors.remove(tensor).unwrap();
    tensors.extend(change(array).map(|array| (tensor.to_owned(), array)));
    let path = directory.path().join("model.safetensors");
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, array)| (name.as_str(), array))
        .collect();
    Array::save_safetensors(tensors, None, &path).unwrap();
    directory
}

#[test]
fn awqs_and_gptqs_packings_of_one_model_are_the_same_matrices() {
    let load = |name: &str| {
        let checkpoint = fixtures::checkpoint(name).unwrap();
        checkpoint.load_weights().unwrap().into_tensors()
    };
    let (awq, gptq) = (load("llama-awq"), load("llama-gptq"));
    assert_eq!(awq.len(), gptq.len());
    for (name, array) in &awq {
        assert!(array.eq_values(&gptq[name]).unwrap(), "{name}");
    }
}

#[test]
fn modelopts_names_of_nvfp4_are_the_same_matrices_as_those_of_compressed_tensors() {
    let from = fixtures::directory().join("llama-nvfp4-packed");
    let directory = TempDir::new().unwrap();
    let mut config: serde_json::Value = fixtures::json("llama-nvfp4-packed/config.json").unwrap();
    config["quantization_config"] = json!({"quant_method": "modelopt", "quant_algo": "NVFP4"});
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let renamed = Array::load_safetensors(from.join("model.safetensors")).unwrap();
    let renamed: Vec<(String, Array)> = renamed
        .into_iter()
        .map(|(name, array)| {
            let inverse = name.ends_with(".weight_global_scale");
            let name = name
                .replace(".weight_packed", ".weight")
                .replace(".weight_global_scale", ".weight_scale_2")
                .replace(".input_global_scale", ".input_scale");
            let one = Array::from_f32(1.0);
            (
                name,
                if inverse {
                    one.divide(array).unwrap()
                } else {
                    array
                },
            )
        })
        .collect();
    let path = directory.path().join("model.safetensors");
    let tensors: Vec<_> = renamed
        .iter()
        .map(|(name, array)| (name.as_str(), array))
        .collect();
    Array::save_safetensors(tensors, None, &path).unwrap();
    let ours = open(directory.path())
        .unwrap()
        .load_weights()
        .unwrap()
        .into_tensors();
    let theirs = fixtures::checkpoint("llama-nvfp4-packed").unwrap();
    let theirs = theirs.load_weights().unwrap().into_tensors();
    assert_eq!(ours.len(), theirs.len());
    for (name, array) in &theirs {
        assert_eq!(
            to_f32(&ours[name]).unwrap(),
            to_f32(array).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn groups_whose_inputs_are_not_neighbours_are_refused_by_name() {
    let module = "model.layers.1.mlp.down_proj";
    let g_idx = format!("{module}.g_idx");
    let reversed = changed("llama-gptq", &g_idx, |groups| {
        Some(ops::subtract(Array::from_int(1), groups).unwrap())
    });
    says(
        load(reversed.path()),
        &[module, "g_idx", "desc_act", "MLX conversion"],
    );
    let without = changed("llama-gptq", &g_idx, |_| None);
    load(without.path()).unwrap();
}

#[test]
fn tensors_of_an_awq_matrix_that_do_not_fit_are_named() {
    let module = "model.layers.0.self_attn.q_proj";
    let cut = |array: Array| Some(ops::split_equal(&array, 2, 0).unwrap().remove(0));
    for (end, words) in [
        ("qweight", [module, "[16, 4]", "32 inputs"]),
        ("scales", [module, "no ", ".scales"]),
    ] {
        let directory = changed("llama-awq", &format!("{module}.{end}"), |array| {
            if end == "scales" { None } else { cut(array) }
        });
        says(open(directory.path()), &words);
    }
    let symmetric = changed("llama-awq", &format!("{module}.qzeros"), |_| None);
    let tensors = open(symmetric.path())
        .unwrap()
        .load_weights()
        .unwrap()
        .into_tensors();
    let of = |part: &str| to_f32(&tensors[&format!("{module}.{part}")]).unwrap();
    let pairs = of("scales").into_iter().zip(of("biases"));
    assert!(pairs.into_iter().all(|(scale, bias)| bias == -8.0 * scale));
}

#[test]
fn a_matrix_without_scales_is_dense() {
    let mut weights = quantized(|tensors| {
        tensors.insert("d.weight".to_owned(), Array::ones::<f32>(&[4, 64]).unwrap());
    });
    assert!(weights.take_quantized("d", 4, 64).unwrap().is_none());
    weights.take("d.weight", &[4, 64]).unwrap();
}

#[test]
fn parts_of_a_triple_that_do_not_fit_are_named() {
    let ones = |shape: &[i32]| Array::ones::<f32>(shape).unwrap();
    let cases: [(&str, Option<Array>, &[&str]); 6] = [
        (
            "m.scales",
            Some(ones(&[4, 1])),
            &["m.scales", "[4, 1]", "[4, 2]"],
        ),
        (
            "m.biases",
            Some(ones(&[4, 4])),
            &["m.biases", "[4, 4]", "[4, 2]"],
        ),
        ("m.biases", None, &["m.biases", "missing"]),
        ("m.weight", None, &["m.weight", "missing"]),
        ("m.weight", Some(ones(&[4, 8])), &["m.weight", "Float32"]),
        (
            "m.weight",
            Some(Array::ones::<u32>(&[4, 16]).unwrap()),
            &["m.weight", "[4, 16]", "4 bits"],
        ),
    ];
    for (name, part, words) in cases {
        let mut weights = quantized(|tensors| {
            tensors.remove(name);
            tensors.extend(part.map(|array| (name.to_owned(), array)));
        });
        says(weights.take_quantized("m", 4, 64), words);
    }
}

#[test]
fn scales_against_the_configuration_are_refused() {
    let tensors = || quantized(|_| ()).into_tensors();
    let refused = |config: &ModelConfig, words: &[&str]| {
        says(
            Weights::new(tensors(), config).take_quantized("m", 4, 64),
            words,
        );
    };
    refused(&tiny().config, &["m has scales", "config.json"]);
    refused(
        &quantized_config(json!({"m": false})),
        &["m has scales", "not quantized"],
    );
    let eight = json!({"m": {"group_size": 32, "bits": 8}});
    refused(&quantized_config(eight), &["m.weight", "8 bits"]);
    let wide = json!({"m": {"group_size": 128, "bits": 4}});
    refused(&quantized_config(wide), &["rows of 64", "groups of 128"]);
}

#[test]
fn packed_codes_without_scales_are_not_taken_for_weights() {
    let mut weights = quantized(|tensors| {
        tensors.remove("m.scales");
    });
    assert!(weights.take_quantized("m", 4, 64).unwrap().is_none());
    says(
        weights.take("m.weight", &[4, 8]),
        &["m.weight", "Uint32", "float"],
    );
}

#[test]
fn a_tensor_missing_in_several_layers_is_listed_for_all_of_them() {
    let mut tensors = tiny().load_weights().unwrap().into_tensors();
    for layer in [2, 5, 6] {
        tensors.remove(&format!("model.layers.{layer}.mlp.up_proj.weight"));
    }
    let config = tiny().config;
    let result = take_all(&config, Weights::new(tensors, &config));
    says(
        result,
        &[
            "model.layers.2.mlp.up",
            "model.layers.5.mlp.up",
            "model.layers.6.mlp.up",
        ],
    );
}

#[test]
fn a_missing_tensor_whose_name_has_another_beginning_is_pointed_out() {
    let tensors = tiny().load_weights().unwrap().into_tensors();
    let renamed = tensors
        .into_iter()
        .map(|(name, array)| (format!("language_model.{name}"), array))
        .collect();
    let mut weights = Weights::new(renamed, &tiny().config);
    let name = "model.norm.weight";
    says(
        weights.take(name, &[256]),
        &[name, "missing", "language_model.model.norm.weight"],
    );
}

#[test]
fn a_tensor_cannot_be_taken_twice() {
    let mut weights = tiny().load_weights().unwrap();
    weights.take("model.norm.weight", &[256]).unwrap();
    assert!(!weights.contains("model.norm.weight"));
    assert!(weights.take("model.norm.weight", &[256]).is_err());
}

#[test]
fn superfluous_tensors_are_ignored_and_others_are_listed() {
    let config = tiny().config; // its head is tied
    let with = |names: &[&str]| {
        let one = |name: &&str| (name.to_string(), Array::ones::<f32>(&[1]).unwrap());
        Weights::new(names.iter().map(one).collect(), &config)
    };
    with(&[
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "lm_head.weight",
    ])
    .finish()
    .unwrap();
    says(
        with(&["a", "b", "c", "d", "e", "f", "g"]).finish(),
        &["7 extra", "a, b, c", "2 more"],
    );
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_the_numbers() {
    let tiny = tiny();
    tiny.check_fit(1024, 8 << 30).unwrap();
    says(
        tiny.check_fit(1024, 16 << 20),
        &["tiny", "14", "16", "1,024", "smaller"],
    );
    says(tiny.check_fit(usize::MAX, 8 << 30), &["smaller", "shorter"]);
    let weights_alone = tiny.check_fit(0, 16 << 20).unwrap_err().to_string();
    assert!(
        weights_alone.ends_with("take a smaller or quantized model"),
        "{weights_alone}"
    );
}

#[test]
fn a_model_that_fits_but_not_at_the_moment_is_told_with_the_numbers() {
    let tiny = tiny();
    assert_eq!(tiny.crowded(300_000_000), None);
    let told = tiny.crowded(200_000_000).unwrap();
    assert_eq!(
        told,
        "tiny needs 270.69 MB, but other programs leave 200.00 MB of this machine's memory: close some, \
         or it may be slow or be ended by the system"
    );
}

fn rows(checkpoint: &Checkpoint, ram_bytes: Option<u64>) -> String {
    let rows = checkpoint.inspect(ram_bytes).into_iter();
    rows.map(|(label, text)| format!("{label:10} {text}\n"))
        .collect()
}

#[test]
fn inspection_of_the_embedded_model() {
    insta::assert_snapshot!(rows(&tiny(), Some(16 << 30)));
}

#[test]
fn inspection_says_how_a_checkpoint_differs_from_llama() {
    let inspected: BTreeMap<&str, String> = [
        "llama-rope-yarn",
        "mistral-sliding-window",
        "qwen2",
        "qwen3-8bit-mixed",
        "llama-nvfp4-mixed",
        "gguf-llama",
        "gguf-k",
        "llama-awq",
    ]
    .into_iter()
    .map(|name| {
        let mut checkpoint = fixtures::checkpoint(name).unwrap();
        checkpoint.name = name.to_owned(); // not the path, which differs by machine
        (name, rows(&checkpoint, None))
    })
    .collect();
    let text: Vec<String> = inspected.into_values().collect();
    insta::assert_snapshot!(text.join("\n"));
}

/// A small sound checkpoint, to be damaged.
fn small() -> (TempDir, PathBuf, Vec<u8>) {
    let directory = TempDir::new().unwrap();
    let config = fixtures::directory().join("llama/config.json");
    fs::copy(config, directory.path().join("config.json")).unwrap();
    let path = directory.path().join("model.safetensors");
    write(&path, &[("a", &[4, 4]), ("b", &[8]), ("c", &[2, 3])]);
    let bytes = fs::read(&path).unwrap();
    (directory, path, bytes)
}

#[test]
fn no_damaged_header_makes_opening_or_loading_panic() {
    let (directory, path, sound) = small();
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let damaged = runner.run(&(damage, any::<prop::sample::Index>()), |(damage, cut)| {
        let mut bytes = sound.clone();
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(2 * bytes.len())); // half of the cases are not cut
        fs::write(&path, &bytes).unwrap();
        let opened = open(directory.path());
        if let Err(error) = opened.and_then(|checkpoint| checkpoint.load_weights()) {
            let line = format!("{error:#}");
            prop_assert!(!line.contains('\n'), "{}", line);
        }
        Ok(())
    });
    damaged.unwrap();
}
