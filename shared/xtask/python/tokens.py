"""Token ids of the real tokenizers, through mlx-lm's wrapper."""

from mlx_lm.utils import load_tokenizer
from tokenizers import Tokenizer

import oracle
from real import TEXTS

MORE = (
    "In 2023, 12345 people paid $67.89 each.",
    "  leading spaces,\ttabs\n\nand   blank lines \n",
    "don't stop: it's (really) fine — naïve café, 東京 こんにちは",
    "<|im_start|>user\nHi<|im_end|>",
)


def texts_of(folder):
    tokenizer = load_tokenizer(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    for text in TEXTS + MORE:
        raw = list(tokenizer.encode(text))
        # The wrapper may rebuild the tokenizer from its config; the file must say the same.
        assert raw == plain.encode(text).ids, (folder, text)
        messages = [{"role": "user", "content": text}]
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        chat = list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
        decoded = tokenizer.decode(raw, skip_special_tokens=False)
        rows.append({"text": text, "raw": raw, "decoded": decoded, "rendered": rendered, "chat": chat})
    return rows


def make(path, folders):
    """folders: name → directory with a tokenizer."""
    result = {
        "mlx_lm": oracle.MLX_LM,
        "note": "raw: encode(text). decoded: decode(raw) with special tokens shown. rendered and chat: one user "
        "message through the chat template with the generation prompt, as text and as ids.",
    }
    for name, folder in folders.items():
        result[name] = texts_of(folder)
    oracle.write_json(path, result)
