//! llama.cpp on a file of its own quantizer, the built-in model as Q4_K_M: the same ids, logits, tokens and perplexity.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use assert_cmd::cargo::cargo_bin;
use console::cli::FloatType;
use part4_quantization::generate::{Generator, generate};
use part4_quantization::kinds::{CacheKind, empty_cache};
use part4_quantization::model::Model;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::layers::{ids_array, to_f32};
use shared::request::Request;
use shared::testing::fixtures;
use shared::testing::skip::skipped;
use shared::tokenizer::Tokenizer;
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const TOKENS: usize = 64;
const WINDOW: usize = 128;
const WINDOWS: usize = 5;
/// llama.cpp rounds what it multiplies packed weights with to 8 bits, which moves its logits, of up to 40, by up to 1.
/// Where its best two are nearer to each other than this, they may change places.
const TIE: f32 = 0.5;

/// The built-in model, packed by llama.cpp's quantizer, and the same numbers unpacked again by it.
struct Files {
    place: TempDir,
    oracle: PathBuf,
    llama_cpp: PathBuf,
}

#[derive(Deserialize)]
struct Answers {
    prompts: Vec<Answer>,
    #[serde(default)]
    ids: Vec<u32>,
    perplexity: Option<f64>,
}

#[derive(Deserialize)]
struct Answer {
    logits: Vec<f32>,
    greedy: Vec<u32>,
    margins: Vec<f32>,
}

fn interpreter(name: &str, fetch: &str) -> Option<PathBuf> {
    let python = Path::new(ROOT).join(".mlx").join(name).join("bin/python");
    if python.exists() {
        return Some(python);
    }
    skipped(&format!("needs {fetch}: `cargo xtask fetch {fetch}`"));
    None
}

fn script(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(ROOT).join("shared/xtask/python").join(name));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("OMP_WAIT_POLICY", "passive"); // beside other tests, threads that spin take minutes
    command
}

fn output(mut command: Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

impl Files {
    /// None where Python or one of its packages is missing. With `flag`, the file says something about its texts.
    fn make(flag: Option<&str>) -> Option<Self> {
        let oracle = interpreter("oracle", "mlx-lm")?;
        let llama_cpp = interpreter("llama.cpp", "llama.cpp")?;
        let place = TempDir::new().unwrap();
        let files = Self {
            place,
            oracle,
            llama_cpp,
        };
        let mut dense = script(&files.oracle, "tiny_to_gguf.py");
        dense.arg(Path::new(ROOT).join("assets/models/tiny"));
        dense.arg(files.path("dense")).args(flag);
        output(dense, "");
        files.quantize("dense", "packed", "MOSTLY_Q4_K_M");
        files.quantize("packed", "unpacked", "ALL_F32");
        Some(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name).with_extension("gguf")
    }

    fn quantize(&self, source: &str, target: &str, kind: &str) {
        let request = json!({"source": self.path(source), "file": self.path(target), "type": kind});
        self.ask(&request);
    }

    fn ask(&self, request: &Value) -> Answers {
        let command = script(&self.llama_cpp, "llama_cpp_answers.py");
        serde_json::from_str(&output(command, &request.to_string())).unwrap()
    }

    fn answers(&self, name: &str, prompts: &[Vec<u32>]) -> Vec<Answer> {
        let request = json!({"file": self.path(name), "prompts": prompts, "count": TOKENS});
        self.ask(&request).prompts
    }
}

fn open(path: &Path) -> Checkpoint {
    let name = path.to_str().unwrap();
    Checkpoint::open(name, hub::locate(name, None).unwrap()).unwrap()
}

/// Logits `[V]` after a prompt, and greedy tokens.
fn ours(checkpoint: &Checkpoint, model: &Model, ids: &[u32]) -> (Vec<f32>, Vec<u32>) {
    let cache = || empty_cache(CacheKind::Prealloc, &checkpoint.config);
    let hidden = model.hidden(&ids_array(ids), &mut cache()).unwrap();
    let logits = to_f32(&model.logits(&hidden).unwrap()).unwrap();
    let last = logits[logits.len() - checkpoint.config.vocab_size..].to_vec();
    let request = Request {
        ids: ids.to_vec(),
        max_tokens: TOKENS,
        ..Request::default()
    };
    let mut cache = cache();
    let mut generator = Generator::new(model, &mut cache, &request, 512).unwrap();
    let generation = generate(&mut generator, |_| Ok(ControlFlow::Continue(())));
    (last, generation.unwrap().tokens)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

fn prompts() -> Vec<Vec<u32>> {
    let expected: Value = fixtures::json("tiny/expected.json").unwrap();
    let prompts = expected["variants"][0]["prompts"].as_array().unwrap();
    let ids = |prompt: &Value| serde_json::from_value(prompt["ids"].clone()).unwrap();
    prompts.iter().map(ids).collect()
}

fn rms(numbers: impl Iterator<Item = f32>) -> f32 {
    let squares: Vec<f32> = numbers.map(|number| number * number).collect();
    (squares.iter().sum::<f32>() / squares.len() as f32).sqrt()
}

#[test]
#[ignore = "needs llama.cpp, which is compiled in some minutes: cargo xtask fetch llama.cpp"]
fn its_logits_are_those_of_the_numbers_that_gguf_and_llama_cpp_unpack() {
    let Some(files) = Files::make(None) else {
        return;
    };
    let dense = files.place.path().join("by-gguf");
    let mut convert = script(&files.oracle, "gguf_to_hf.py");
    convert.arg(files.path("packed")).arg(&dense);
    output(convert, "");
    let dense = open(&dense);
    let halves = open(&files.path("packed")); // Q6_K is unpacked to f16
    let wide = Checkpoint {
        dtype: Some(FloatType::F32),
        ..halves.clone()
    };
    let models = [&dense, &halves, &wide].map(|from| Model::load(from).unwrap());
    let prompts = prompts();
    let theirs = files.answers("unpacked", &prompts);
    for (ids, theirs) in prompts.iter().zip(theirs) {
        let [by_gguf, halves, wide] = models.each_ref().map(|model| ours(&dense, model, ids));
        for by_them in [&by_gguf.0, &theirs.logits] {
            let [rounded, exact] =
                [&halves, &wide].map(|ours| largest_difference(&ours.0, by_them));
            assert!(rounded < 0.02 && exact < 2e-4, "{rounded} {exact}");
        }
        for tokens in [&by_gguf.1, &halves.1, &wide.1] {
            assert_eq!(*tokens, theirs.greedy);
        }
    }
}

#[test]
#[ignore = "needs llama.cpp, which is compiled in some minutes: cargo xtask fetch llama.cpp"]
fn its_tokens_are_those_of_llama_cpp_but_for_ties() {
    let Some(files) = Files::make(None) else {
        return;
    };
    let packed = open(&files.path("packed"));
    let model = Model::load(&packed).unwrap();
    let prompts = prompts();
    for (ids, theirs) in prompts.iter().zip(files.answers("packed", &prompts)) {
        let (logits, tokens) = ours(&packed, &model, ids);
        let off = rms(logits.iter().zip(&theirs.logits).map(|(a, b)| a - b));
        let size = rms(logits.iter().copied());
        let least = theirs.margins.iter().copied().fold(f32::MAX, f32::min);
        let different = tokens.iter().zip(&theirs.greedy).position(|(a, b)| a != b);
        println!("{off} of {size}, smallest margin {least}, {different:?}");
        assert!(off < 0.1 * size, "{off} of {size}");
        assert!(
            different.is_none_or(|at| theirs.margins[at] < TIE),
            "{different:?}"
        );
    }
}

/// The perplexity in the JSON line, by the flags of llama.cpp's way.
fn our_perplexity(file: &Path) -> f64 {
    let mut command = Command::new(cargo_bin("part4-quantization"));
    command.arg("--model").arg(file);
    command.args("--text answers --json --rounds 1 --cache quantized:K8:V8".split(' '));
    command.args(["--score", "second-half", "--window", &WINDOW.to_string()]);
    command.args(["--windows", &WINDOWS.to_string()]);
    let printed = output(command, "");
    let printed: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let quality = &printed["runs"][0]["quality"];
    quality["perplexity"]["value"].as_f64().unwrap()
}

/// With and without an id that begins texts, which llama.cpp puts in the place of each window's first token.
#[test]
#[ignore = "needs llama.cpp, which is compiled in some minutes: cargo xtask fetch llama.cpp"]
fn its_perplexity_is_that_of_llama_cpp() {
    let text = Path::new(ROOT).join("assets/texts/answers.txt");
    let text = std::fs::read_to_string(text).unwrap();
    let mut found = Vec::new();
    for flag in [None, Some("--add-bos")] {
        let Some(files) = Files::make(flag) else {
            return;
        };
        // Packed weights are multiplied with numbers of 8 bits there.
        for (name, near) in [("unpacked", 1e-5), ("packed", 2e-3)] {
            let file = files.path(name);
            let request = json!({"file": file, "text": text, "window": WINDOW, "windows": WINDOWS});
            let theirs = files.ask(&request);
            let tokenizer = Tokenizer::open(&open(&file)).unwrap();
            assert!(
                tokenizer.encode_raw(&text).unwrap() == theirs.ids,
                "other ids"
            );
            let (ours, theirs) = (our_perplexity(&file), theirs.perplexity.unwrap());
            println!("{name}: {ours}, llama.cpp {theirs}");
            assert!(
                (ours / theirs - 1.0).abs() < near,
                "{name}: {ours} {theirs}"
            );
            found.push(ours);
        }
    }
    assert!(
        (found[0] - found[2]).abs() > 1e-3,
        "the id changes nothing: {found:?}"
    );
}
