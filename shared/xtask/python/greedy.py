"""Greedy tokens of a checkpoint by mlx-lm, as a JSON list: python greedy.py FOLDER COUNT ID [ID ...]"""

import json
import sys
from pathlib import Path

import mlx.core as mx

mx.set_default_device(mx.cpu)

from mlx_lm.utils import load_model, load_tokenizer

import oracle

folder, count, ids = Path(sys.argv[1]), int(sys.argv[2]), [int(i) for i in sys.argv[3:]]
model, config = load_model(folder)
load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))  # it is whole, too
print(json.dumps(oracle.greedy_cached(model, ids, count)[0]))
