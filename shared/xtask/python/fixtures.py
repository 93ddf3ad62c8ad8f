"""Writes assets/fixtures with mlx-lm as the reference. A second run gives the same bytes.

    python fixtures.py ROOT_OF_THE_WORKSPACE [group ...] [--smollm2 model.gguf] [--cache folder]

The groups are `synthetic`, `gpt2`, `gguf`, `ops`, `affine`, `rotating`, `tokenizer`, `tiny`,
`quality`, `conversions`, `smollm2` and `rotating-smollm2`; all of them without a name. `smollm2` takes
more than half an hour, nearly all of it in bf16, 4-bit and naive decoding on the CPU.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

import mlx.core as mx

# The same device everywhere, and before mlx-lm is imported: it makes its stream then.
mx.set_default_device(mx.cpu)

import affine
import conversions
import four_bits
import gguf_blocks
import gguf_fixtures
import gguf_k
import gpt2_fixtures
import nvfp4
import ops
import oracle
import quality
import real
import rotating
import synthetic
import tokens
from gguf_to_hf import convert


def make_synthetic(args, out):
    for spec in synthetic.specs():
        record(out / spec["name"], synthetic.make(out / spec["name"], spec))
    four_bits.make(out, record)
    record(out / nvfp4.NAME, nvfp4.make(out / nvfp4.NAME))


def make_gpt2(args, out):
    record(out / "gpt2", gpt2_fixtures.make(out / "gpt2"))


def make_gguf(args, out):
    gguf_blocks.make(out / "ops/gguf-blocks.bin")
    for spec in gguf_fixtures.specs():
        record(out / spec["name"], gguf_fixtures.make(out / spec["name"], spec))
    record(out / gguf_k.SPEC["name"], gguf_k.make(out / gguf_k.SPEC["name"]))


def record(folder, expected):
    oracle.write_json(folder / "expected.json", expected)
    say(f"  {folder.name:24} smallest margin {expected['min_margin']}")


def make_ops(args, out):
    ops.make(out / "ops", tiny(args))


def make_affine(args, out):
    affine.make(out / "ops")


def make_rotating(args, out):
    rotating.make(out)


def make_rotating_smollm2(args, out):
    rotating.make_smollm2(smollm2_f32(args), out)


def smollm2_f32(args):
    folder = real.smollm2_folder(args.cache, "f32")
    if not (folder / "tokenizer.json").exists():
        convert(args.smollm2, folder, "f32")
    return folder


def make_tokenizer(args, out):
    folders = {"tiny": tiny(args), "smollm2": smollm2_f32(args)}
    tokens.make(out / "ops/tokenizer.json", folders)


def make_tiny(args, out):
    real.make_tiny(tiny(args), out, say)


def make_conversions(args, out):
    conversions.make(tiny(args), out, say)


def make_quality(args, out):
    quality.make(args.root, tiny(args), out)


def make_smollm2(args, out):
    real.make_smollm2(args.smollm2, args.cache, out, say)


def tiny(args):
    return args.root / "assets/models/tiny"


GROUPS = {
    "synthetic": make_synthetic,
    "gpt2": make_gpt2,
    "gguf": make_gguf,
    "ops": make_ops,
    "affine": make_affine,
    "rotating": make_rotating,
    "tokenizer": make_tokenizer,
    "tiny": make_tiny,
    "quality": make_quality,
    "conversions": make_conversions,
    "smollm2": make_smollm2,
    "rotating-smollm2": make_rotating_smollm2,
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(GROUPS))
    parser.add_argument("--smollm2", type=Path, help="the GGUF file of the real model")
    parser.add_argument("--cache", type=Path, help="where its conversions go")
    args = parser.parse_args()
    args.smollm2 = args.smollm2 or args.root / ".mlx/models/smollm2-135m-instruct.gguf"
    args.cache = args.cache or args.root / ".mlx/models"
    for name in args.groups or GROUPS:
        start = time.monotonic()
        say(name)
        # mlx-lm reports on stdout, transformers too: it belongs to the progress, not to an answer.
        with contextlib.redirect_stdout(sys.stderr):
            GROUPS[name](args, args.root / "assets/fixtures")
        say(f"  {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
