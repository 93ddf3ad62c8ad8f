"""What the command `llm` makes of a server: python llm_python.py http://127.0.0.1:8080"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

URL = sys.argv[1].rstrip("/")

with tempfile.TemporaryDirectory() as folder:
    models = [{"model_id": "ours", "model_name": "tiny", "api_base": f"{URL}/v1"}]
    (Path(folder) / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML

    def llm(*flags):
        command = [Path(sys.executable).parent / "llm", *flags]
        environment = {**os.environ, "LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}
        ran = subprocess.run(command, env=environment, text=True, capture_output=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    ask = ["-m", "ours", "-o", "temperature", "0", "-o", "max_tokens", "12"]
    streamed = llm("prompt", *ask, "Tell me a story.")
    assert streamed.strip() and streamed == llm("prompt", *ask, "--no-stream", "Tell me a story.")
    assert llm("prompt", *ask, "--continue", "And then?").strip()
    logged = json.loads(llm("logs", "--json", "-n", "0"))
    assert len(logged) == 3 and all(entry["model"] == "ours" for entry in logged)

print(f"llm {version('llm')}: all as it should be")
