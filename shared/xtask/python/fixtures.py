"""Writes assets/fixtures with mlx-lm as the reference. A second run gives the same bytes.

    python fixtures.py ROOT_OF_THE_WORKSPACE [group ...] [--smollm2 model.gguf]

The groups are `synthetic`, `gguf`, `ops`, `tokenizers`, `tiny` and `smollm2`; all of them without a name.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

import oracle
import synthetic


def make_synthetic(args, out):
    for spec in synthetic.specs():
        expected = synthetic.make(out / spec["name"], spec)
        oracle.write_json(out / spec["name"] / "expected.json", expected)
        say(f"{spec['name']:24} smallest margin {expected['min_margin']}")


GROUPS = {
    "synthetic": make_synthetic,
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS])
    parser.add_argument("--smollm2", type=Path, help="the GGUF file that the real model is in")
    args = parser.parse_args()
    for name in args.groups or GROUPS:
        start = time.monotonic()
        # mlx-lm reports on stdout, transformers too: it belongs to the progress, not to an answer.
        with contextlib.redirect_stdout(sys.stderr):
            GROUPS[name](args, args.root / "assets/fixtures")
        say(f"{name}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
