#!/usr/bin/env python3
"""Writes blocks.gguf: two rows of random codes of every block type, and what they mean in f32.

The f32 twins (NAME.f32) are computed by the `gguf` package of PyPI, which also writes the file.
    pip install gguf && tests/golden/gguf/make.py
"""
import pathlib

import gguf
import numpy as np

COLUMNS = 256
# Type, and where in a block its half-precision scales lie: random bytes there would be infinities.
TYPES = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0],
}


def random_rows(rng, quant_type, scales):
    elements, size = gguf.GGML_QUANT_SIZES[quant_type]
    blocks = rng.integers(0, 256, (2, COLUMNS // elements, size), dtype=np.uint8)
    for at in scales:
        values = (rng.normal(size=blocks.shape[:2]) * 0.1).astype(np.float16)
        blocks[..., at:at + 2] = values[..., None].view(np.uint8)
    return blocks.reshape(2, -1)


def main():
    rng = np.random.default_rng(15)
    path = pathlib.Path(__file__).with_name("blocks.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("golden.texts", ["a", "", "b\N{SNOWMAN}"])
    writer.add_array("golden.integers", [1, -2, 3])
    writer.add_array("golden.numbers", [0.5, -1.5])
    writer.add_bool("golden.truth", True)
    writer.add_float64("golden.number", 0.1)
    for name, scales in TYPES.items():
        quant_type = gguf.GGMLQuantizationType[name]
        rows = random_rows(rng, quant_type, scales)
        writer.add_tensor(name, rows, raw_dtype=quant_type)
        writer.add_tensor(name + ".f32", gguf.quants.dequantize(rows, quant_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
