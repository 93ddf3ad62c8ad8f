"""What lm-eval makes of a server of the built-in model in float32: python lm_eval_python.py http://127.0.0.1:8080

Its log-likelihoods are those that the server gives for the same token ids, and those of mlx-lm (lm_eval/mlx_lm.json), to
1e-4. The tokens come from the server, too: /tokenizer_info and /tokenize.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

URL = sys.argv[1].rstrip("/")
TASKS = Path(__file__).parent / "lm_eval"
MOST = 1e-4


def post(path, **body):
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def get(path):
    with urllib.request.urlopen(URL + path) as response:
        return json.load(response)


model = get("/v1/models")["data"][0]["id"]


def ids(text):
    return post("/tokenize", prompt=text, add_special_tokens=False)["tokens"]


def likelihood(before, whole):
    """Of the tokens of `whole` behind the first `before`."""
    answer = post("/v1/completions", model=model, prompt=whole, max_tokens=0, echo=True, logprobs=1)
    return sum(answer["choices"][0]["logprobs"]["token_logprobs"][before:])


def samples(directory, task):
    (file,) = directory.glob(f"*/samples_{task}_*.jsonl")
    return sorted(map(json.loads, file.read_text().splitlines()), key=lambda sample: sample["doc_id"])


def same(name, theirs, ours, of_mlx):
    worst = max(abs(theirs - ours), abs(theirs - of_mlx))
    print(f"{name}: lm-eval {theirs:.6f}, the server {ours:.6f}, mlx-lm {of_mlx:.6f}")
    assert worst <= MOST, f"{worst} apart"


with tempfile.TemporaryDirectory() as directory:
    arguments = f"model={model},base_url={URL}/v1/completions,tokenizer_backend=remote,num_concurrent=4,max_retries=1"
    command = ["--model", "local-completions", "--model_args", arguments, "--tasks", "sentences,rolling"]
    command += ["--include_path", ".", "--log_samples", "--output_path", directory]
    lm_eval = Path(sys.executable).with_name("lm_eval")
    subprocess.run([lm_eval, "run", *command], cwd=TASKS, check=True)
    expected = json.loads((TASKS / "mlx_lm.json").read_text())
    count = 0
    for sample, of_mlx in zip(samples(Path(directory), "sentences"), expected["sentences"], strict=True):
        choices = zip(sample["arguments"].values(), sample["resps"], of_mlx, strict=True)
        for request, ((theirs, _),), mlx_lm in choices:
            context, choice = request["arg_0"], request["arg_1"]
            ours = likelihood(len(ids(context)), ids(context + choice))
            same(context + choice, float(theirs), ours, mlx_lm)
            count += 1
    for sample, of_mlx in zip(samples(Path(directory), "rolling"), expected["rolling"], strict=True):
        text = sample["doc"]["text"]
        # A token of id 0, with which a text would begin here, is none for lm-eval: it takes the one that ends an answer.
        begin = get("/tokenizer_info")["eos_token"]
        ours = likelihood(1, ids(begin + text))
        same(text, float(sample["resps"][0][0]), ours, of_mlx)
        count += 1
print(f"lm-eval: {count} log-likelihoods are the server's and mlx-lm's to {MOST}")
