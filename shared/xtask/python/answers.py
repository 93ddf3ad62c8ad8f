"""Writes assets/texts/answers.txt: what the embedded model itself answers, sampled in f32.

    .mlx/oracle/bin/python shared/xtask/python/answers.py

By hand, not by `cargo xtask fixtures`: another BLAS draws other words, and the text is a constant.
"""

from pathlib import Path

import mlx.core as mx

mx.set_default_device(mx.cpu)

from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import make_sampler
from mlx_lm.utils import load_model, load_tokenizer

ROOT = Path(__file__).resolve().parents[3]
SUBJECTS = (
    "black holes, gravity, the sun, the moon, rain, how planes fly, why the sky is blue, rainbows, volcanoes, "
    "dinosaurs, electricity, photosynthesis, DNA, atoms, computers, the internet, neural networks, large language "
    "models, tokenization, attention, the KV cache, quantization, batching, speculative decoding, prefill, pipeline "
    "parallelism, embeddings, sampling temperature, Apple Silicon, MLX, GPUs, Rust, Python, friction, penguins, "
    "the compass, bread"
).split(", ")
QUESTIONS = ("Explain {}", "What should I know about {}?", "Tell me about {}", "Describe {} in a few sentences")
TEMPERATURE = 0.8
SEED = 7
LONGEST = 160


def main():
    folder = ROOT / "assets/models/tiny"
    model, config = load_model(folder)
    tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    model.set_dtype(mx.float32)
    mx.random.seed(SEED)
    sampler = make_sampler(temp=TEMPERATURE)
    texts = []
    for question in QUESTIONS:
        for subject in SUBJECTS:
            text = f"<|im_start|>user\n{question.format(subject)}<|im_end|>\n<|im_start|>assistant\n"
            ids = tokenizer.encode(text, add_special_tokens=False)
            answer = []
            for token, _ in generate_step(mx.array(ids), model, max_tokens=LONGEST, sampler=sampler):
                if int(token) in tokenizer.eos_token_ids:
                    break
                answer.append(int(token))
            texts.append(f"{text}{tokenizer.decode(answer)}<|im_end|>\n")
    path = ROOT / "assets/texts/answers.txt"
    path.write_text("".join(texts), encoding="utf-8")
    print(path, len("".join(texts)))


if __name__ == "__main__":
    main()
