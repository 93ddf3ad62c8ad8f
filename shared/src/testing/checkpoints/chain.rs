//! A model whose answer is known without running it: the next token follows from a table.
//!
//! Attention and MLP add nothing, the embedding of a token is a unit vector, and the head has that
//! vector in the row of the token's successor. So every sequence of ids can be provoked, and what a
//! program makes of it be looked at: where it stops, how it spells, which files it reads.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::gguf::{GgufFile, q4_0, q6_k};

/// Rows of the embedding and width of the model; even, and more than a test has tokens.
const ROWS: usize = 40;
/// Width of the MLP: a block of Q4_0.
const INNER: usize = 32;

/// A one-layer Llama that says `path`.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The text of each id.
    pub tokens: Vec<String>,
    /// Ids that are added tokens of `tokenizer.json`, all of them special.
    pub special: Vec<u32>,
    /// Ids in their order; the first is the prompt's.
    pub path: Vec<u32>,
    /// Width of the model, a multiple of 4, at least the number of tokens. K-quants need 256.
    pub width: usize,
}

/// A tensor in float32: its name by Hugging Face, its shape, its values.
type Floats = (String, Vec<usize>, Vec<f32>);

impl Chain {
    /// The first token is the end of the text, and special.
    pub fn new(tokens: &[&str], path: &[u32]) -> Self {
        Self {
            tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
            special: vec![0],
            path: path.to_vec(),
            width: ROWS,
        }
    }

    /// `config.json`
    pub fn config(&self) -> Value {
        json!({
            "model_type": "llama", "hidden_size": self.width, "intermediate_size": INNER,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
            "vocab_size": self.width, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
            "rope_theta": 1e4, "tie_word_embeddings": false, "eos_token_id": 0,
        })
    }

    /// `tokenizer.json`: a byte-level vocabulary without merges.
    pub fn tokenizer(&self) -> Value {
        let vocabulary: serde_json::Map<String, Value> = self
            .tokens
            .iter()
            .zip(0..)
            .map(|(token, id): (_, u32)| (token.clone(), json!(id)))
            .collect();
        let added: Vec<Value> = self
            .special
            .iter()
            .map(|&id| added_token(id, &self.tokens[id as usize]))
            .collect();
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "added_tokens": added,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": true, "vocab": vocabulary, "merges": [],
            },
        })
    }

    /// `tokenizer_config.json`
    pub fn tokenizer_config(&self) -> Value {
        json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": self.tokens[0]})
    }

    /// Writes the checkpoint in Hugging Face layout.
    ///
    /// # Errors
    /// If `dir` cannot be written to.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let json = [
            ("config.json", self.config()),
            ("tokenizer.json", self.tokenizer()),
            ("tokenizer_config.json", self.tokenizer_config()),
        ];
        for (name, value) in json {
            super::write(dir, name, value.to_string())?;
        }
        super::write(dir, super::WEIGHTS, self.safetensors()?)
    }

    fn safetensors(&self) -> Result<Vec<u8>> {
        let stored: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .tensors()
            .into_iter()
            .map(|(name, shape, values)| {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes());
                (name, shape, bytes.collect())
            })
            .collect();
        let views = stored.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            view.map(|view| (name.clone(), view))
        });
        let views: Vec<_> = views.collect::<Result<_, _>>()?;
        Ok(safetensors::serialize(views, None)?)
    }

    /// All tensors.
    pub fn tensors(&self) -> Vec<Floats> {
        let (v, f) = (self.width, INNER);
        let zeros = |rows: usize, columns: usize| (vec![rows, columns], vec![0.0; rows * columns]);
        let matrix = |mark: &dyn Fn(usize, usize) -> bool, value: f32| {
            let cells = (0..v * v).map(|at| if mark(at / v, at % v) { value } else { 0.0 });
            (vec![v, v], cells.collect::<Vec<f32>>())
        };
        let follows = |row: usize, column: usize| {
            let steps = self.path.windows(2);
            steps
                .into_iter()
                .any(|step| (step[1] as usize, step[0] as usize) == (row, column))
        };
        let ones = || (vec![v], vec![1.0; v]);
        let layer = "model.layers.0";
        let all = [
            ("model.embed_tokens".to_owned(), matrix(&|r, c| r == c, 1.0)),
            (format!("{layer}.self_attn.q_proj"), zeros(v, v)),
            (format!("{layer}.self_attn.k_proj"), zeros(v, v)),
            (format!("{layer}.self_attn.v_proj"), zeros(v, v)),
            (format!("{layer}.self_attn.o_proj"), zeros(v, v)),
            (format!("{layer}.mlp.gate_proj"), zeros(f, v)),
            (format!("{layer}.mlp.up_proj"), zeros(f, v)),
            (format!("{layer}.mlp.down_proj"), zeros(v, f)),
            (format!("{layer}.input_layernorm"), ones()),
            (format!("{layer}.post_attention_layernorm"), ones()),
            ("model.norm".to_owned(), ones()),
            ("lm_head".to_owned(), matrix(&follows, 2.0)),
        ];
        all.into_iter()
            .map(|(module, (shape, values))| (format!("{module}.weight"), shape, values))
            .collect()
    }

    /// The same as a GGUF file, its tensors in float32.
    pub fn gguf(&self) -> GgufFile {
        let mut file = self.gguf_metadata();
        for (name, shape, values) in self.tensors() {
            let sizes: Vec<u64> = shape.iter().rev().map(|&size| size as u64).collect();
            file.floats(&llama_cpp_name(&name), &sizes, &values);
        }
        file
    }

    /// The same as llama.cpp writes a file that it calls Q4_0: matrices in Q4_0, but the output in Q6_K.
    /// The width must be 256.
    pub fn gguf_q4_0(&self) -> GgufFile {
        const Q4_0: u32 = 2;
        const Q6_K: u32 = 14;
        let mut file = self.gguf_metadata();
        for (name, shape, values) in self.tensors() {
            let sizes: Vec<u64> = shape.iter().rev().map(|&size| size as u64).collect();
            match (llama_cpp_name(&name), sizes.len()) {
                (name, 1) => file.floats(&name, &sizes, &values),
                (name, _) if name == "output.weight" => {
                    file.tensor(&name, &sizes, Q6_K, &q6_k(&values));
                }
                (name, _) => file.tensor(&name, &sizes, Q4_0, &q4_0(&values)),
            }
        }
        file
    }

    /// The metadata of [`gguf`](Self::gguf), without tensors.
    pub fn gguf_metadata(&self) -> GgufFile {
        let mut file = GgufFile::llama();
        for (key, size) in [
            ("embedding_length", self.width as u32),
            ("feed_forward_length", INNER as u32),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 2),
        ] {
            file.uint(&format!("llama.{key}"), size);
        }
        let padded = (0..self.width).map(|id| match self.tokens.get(id) {
            Some(token) => token.clone(),
            None => format!("[PAD{id}]"),
        });
        let tokens: Vec<String> = padded.collect();
        file.text("tokenizer.ggml.model", "gpt2");
        file.texts(
            "tokenizer.ggml.tokens",
            &tokens.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let kinds: Vec<i32> = (0..self.width as u32)
            .map(|id| if self.special.contains(&id) { 3 } else { 1 })
            .collect();
        file.ints("tokenizer.ggml.token_type", &kinds);
        file.texts("tokenizer.ggml.merges", &[]);
        file.uint("tokenizer.ggml.eos_token_id", 0);
        file
    }

    /// Writes it as a GGUF file into `dir`.
    ///
    /// # Errors
    /// If `dir` cannot be written to.
    pub fn write_gguf(&self, path: &Path) -> Result<()> {
        fs::write(path, self.gguf().bytes()).with_context(|| format!("writing {}", path.display()))
    }
}

/// An entry of `added_tokens` in `tokenizer.json`: special, and matched as it stands.
pub fn added_token(id: u32, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}

/// llama.cpp's name of a tensor: the way back of [`hugging_face_name`](crate::gguf::hugging_face_name).
fn llama_cpp_name(name: &str) -> String {
    let renamed = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
    ];
    renamed
        .iter()
        .fold(name.to_owned(), |name, (ours, theirs)| {
            name.replace(ours, theirs)
        })
}
