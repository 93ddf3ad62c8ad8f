//! GGUF headers: what is read, what is refused, and that no bytes make the parser panic.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use repacking::blocks::Kind;
use shared::checkpoint::Checkpoint;
use shared::config::{GroupQuantization, ModelConfig, RopeScaling};
use shared::gguf::{GgufHeader, GgufType, GgufValue, hugging_face_name};
use shared::hub::ModelFiles;
use shared::testing::checkpoints::gguf::GgufFile;
use shared::testing::fixtures;

fn parse(file: &GgufFile) -> GgufHeader {
    GgufHeader::parse(&file.bytes()).unwrap()
}

fn config(file: &GgufFile) -> ModelConfig {
    ModelConfig::from_gguf(&parse(file)).unwrap()
}

/// A Llama with one value set by `change`.
fn changed(change: impl FnOnce(&mut GgufFile)) -> GgufFile {
    let mut file = GgufFile::llama();
    change(&mut file);
    file
}

/// Header or configuration of `file` is refused in one line that holds all of `words`.
fn refused(file: &GgufFile, words: &[&str]) {
    let error = GgufHeader::parse(&file.bytes()).and_then(|header| ModelConfig::from_gguf(&header));
    says(&error.unwrap_err(), words);
}

fn says(error: &anyhow::Error, words: &[&str]) {
    let line = format!("{error:#}");
    assert!(!line.contains('\n'), "{line}");
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
}

#[test]
fn values_of_every_type_are_read() {
    let mut file = GgufFile::default();
    for (key, kind, value) in [
        ("u8", 0, vec![200]),
        ("i8", 1, vec![200]),
        ("u16", 2, vec![1, 2]),
        ("i16", 3, vec![0, 0x80]),
        ("u32", 4, vec![0, 0, 0, 0x80]),
        ("i32", 5, vec![0xff; 4]),
        ("f32", 6, 1.5f32.to_le_bytes().to_vec()),
        ("bool", 7, vec![1]),
        ("u64", 10, vec![0xff; 8]),
        ("f64", 12, 0.25f64.to_le_bytes().to_vec()),
        (
            "i64",
            11,
            vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
    ] {
        file.set(key, kind, value);
    }
    file.text("text", "h\u{e9}");
    file.texts("texts", &["a", ""]);
    let header = parse(&file);
    for (key, value) in [
        ("u8", GgufValue::Unsigned(200)),
        ("i8", GgufValue::Signed(-56)),
        ("u16", GgufValue::Unsigned(0x201)),
        ("i16", GgufValue::Signed(-32768)),
        ("u32", GgufValue::Unsigned(1 << 31)),
        ("i32", GgufValue::Signed(-1)),
        ("f32", GgufValue::Float(1.5)),
        ("bool", GgufValue::Bool(true)),
        ("u64", GgufValue::Unsigned(u64::MAX)),
        ("f64", GgufValue::Float(0.25)),
        ("i64", GgufValue::Signed(-2)),
    ] {
        assert_eq!(header.metadata[key], value, "{key}");
    }
    assert_eq!(header.string("text"), Some("hé"));
    assert_eq!(header.strings("texts"), Some(vec!["a", ""]));
    assert_eq!(
        (header.u64("u8"), header.u64("i32"), header.u64("text")),
        (Some(200), None, None)
    );
    assert_eq!(
        (header.f32("f32"), header.bool("bool")),
        (Some(1.5), Some(true))
    );
}

#[test]
fn lists_of_numbers_are_read() {
    let mut file = GgufFile::default();
    let list = |kind: u32, count: u64, values: &[u8]| {
        [&kind.to_le_bytes()[..], &count.to_le_bytes()[..], values].concat()
    };
    file.set("u16s", 9, list(2, 2, &[1, 0, 2, 0]));
    file.set("i32s", 9, list(5, 1, &[0xff; 4]));
    file.set("f32s", 9, list(6, 1, &2.0f32.to_le_bytes()));
    file.set("none", 9, list(4, 0, &[]));
    let header = parse(&file);
    assert_eq!(header.u64s("u16s"), Some(vec![1, 2]));
    assert_eq!(header.u64s("i32s"), None);
    assert_eq!(header.metadata["i32s"], GgufValue::Signeds(vec![-1]));
    assert_eq!(header.f32s("f32s"), Some(vec![2.0]));
    assert_eq!(header.u64s("none"), Some(vec![]));
}

#[test]
fn tensors_have_their_outermost_axis_first_and_their_size_in_the_file() {
    let mut file = GgufFile::default();
    file.tensor("a.weight", &[64, 2], 2, &[0; 72]);
    file.tensor("b.weight", &[3], 0, &[0; 12]);
    let header = parse(&file);
    let a = header.tensor("a.weight").unwrap();
    assert_eq!(
        (&a.shape[..], a.kind, a.bytes, a.offset),
        (&[2, 64][..], GgufType::Packed(Kind::Q4_0), 72, 0)
    );
    assert_eq!(header.tensor("b.weight").unwrap().offset, 96);
    assert_eq!(header.data_offset % 32, 0);
}

#[test]
fn a_file_that_is_not_gguf_or_of_another_version_is_refused() {
    for bytes in [&b""[..], b"GG", b"PK\x03\x04 and so on", b"GGUF"] {
        assert!(GgufHeader::parse(bytes).is_err());
    }
    refused(&changed(|file| file.version = 1), &["version 1"]);
    refused(&changed(|file| file.version = 3 << 24), &["version"]);
    config(&changed(|file| file.version = 2));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = changed(|file| file.floats("output_norm.weight", &[16], &[1.0; 16])).bytes();
    for length in 0..whole.len() {
        assert!(
            GgufHeader::parse(&whole[..length]).is_err(),
            "cut at {length} of {}",
            whole.len()
        );
    }
    GgufHeader::parse(&whole).unwrap();
}

#[test]
fn lengths_beyond_the_file_are_refused_without_allocating() {
    let huge = u64::MAX.to_le_bytes().to_vec();
    refused(
        &changed(|file| file.set("x", 8, huge.clone())),
        &["\"x\"", "download it again"],
    );
    for kind in [0u32, 6, 8, 10] {
        let list = [&kind.to_le_bytes()[..], &huge].concat();
        refused(&changed(|file| file.set("x", 9, list)), &["\"x\""]);
    }
}

#[test]
fn lists_of_lists_are_refused() {
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[0; 12]].concat();
    refused(
        &changed(|file| file.set("x", 9, nested)),
        &["lists of lists"],
    );
    refused(
        &changed(|file| file.set("x", 99, vec![0; 8])),
        &["unknown value type 99"],
    );
}

#[test]
fn impossible_tensors_are_refused() {
    let refused = |name: &str, sizes: &[u64], kind: u32, words: &[&str]| {
        refused(
            &changed(|file| file.tensor(name, sizes, kind, &[0; 64])),
            words,
        );
    };
    refused("a.weight", &[], 0, &["a.weight", "0 axes"]);
    refused("a.weight", &[1; 5], 0, &["5 axes"]);
    refused("a.weight", &[0, 4], 0, &["size 0"]);
    refused("a.weight", &[1 << 31], 0, &["size 2147483648"]);
    refused("a.weight", &[0x7fff_ffff; 4], 0, &["impossibly large"]);
    refused("a.weight", &[17], 0, &["beyond the end of the file"]);
    refused("a.weight", &[16], 2, &["rows of 16", "32"]);
    refused("a.bias", &[32], 2, &["a.bias", "must not be quantized"]);
    refused("a\n.weight", &[4], 0, &["not a name"]);
}

#[test]
fn tensors_at_impossible_places_are_refused() {
    let at = |offset: u64| {
        changed(|file| {
            file.floats("a.weight", &[4], &[1.0; 4]);
            file.tensors[0].3 = offset;
        })
    };
    refused(&at(4), &["a.weight", "multiple of 32"]);
    refused(&at(32), &["beyond the end"]);
    refused(&at(u64::MAX - 31), &["beyond the end"]);
    let twice = changed(|file| {
        file.floats("a.weight", &[4], &[1.0; 4]);
        file.floats("a.weight", &[4], &[1.0; 4]);
    });
    refused(&twice, &["a.weight", "twice"]);
    for alignment in [0, 4, 24, 1 << 30] {
        refused(
            &changed(|file| file.uint("general.alignment", alignment)),
            &["general.alignment"],
        );
    }
}

/// Writes a key once more, which the format forbids.
fn again(file: &mut GgufFile, key: &str, kind: u32, value: &[u8]) {
    file.metadata.push((key.to_owned(), kind, value.to_vec()));
}

#[test]
fn a_key_that_is_there_twice_is_refused() {
    let twice = changed(|file| again(file, "llama.block_count", 4, &[2, 0, 0, 0]));
    refused(&twice, &["\"llama.block_count\"", "twice"]);
    // MLX would take the last uint32 of these and divide by it.
    let alignments = changed(|file| {
        again(file, "general.alignment", 4, &[0; 4]);
        again(file, "general.alignment", 10, &[32, 0, 0, 0, 0, 0, 0, 0]);
    });
    refused(&alignments, &["general.alignment"]);
}

#[test]
fn the_alignment_is_a_uint32_as_mlx_reads_it() {
    for (kind, width) in [(0, 1), (1, 1), (2, 2), (5, 4), (6, 4), (10, 8), (11, 8)] {
        let mut value = vec![0; width];
        value[0] = 32;
        let file = changed(|file| file.set("general.alignment", kind, value));
        refused(&file, &["general.alignment is not a uint32"]);
    }
    parse(&changed(|file| file.align(64)));
}

#[test]
fn a_big_endian_file_is_called_so() {
    for version in [2u32, 3] {
        let file = changed(|file| file.version = version.swap_bytes());
        refused(&file, &[&format!("version {version}"), "big-endian"]);
    }
}

#[test]
fn a_part_of_a_split_model_is_called_so() {
    let part = |number: u8, count: u8| {
        changed(|file| {
            file.set("split.no", 2, vec![number, 0]);
            file.set("split.count", 2, vec![count, 0]);
        })
    };
    let mut second = part(1, 2);
    second.remove("general.architecture");
    refused(&second, &["part 2 of 2", "llama-gguf-split --merge"]);
    refused(&part(0, 2), &["part 1 of 2"]);
    config(&part(0, 1));
}

#[test]
fn free_text_that_is_not_utf8_is_read_past_and_told() {
    let latin = |file: &mut GgufFile, key: &str| {
        file.set(key, 8, [&4u64.to_le_bytes()[..], b"caf\xe9"].concat());
    };
    let free = changed(|file| {
        latin(file, "general.name");
        let list = [
            &8u32.to_le_bytes()[..],
            &1u64.to_le_bytes(),
            &1u64.to_le_bytes(),
            b"\xff",
        ];
        file.set("general.tags", 9, list.concat());
    });
    let config = config(&free);
    let [remark] = &config.remarks[..] else {
        panic!("{:?}", config.remarks)
    };
    assert!(
        remark.contains("general.name, general.tags") && remark.contains("not UTF-8"),
        "{remark}"
    );
    for key in [
        "general.architecture",
        "tokenizer.chat_template",
        "tokenizer.ggml.pre",
        "llama.rope.scaling.type",
    ] {
        refused(&changed(|file| latin(file, key)), &[key, "not UTF-8"]);
    }
}

#[test]
fn metadata_larger_than_that_of_any_model_is_refused_before_it_fills_the_memory() {
    // Each byte of such a list would take eight in memory.
    let list = [
        &0u32.to_le_bytes()[..],
        &(1u64 << 24).to_le_bytes(),
        &[0; 1 << 24],
    ]
    .concat();
    let file = changed(|file| {
        for key in ["a", "b", "c"] {
            file.set(key, 9, list.clone());
        }
    });
    refused(&file, &["\"b\"", "larger than that of any model"]);
    let counts = |tensors: u64, keys: u64| {
        let mut bytes = GgufFile::llama().bytes();
        bytes[8..16].copy_from_slice(&tensors.to_le_bytes());
        bytes[16..24].copy_from_slice(&keys.to_le_bytes());
        says(
            &GgufHeader::parse(&bytes).unwrap_err(),
            &["more than any model"],
        );
    };
    counts(0, 1 << 40);
    counts(1 << 40, 0);
}

#[test]
fn every_size_of_the_configuration_is_read() {
    let config = config(&GgufFile::llama());
    assert_eq!(
        (
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size
        ),
        (1, 64, 96)
    );
    assert_eq!(
        (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim
        ),
        (4, 2, 16)
    );
    assert_eq!(
        (config.vocab_size, config.max_position_embeddings),
        (3, 128)
    );
    assert_eq!((config.rms_norm_eps, config.rope.theta), (1e-5, 10_000.0));
    assert_eq!(config.tie_word_embeddings, Some(true));
    assert!(!config.rope.traditional && !config.qk_norm && !config.attention_bias);
}

#[test]
fn switches_follow_from_the_tensors_that_are_there() {
    let config = config(&changed(|file| {
        for name in [
            "output.weight",
            "blk.0.attn_q.bias",
            "blk.0.attn_q_norm.weight",
        ] {
            file.floats(name, &[1], &[1.0]);
        }
    }));
    assert_eq!(config.tie_word_embeddings, Some(false));
    assert!(config.attention_bias && !config.attention_out_bias && config.qk_norm);
}

#[test]
fn stop_tokens_are_end_of_text_turn_and_message() {
    let config = config(&changed(|file| {
        file.uint("tokenizer.ggml.bos_token_id", 0);
        file.uint("tokenizer.ggml.eos_token_id", 2);
        file.uint("tokenizer.ggml.eot_token_id", 1);
    }));
    assert_eq!(
        (config.bos_token_id, &config.eos_token_ids[..]),
        (Some(0), &[1, 2][..])
    );
}

#[test]
fn rope_scaling_is_read_from_metadata_or_from_its_tensor() {
    let scaled = |kind: &str| {
        changed(|file| {
            file.text("llama.rope.scaling.type", kind);
            file.float("llama.rope.scaling.factor", 4.0);
            file.uint("llama.rope.scaling.original_context_length", 32);
        })
    };
    assert_eq!(
        config(&scaled("linear")).rope.scaling,
        RopeScaling::Linear { factor: 4.0 }
    );
    assert_eq!(config(&scaled("none")).rope.scaling, RopeScaling::None);
    let RopeScaling::Yarn {
        factor,
        original_max_position_embeddings,
        ..
    } = config(&scaled("yarn")).rope.scaling
    else {
        panic!("no YaRN");
    };
    assert_eq!((factor, original_max_position_embeddings), (4.0, 32));
    refused(&scaled("longrope"), &["longrope", "yarn"]);

    let factors: Vec<f32> = (1..=8).map(|factor| factor as f32).collect();
    let tensor = |count: usize| {
        changed(|file| file.floats("rope_freqs.weight", &[count as u64], &factors[..count]))
    };
    assert_eq!(
        config(&tensor(8)).rope.scaling,
        RopeScaling::Factors(factors.clone())
    );
    refused(&tensor(7), &["7", "D/2 = 8"]);
    // They are copied, and a file with holes can have any number of them.
    let many = vec![1.0; 1 << 15];
    let many = changed(|file| file.floats("rope_freqs.weight", &[1 << 15], &many));
    refused(&many, &["131072 bytes", "frequencies"]);
}

#[test]
fn wrong_metadata_is_refused_by_its_key() {
    refused(&GgufFile::default(), &["general.architecture is missing"]);
    refused(
        &changed(|file| file.text("general.architecture", "gemma")),
        &["gemma", "qwen3"],
    );
    for key in [
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "context_length",
    ] {
        let key = format!("llama.{key}");
        refused(&changed(|file| file.remove(&key)), &[&key, "missing"]);
        refused(&changed(|file| file.uint(&key, 0)), &[&key, "whole number"]);
        refused(
            &changed(|file| file.uint(&key, u32::MAX)),
            &["4294967295", "metadata"],
        );
        refused(&changed(|file| file.text(&key, "many")), &[&key, "many"]);
    }
    refused(
        &changed(|file| file.uint("llama.attention.head_count_kv", 3)),
        &["multiple", "3"],
    );
    refused(
        &changed(|file| file.uint("llama.rope.dimension_count", 8)),
        &["dimension_count", "8"],
    );
    refused(
        &changed(|file| file.uint("llama.expert_count", 8)),
        &["8 experts"],
    );
    refused(
        &changed(|file| file.remove("tokenizer.ggml.tokens")),
        &["tokenizer.ggml.tokens"],
    );
    let eps = "llama.attention.layer_norm_rms_epsilon";
    refused(&changed(|file| file.float(eps, f32::NAN)), &[eps]);
    refused(
        &changed(|file| file.float("llama.rope.freq_base", -1.0)),
        &["rope_theta"],
    );
    refused(
        &changed(|file| file.float("llama.rope.scaling.attn_factor", 2.0)),
        &["attn_factor"],
    );
}

#[test]
fn types_that_cannot_be_loaded_are_listed_with_a_tensor_each() {
    let file = changed(|file| {
        for (name, kind) in [
            ("blk.0.ffn_up", 16),
            ("blk.0.ffn_down", 21),
            ("blk.0.attn_q", 16),
        ] {
            file.tensor(&format!("{name}.weight"), &[256], kind, &[0; 256]);
        }
    });
    refused(
        &file,
        &[
            "IQ2_XXS (blk.0.ffn_up.weight), IQ3_S (blk.0.ffn_down.weight)",
            "Q8_0",
        ],
    );
}

#[test]
fn the_most_frequent_type_is_the_default_and_others_are_overrides() {
    let config = config(&changed(|file| {
        file.tensor("token_embd.weight", &[64], 8, &[0; 68]);
        file.tensor("blk.0.attn_q.weight", &[64], 2, &[0; 36]);
        file.tensor("blk.0.attn_k.weight", &[64], 3, &[0; 40]);
    }));
    let quantization = config.quantization.unwrap();
    assert_eq!(quantization.default, GroupQuantization::affine(32, 4));
    assert_eq!(quantization.overrides.len(), 1);
    let embedding = quantization.of("model.embed_tokens");
    assert_eq!(embedding, Some(GroupQuantization::affine(32, 8)));
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused() {
    for kind in Kind::ALL {
        let file = changed(|file| {
            let row = kind.numbers() as u64 / 2;
            file.tensor(
                "blk.0.ffn_up.weight",
                &[row, 2],
                kind.id(),
                &vec![0; kind.bytes()],
            );
        });
        let size = format!("blocks of {}", kind.numbers());
        refused(&file, &["blk.0.ffn_up.weight", "rows of", &size]);
    }
}

#[test]
fn names_are_those_of_hugging_face() {
    for (theirs, ours) in [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.scales", "lm_head.scales"),
        (
            "blk.12.attn_q.bias",
            "model.layers.12.self_attn.q_proj.bias",
        ),
        (
            "blk.0.attn_output.weight",
            "model.layers.0.self_attn.o_proj.weight",
        ),
        (
            "blk.0.ffn_norm.weight",
            "model.layers.0.post_attention_layernorm.weight",
        ),
        ("blk.0.ssm_in.weight", "blk.0.ssm_in.weight"),
        ("nonsense", "nonsense"),
    ] {
        assert_eq!(hugging_face_name(theirs), ours);
    }
}

/// A whole Llama in f32, small enough to be looked at: every value is its index in its tensor.
fn whole(alignment: usize) -> GgufFile {
    let mut file = GgufFile::default();
    file.align(alignment);
    file.metadata.extend(GgufFile::llama().metadata);
    let mut add = |name: &str, sizes: &[u64]| {
        let values: Vec<f32> = (0..sizes.iter().product())
            .map(|index| index as f32)
            .collect();
        file.floats(&format!("{name}.weight"), sizes, &values);
    };
    add("token_embd", &[64, 3]);
    add("output_norm", &[64]);
    for (name, out, inner) in [
        ("attn_q", 64, 64),
        ("attn_k", 32, 64),
        ("attn_v", 32, 64),
        ("attn_output", 64, 64),
        ("ffn_gate", 96, 64),
        ("ffn_up", 96, 64),
        ("ffn_down", 64, 96),
    ] {
        add(&format!("blk.0.{name}"), &[inner, out]);
    }
    add("blk.0.attn_norm", &[64]);
    add("blk.0.ffn_norm", &[64]);
    file
}

fn load(file: &GgufFile) -> shared::weights::Weights {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    Checkpoint::open("model", ModelFiles::Gguf(path))
        .unwrap()
        .load_weights()
        .unwrap()
}

#[test]
fn tensors_come_from_the_right_place_whatever_the_alignment() {
    for alignment in [8, 16, 32, 64, 256] {
        let mut weights = load(&whole(alignment));
        for (name, shape) in [("embed_tokens", &[3, 64][..]), ("norm", &[64][..])] {
            let array = weights
                .take(&format!("model.{name}.weight"), shape)
                .unwrap();
            let expected: Vec<f32> = (0..array.size()).map(|index| index as f32).collect();
            assert_eq!(
                array.to_vec_exact::<f32>().unwrap(),
                expected,
                "alignment {alignment}"
            );
        }
    }
}

#[test]
fn rows_of_q_and_k_are_put_back_into_halves_and_those_of_v_stay() {
    let mut weights = load(&whole(32));
    let mut first_column = |name: &str, rows: usize| {
        let name = format!("model.layers.0.self_attn.{name}.weight");
        let values = shared::layers::to_f32(&weights.take(&name, &[rows, 64]).unwrap()).unwrap();
        values
            .chunks(64)
            .map(|row| row[0] as usize / 64)
            .collect::<Vec<_>>()
    };
    // Heads of 16 rows: the pair (2i, 2i + 1) of the file is (i, i + 8) here.
    let heads = |count: usize| -> Vec<usize> {
        let row = |head: usize, row: usize| head * 16 + row % 8 * 2 + row / 8;
        (0..count)
            .flat_map(|head| (0..16).map(move |index| row(head, index)))
            .collect()
    };
    assert_eq!(first_column("q_proj", 64), heads(4));
    assert_eq!(first_column("k_proj", 32), heads(2));
    assert_eq!(first_column("v_proj", 32), (0..32).collect::<Vec<_>>());
}

#[test]
fn rows_of_qwen_are_left_alone() {
    let mut file = whole(32);
    for (key, ..) in &mut file.metadata {
        *key = key.replace("llama.", "qwen2.");
    }
    file.text("general.architecture", "qwen2");
    let mut weights = load(&file);
    let q = weights
        .take("model.layers.0.self_attn.q_proj.weight", &[64, 64])
        .unwrap();
    let expected: Vec<f32> = (0..64 * 64).map(|index| index as f32).collect();
    assert_eq!(shared::layers::to_f32(&q).unwrap(), expected);
}

#[cfg(unix)]
#[test]
fn a_file_that_may_only_be_read_is_loaded() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, whole(32).bytes()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    let checkpoint = Checkpoint::open("model", ModelFiles::Gguf(path)).unwrap();
    let mut weights = checkpoint.load_weights().unwrap();
    weights.take("model.norm.weight", &[64]).unwrap();
}

/// A matrix `[out, in]` of each type that MLX's reader takes, under names that nothing is done to.
#[test]
fn what_mlxs_reader_takes_comes_out_as_it_reads_it() {
    let mut compared = Vec::new();
    for name in ["gguf-llama", "gguf-qwen2"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf"); // MLX wants to write, too
        std::fs::copy(fixtures::directory().join(name).join("model.gguf"), &path).unwrap();
        let theirs = mlx_rs::io::GgufFile::load(&path).unwrap().arrays().unwrap();
        let checkpoint = Checkpoint::open("model", ModelFiles::Gguf(path)).unwrap();
        let ours = checkpoint.load_weights().unwrap().into_tensors();
        let mut alike = 0;
        for (name, theirs) in &theirs {
            let kind = checkpoint
                .gguf
                .as_ref()
                .unwrap()
                .tensor(name)
                .map(|t| t.kind.name());
            let permuted = name.contains("attn_q.") || name.contains("attn_k.");
            let Some(ours) = ours.get(&hugging_face_name(name)) else {
                panic!("{name}: {:?}", ours.keys());
            };
            assert_eq!(
                (ours.shape(), ours.dtype()),
                (theirs.shape(), theirs.dtype()),
                "{name}"
            );
            if checkpoint.config.model_type != "llama" || !permuted {
                assert!(ours.eq_values(theirs).unwrap(), "{name}");
                alike += 1;
                compared.extend(kind);
            }
        }
        assert!(alike > 20, "{alike}");
    }
    compared.sort();
    compared.dedup();
    assert_eq!(compared, ["BF16", "F16", "F32", "Q4_0", "Q4_1", "Q8_0"]);
}

#[test]
fn the_files_that_gguf_py_wrote_are_read() {
    for (name, architecture) in [("gguf-llama", "llama"), ("gguf-qwen2", "qwen2")] {
        let checkpoint = fixtures::checkpoint(name).unwrap();
        assert_eq!(checkpoint.config.model_type, architecture);
        assert!(
            checkpoint
                .tensors
                .iter()
                .all(|tensor| !tensor.name.starts_with("blk."))
        );
        assert!(checkpoint.config.quantization.is_some());
        checkpoint.load_weights().unwrap();
    }
}

/// A valid header with all kinds of entries, to be damaged.
fn rich() -> Vec<u8> {
    changed(|file| {
        file.float("llama.rope.freq_base", 1e4);
        file.floats("rope_freqs.weight", &[8], &[1.0; 8]);
        file.tensor("token_embd.weight", &[64, 3], 8, &[0; 204]);
        file.tensor("blk.0.attn_q.weight", &[64, 64], 2, &[0; 2304]);
    })
    .bytes()
}

/// Parses, and if that works reads the configuration: neither may panic.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    let result = GgufHeader::parse(bytes).and_then(|header| ModelConfig::from_gguf(&header));
    if let Err(error) = result {
        let line = format!("{error:#}");
        prop_assert!(!line.contains('\n'), "{}", line);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&bytes)?;
        survives(&[b"GGUF\x03\0\0\0".as_slice(), &bytes].concat())?;
    }

    #[test]
    fn no_damaged_byte_makes_the_parser_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = rich();
        for (index, value) in damage {
            let at = index.index(bytes.len().min(900));
            bytes[at] = value;
        }
        survives(&bytes)?;
    }
}
