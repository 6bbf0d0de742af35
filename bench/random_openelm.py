#!/usr/bin/env python3
"""Writes an OpenELM checkpoint of a known shape with random bf16 weights, or a bundle of two of them, so that
loading, converting and peers can be measured without a download. Needs numpy.

    bench/random_openelm.py OUT --arch 1.1b [--aux 270m]
"""
import argparse
import json
import pathlib
import struct

import numpy as np

# layers, model_dim, head_dim
SHAPES = {"270m": (16, 1280, 64), "450m": (20, 1536, 64), "1.1b": (28, 2048, 64)}
VOCAB = 32000
CONTEXT = 2048
GQA_GROUPS = 4
FFN_DIVISOR = 256


def make_divisible(value, divisor):
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def multipliers(first, last, count):
    return [round(first + (last - first) * i / (count - 1), 2) for i in range(count)]


def layer_shapes(arch):
    """(query heads, KV heads, FFN width) per layer: OpenELM's layer-wise scaling."""
    layers, dim, head_dim = SHAPES[arch]
    for qkv, ffn in zip(multipliers(0.5, 1.0, layers), multipliers(0.5, 4.0, layers)):
        heads = make_divisible(qkv * dim, head_dim * GQA_GROUPS) // head_dim
        yield heads, heads // GQA_GROUPS, make_divisible(ffn * dim, FFN_DIVISOR)


def tensor_shapes(arch):
    """Hugging Face's names and shapes."""
    _, dim, head_dim = SHAPES[arch]
    yield "transformer.token_embeddings.weight", (VOCAB, dim)
    yield "transformer.norm.weight", (dim,)
    for i, (heads, kv_heads, ffn) in enumerate(layer_shapes(arch)):
        layer = f"transformer.layers.{i}."
        yield layer + "attn_norm.weight", (dim,)
        yield layer + "ffn_norm.weight", (dim,)
        yield layer + "attn.q_norm.weight", (head_dim,)
        yield layer + "attn.k_norm.weight", (head_dim,)
        yield layer + "attn.qkv_proj.weight", ((heads + 2 * kv_heads) * head_dim, dim)
        yield layer + "attn.out_proj.weight", (dim, heads * head_dim)
        yield layer + "ffn.proj_1.weight", (2 * ffn, dim)
        yield layer + "ffn.proj_2.weight", (dim, ffn)


def predictor_shapes(base, aux, layer_map):
    base_shapes, aux_shapes = list(layer_shapes(base)), list(layer_shapes(aux))
    for i, j in enumerate(layer_map):
        width = base_shapes[i][1] * SHAPES[base][2]
        for kind in ("key", "value"):
            yield f"{kind}_transforms.{i}.weight", (width, aux_shapes[j][1] * SHAPES[aux][2])
            yield f"{kind}_transforms.{i}.bias", (width,)


def layer_map(base, aux):
    """Each auxiliary layer serves an equal share of base layers; the early ones take the remainder."""
    share, remainder = divmod(SHAPES[base][0], SHAPES[aux][0])
    return [j for j in range(SHAPES[aux][0]) for _ in range(share + (j < remainder))]


def write_safetensors(path, shapes, seed):
    """Matrices uniform with variance 1 / columns, vectors of ones; all in bf16."""
    shapes = list(shapes)
    header, at = {}, 0
    for name, shape in shapes:
        end = at + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    rng = np.random.default_rng(seed)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes:
            if len(shape) == 1:
                values = np.full(shape, 0.0 if name.endswith(".bias") else 1.0, dtype=np.float32)
            else:
                values = (rng.random(shape, dtype=np.float32) * 2 - 1) * np.float32((3 / shape[1]) ** 0.5)
            (values.view(np.uint32) >> 16).astype(np.uint16).tofile(file)


def write_model(directory, arch, seed):
    layers, dim, head_dim = SHAPES[arch]
    shapes = list(layer_shapes(arch))
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "openelm", "model_dim": dim, "head_dim": head_dim, "num_transformer_layers": layers,
        "num_query_heads": [s[0] for s in shapes], "num_kv_heads": [s[1] for s in shapes],
        "ffn_multipliers": multipliers(0.5, 4.0, layers), "qkv_multipliers": [0.5, 1.0],
        "ffn_dim_divisor": FFN_DIVISOR, "ffn_with_glu": True, "activation_fn_name": "swish",
        "normalization_layer_name": "rms_norm", "normalize_qk_projections": True, "num_gqa_groups": GQA_GROUPS,
        "rope_freq_constant": 10000, "rope_max_length": 2 * CONTEXT, "max_context_length": CONTEXT,
        "share_input_output_layers": True, "vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2}
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    write_safetensors(directory / "model.safetensors", tensor_shapes(arch), seed)


def write_bundle(directory, base, aux):
    write_model(directory / "base", base, 1)
    write_model(directory / "auxiliary", aux, 2)
    mapping = layer_map(base, aux)
    write_safetensors(directory / "predictor.safetensors", predictor_shapes(base, aux, mapping), 3)
    manifest = {"format": 1, "base": "base", "auxiliary": "auxiliary", "predictor": "predictor.safetensors",
                "layer_map": mapping}
    (directory / "kvcast.json").write_text(json.dumps(manifest, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--arch", choices=SHAPES, required=True)
    parser.add_argument("--aux", choices=SHAPES)
    args = parser.parse_args()
    if args.aux:
        write_bundle(args.out, args.arch, args.aux)
    else:
        write_model(args.out, args.arch, 1)


if __name__ == "__main__":
    main()
