"""Random blocks of GGUF's packed types, and the numbers that gguf's own Python code makes of them."""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q

# Where a block has 16-bit floats: its scales, which must be finite. All other bytes may be anything.
FLOATS = {
    Q.Q4_0: [0],
    Q.Q4_1: [0, 2],
    Q.Q5_0: [0],
    Q.Q5_1: [0, 2],
    Q.Q8_0: [0],
    Q.Q2_K: [80, 82],
    Q.Q3_K: [108],
    Q.Q4_K: [0, 2],
    Q.Q5_K: [0, 2],
    Q.Q6_K: [208],
    Q.IQ4_NL: [0],
    Q.IQ4_XS: [0],
}
NUMBERS = 512  # of each type


def random_blocks(kind, count, rng):
    _, width = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (count, width), dtype=np.uint8)
    for at in FLOATS[kind]:
        scales = rng.standard_normal(count).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    return blocks


def make(path, seed=11):
    """Type after type: the blocks, and their numbers in f32."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        for kind in FLOATS:
            size, _ = gguf.GGML_QUANT_SIZES[kind]
            blocks = random_blocks(kind, NUMBERS // size, rng)
            numbers = gguf.quants.dequantize(blocks, kind)
            assert numbers.dtype == np.float32 and np.isfinite(numbers).all()
            file.write(blocks.tobytes() + numbers.astype("<f4").tobytes())
