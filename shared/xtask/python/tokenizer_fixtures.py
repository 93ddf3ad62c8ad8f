"""Makes assets/fixtures/tokenizers: what reference tokenizers say of a few hundred strings.

    python shared/xtask/python/tokenizer_fixtures.py

Needs transformers, tokenizers, gguf, sentencepiece and .mlx/models/smollm2-135m-instruct.gguf.
Everything is seeded: a second run writes the same bytes.
"""

import io
import json
import random
from importlib.metadata import version
from pathlib import Path

import gguf
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN2

ROOT = Path(__file__).resolve().parents[3]
OUT = ROOT / "assets" / "fixtures" / "tokenizers"
LLAMA3 = TikTokenConverter.__init__.__defaults__[1]

# One line a script or a difficulty. They are used alone, and glued to each other at random.
FRAGMENTS = [
    "Explain black holes",
    "The quick brown fox jumps over the lazy dog.",
    "It's we're I'll she'd THEY'VE don'T O'Neill 'tis",
    "antidisestablishmentarianism",
    "naïve café, Ångström, Straße, İstanbul",
    "cafe\u0301 A\u030angstro\u0308m n\u0303",
    "Z\u0335\u0321a\u0337\u0322l\u0336g\u0338o\u0334",
    "0 1 12 123 1234 12345 123456 3.14159 1,000,000 1e-9 0xFF",
    "x²+y³=½ ⅧⅣ １２３ १२३ ٤٥٦",
    "  leading, trailing  ",
    "a  b   c    d     e",
    "tab\tand\t\ttabs",
    "one\ntwo\n\nthree\r\nfour\r\n\r\nfive\n ",
    "\n\n\n",
    "     ",
    " 7  8   9",
    "fn main() {\n    let x = vec![1, 2];\n    println!(\"{x:?}\");\n}\n",
    "def f(a, *, b=None):\n\treturn a if b is None else b  # ok",
    "SELECT * FROM t WHERE a >= 10 AND b != 'x';",
    "<div class=\"a\">&nbsp;</div>",
    "https://example.com/a/b?c=d&e=%20#f",
    "C:\\Users\\me\\file.txt",
    "!!! ??? ... --- *** ((())) [] {} <> /* */ // ## @@ $$ %% ^^ && ||",
    "\u201cquotes\u201d \u2018single\u2019 \u2013 \u2014 \u2026 \u00a9 \u00ae \u2122",
    "🙂",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪🇯🇵 ❤️",
    "text🙂text 🙂 🙂🙂",
    "नमस्ते दुनिया",
    "क्षत्रिय ज्ञान हिन्दी में लिखना",
    "தமிழ் বাংলা ગુજરાતી",
    "你好，世界！今天天气怎么样？",
    "日本語のテキストとカタカナ、ひらがな。",
    "안녕하세요 세계",
    "مرحبا بالعالم",
    "שלום עולם",
    "Привет, мир! Ёлка",
    "Γειά σου Κόσμε",
    "สวัสดีชาวโลก",
    "\u00a0nbsp\u00a0\u3000ideographic\u2003em\u2028line\u2029par\u200bzero\u200djoin",
    "\u0000\u0001\u0007\u001b[0m\u007f",
    "\ufeffbom \ufffd replacement \U0010ffff \ue000",
    "▁under▁score ▁",
    "Ġspace Ċ <0x41> <0x0A>",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𓀀 𠜎",
    "ﬁ ﬂ Ⅷ ㎏ ｶﾞ",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|>a<|endoftext|>",
    "<s>a</s> <unk>",
    "not <|a_token|> <|im_start |>",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "ababababababababab 1212121212",
]


def make_texts(count=260):
    rng = random.Random(20240229)
    texts = list(FRAGMENTS)
    while len(texts) < count:
        parts = rng.choices(FRAGMENTS, k=rng.randint(2, 3))
        cut = [part[rng.randrange(len(part)) :][: rng.randint(1, 24)] for part in parts]
        text = rng.choice(["", " ", "  ", "\n"]).join(cut)
        if text and text not in texts:
            texts.append(text)
    return texts


CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONTROL_TYPE, USER_TYPE = 3, 4


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # One line for each list of ids, so that a change can be seen.
    text = text.replace("],[", "],\n[").replace('"ids":', '\n"ids":')
    (OUT / name).write_text(text + "\n", encoding="utf-8")
    print(name, len(text))


def ids_of(tokenizer, texts):
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def smollm2(texts):
    reader = gguf.GGUFReader(ROOT / ".mlx/models/smollm2-135m-instruct.gguf")
    keys = {"tokenizer_type": "model", "pre_tokenizer_type": "pre", "tokens": "tokens",
            "token_type": "token_type", "merges": "merges"}
    meta = {k: reader.fields["tokenizer.ggml." + v].contents() for k, v in keys.items()}
    tokenizer, _ = convert_gguf_tokenizer("llama", meta)
    # transformers does not know the name "smollm"; this is what SmolLM's own tokenizer.json says.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    write("smollm2.json", {"reference": f"transformers {version('transformers')}, GGUF conversion",
                           "ids": ids_of(tokenizer, texts)})


def tiny(texts):
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "assets/models/tiny")
    chat = [tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=True,
                                          add_generation_prompt=True, return_dict=False)
            for text in texts[:20]]
    raw = [tokenizer.encode(text) for text in texts]
    decoded = [tokenizer.decode(ids, skip_special_tokens=True) for ids in raw]
    write("tiny.json", {"reference": f"transformers {version('transformers')}",
                        "chat": chat, "ids": raw, "decoded": decoded})


def byte_level(name, pre, texts, pre_tokenizer, normalizer=None, ignore_merges=False, bos=None):
    """Trains a small vocabulary behind a published pre-tokenizer and writes it as GGUF would."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=620, special_tokens=CONTROL, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts + [(ROOT / "assets/models/tiny/README.md").read_text()], trainer)
    tokenizer.add_tokens(["<think>"])
    state = json.loads(tokenizer.to_str())
    vocab = {**state["model"]["vocab"], "<think>": tokenizer.token_to_id("<think>")}
    tokens = [token for token, _ in sorted(vocab.items(), key=lambda item: item[1])]
    kinds = [CONTROL_TYPE if t in CONTROL else USER_TYPE if t == "<think>" else 1 for t in tokens]
    vocabulary = {
        "model": "gpt2", "pre": pre, "tokens": tokens, "token_type": kinds,
        "merges": [" ".join(pair) for pair in state["model"]["merges"]],
        "bos_token_id": 0, "eos_token_id": 2,
    }
    if bos is not None:
        vocabulary["add_bos_token"] = bos
    write(name, {"reference": f"tokenizers {version('tokenizers')}", "vocabulary": vocabulary,
                 "ids": ids_of(tokenizer, texts)})


def word_pattern(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def sentence_piece(texts):
    """Trains a SentencePiece model the way Llama's was and asks SentencePiece itself."""
    controls = ("<s>", "</s>", "<unk>")
    plain = [text for text in texts if "\0" not in text and not any(c in text for c in controls)]
    lines = [line for text in plain for line in text.splitlines() if line.strip()] * 2
    lines += (ROOT / "assets/models/tiny/README.md").read_text().splitlines()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=800,
        byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, character_coverage=0.98,
        num_threads=1, minloglevel=2, user_defined_symbols=["<think>"],
    )
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kind = lambda i: (2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i)
                      else 4 if sp.id_to_piece(i) == "<think>" else 1)
    vocabulary = {
        "model": "llama", "tokens": [sp.id_to_piece(i) for i in range(sp.vocab_size())],
        "scores": [sp.get_score(i) for i in range(sp.vocab_size())],
        "token_type": [kind(i) for i in range(sp.vocab_size())],
        "bos_token_id": sp.bos_id(), "eos_token_id": sp.eos_id(), "unknown_token_id": sp.unk_id(),
    }
    ids = [sp.encode(text) if text in plain else None for text in texts]
    decoded = [sp.decode(i) if i is not None else None for i in ids]
    write("gguf-sentencepiece.json", {"reference": f"sentencepiece {version('sentencepiece')}",
                                      "vocabulary": vocabulary, "ids": ids, "decoded": decoded})


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    texts = make_texts()
    (OUT / "texts.json").write_text(json.dumps(texts, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    smollm2(texts)
    tiny(texts)
    byte_level("gguf-gpt2.json", "gpt-2", texts, pre_tokenizers.ByteLevel(add_prefix_space=False))
    byte_level("gguf-llama3.json", "llama-bpe", texts, word_pattern(LLAMA3), ignore_merges=True)
    byte_level("gguf-qwen2.json", "qwen2", texts, word_pattern(QWEN2), normalizers.NFC(), bos=False)
    sentence_piece(texts)


if __name__ == "__main__":
    main()
