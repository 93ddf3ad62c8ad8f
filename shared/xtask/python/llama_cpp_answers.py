"""What llama.cpp makes of a model, through its Python binding: python llama_cpp_answers.py < REQUEST

REQUEST and the answer are JSON:
    {"source": FILE, "file": FILE, "type": "MOSTLY_Q4_K_M"}    → quantize source into file first, if "source" is there
    {"prompts": [[ID, …], …], "count": N}               → for each: "logits" after it, N "greedy" tokens, their "margins"
    {"text": TEXT, "window": N, "windows": N}           → "ids" of the text, "nll" for each window, "perplexity"
"""

import json
import sys

import llama_cpp
import numpy as np
from llama_cpp import Llama

THREADS = 2


def quantize(source, target, kind):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{kind}")
    params.nthread = THREADS
    params.allow_requantize = True  # to F32, which only unpacks
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), params) != 0:
        raise SystemExit(f"llama.cpp cannot quantize {source}")


def read(llm, ids):
    """Logits after each of the ids, from an empty cache: [n, V]."""
    llm.reset()
    llm.eval(ids)
    return llm.scores[: len(ids)].copy()


def answer(llm, ids, count):
    logits = read(llm, ids)[-1]
    first, greedy, margins = logits, [], []
    for _ in range(count):
        second, best = np.sort(logits)[-2:]
        margins.append(float(best - second))
        greedy.append(int(logits.argmax()))
        llm.eval(greedy[-1:])
        logits = llm.scores[llm.n_tokens - 1]
    return {"logits": [float(x) for x in first], "greedy": greedy, "margins": margins}


def surprises(llm, ids, half):
    """-ln p of the tokens after the middle, as perplexity.cpp has them: sums in double precision."""
    logits = read(llm, ids)[half:-1].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -logprobs[np.arange(len(logprobs)), ids[half + 1 :]]


def perplexity(llm, text, window, windows):
    """The loop of llama.cpp's perplexity tool, which the binding does not have."""
    ids = llm.tokenize(text.encode(), add_bos=True, special=True)
    adds_bos = llama_cpp.llama_vocab_get_add_bos(llm._model.vocab)
    nll = []
    for at in range(0, min(len(ids) // window, windows) * window, window):
        row = ids[at : at + window]
        if adds_bos:
            row[0] = llm.token_bos()
        nll.append(surprises(llm, row, window // 2))
    return {"ids": ids, "nll": [float(x.mean()) for x in nll], "perplexity": float(np.exp(np.concatenate(nll).mean()))}


def main():
    request = json.load(sys.stdin)
    if "source" in request:
        quantize(request["source"], request["file"], request["type"])
    # Keys and values in f32: in f16, llama.cpp's default, they alone would move the logits.
    f32 = llama_cpp.GGML_TYPE_F32
    llm = Llama(
        request["file"], n_ctx=1024, n_batch=512, n_ubatch=512, n_threads=THREADS, n_threads_batch=THREADS,
        type_k=f32, type_v=f32, logits_all=True, verbose=False,
    )
    result = {"prompts": [answer(llm, ids, request["count"]) for ids in request.get("prompts", [])]}
    if "text" in request:
        result |= perplexity(llm, request["text"], request["window"], request["windows"])
    json.dump(result, sys.stdout)


main()
