"""Whether aiperf sees the times that the server tells of itself: python aiperf_python.py http://127.0.0.1:8080

A small load of equal requests, in events. Their mean time to the first token and mean gap between two tokens, as the
client has them and as /metrics has them.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from importlib.metadata import version
from pathlib import Path

URL = sys.argv[1].rstrip("/")
TOKENIZER = Path(__file__).resolve().parents[2] / "assets/models/tiny"
REQUESTS, TOKENS = 48, 64

# A share of what the server says, and milliseconds. The client's time to the first token has what the server cannot see:
# the connection, the way of the request and of the first event, and aiperf's processes, which share the cores with the
# model. 10 % and 10 ms are room for that, with prompts that are long enough for the first to be the larger one. Of a mean
# gap the ways cancel, except those of the first and the last token, over 63 gaps. A clock that begins too late, or that
# counts what waits twice, is further off.
NEAR = {"time_to_first_token": (0.10, 10), "inter_token": (0.05, 1)}


def sums():
    with urllib.request.urlopen(URL + "/metrics") as response:
        lines = response.read().decode().splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: [float(numbers[f"pipeline_{name}_seconds_{of}"]) for of in ("sum", "count")] for name in NEAR}


def load(directory):
    with urllib.request.urlopen(URL + "/v1/models") as response:
        model = json.load(response)["data"][0]["id"]
    command = ["--model", model, "--url", URL, "--endpoint-type", "chat", "--streaming", "--concurrency", "8"]
    command += ["--request-count", str(REQUESTS), "--isl", "400", "--osl", str(TOKENS), "--random-seed", "1"]
    command += ["--extra-inputs", "ignore_eos:true", "--tokenizer", TOKENIZER, "--use-server-token-count"]
    command += ["--no-gpu-telemetry", "--no-server-metrics", "--ui", "none", "--artifact-dir", directory]
    # Offline it takes no folder for a tokenizer.
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    aiperf = Path(sys.executable).with_name("aiperf")
    done = subprocess.run([aiperf, "profile", *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((Path(directory) / "profile_export_aiperf.json").read_text())


before = sums()
with tempfile.TemporaryDirectory() as directory:
    seen = load(directory)
after = sums()
assert seen["request_count"]["avg"] == REQUESTS, seen["request_count"]
assert seen["output_sequence_length"]["min"] == seen["output_sequence_length"]["max"] == TOKENS
theirs = {"time_to_first_token": seen["time_to_first_token"]["avg"], "inter_token": seen["inter_token_latency"]["avg"]}
far = []
for name, (share, least) in NEAR.items():
    spent, count = (new - old for new, old in zip(after[name], before[name], strict=True))
    ours = spent / count * 1000
    print(f"{name}: aiperf {theirs[name]:.2f} ms, the server {ours:.2f} ms (ratio {theirs[name] / ours:.3f})")
    if abs(theirs[name] - ours) > ours * share + least:
        far.append(name)
assert not far, f"further apart than they may be: {far}"
print(f"aiperf {version('aiperf')}: {REQUESTS} requests take the same time there and in /metrics")
