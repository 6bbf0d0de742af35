#!/usr/bin/env python3
"""One training step of KV prediction in plain PyTorch, beside kvcast-train's.

Random weights of two OpenELM architectures, one batch, the paper's losses (method section 4) written
down as they stand, nothing shared with the trainer but files. Needs PyTorch.

  plain_step.py --base openelm-1.1b --auxiliary openelm-270m --dtype bf16 [--device cuda] [--tokens 512]

Ends with 1 if a loss differs by more than --tolerance of the total loss.
"""

import argparse
import json
import math
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

# name: layers, width, head width (method section 2)
SHAPES = {"openelm-270m": (16, 1280, 64), "openelm-450m": (20, 1536, 64),
          "openelm-1.1b": (28, 2048, 64), "openelm-3b": (36, 3072, 128),
          "tiny-base": (4, 128, 16), "tiny-auxiliary": (3, 64, 16)}
VOCABULARY, CONTEXT, GROUPS, EPS = 32000, 2048, 4, 1e-6


def make_divisible(value, divisor):
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def spread(first, last, count):
    return [round(first + (last - first) * i / (count - 1), 2) for i in range(count)]


def config_of(name):
    """config.json as Hugging Face's OpenELM has it."""
    layers, dim, head_dim = SHAPES[name]
    qkv, ffn = spread(0.5, 1.0, layers), spread(0.5, 4.0, layers)
    heads = [make_divisible(m * dim, head_dim * GROUPS) // head_dim for m in qkv]
    return {"model_type": "openelm", "model_dim": dim, "head_dim": head_dim, "vocab_size": VOCABULARY,
            "num_transformer_layers": layers, "num_query_heads": heads,
            "num_kv_heads": [h // GROUPS for h in heads], "num_gqa_groups": GROUPS,
            "qkv_multipliers": qkv, "ffn_multipliers": ffn, "ffn_dim_divisor": 256, "ffn_with_glu": True,
            "normalize_qk_projections": True, "rope_freq_constant": 10000, "rope_max_length": 2 * CONTEXT,
            "max_context_length": CONTEXT, "share_input_output_layers": True,
            "activation_fn_name": "swish", "normalization_layer_name": "rms_norm"}


def ffn_width(config, i):
    return make_divisible(config["ffn_multipliers"][i] * config["model_dim"], config["ffn_dim_divisor"])


def random_weights(config, seed, dtype):
    """Norms 1, matrices N(0, 0.02), names as on Hugging Face."""
    generator = torch.Generator().manual_seed(seed)
    dim, head_dim = config["model_dim"], config["head_dim"]

    def matrix(*shape):
        return (torch.randn(*shape, generator=generator) * 0.02).to(dtype)

    def ones(size):
        return torch.ones(size, dtype=dtype)

    weights = {"transformer.token_embeddings.weight": matrix(config["vocab_size"], dim),
               "transformer.norm.weight": ones(dim)}
    for i in range(config["num_transformer_layers"]):
        heads, kv = config["num_query_heads"][i], config["num_kv_heads"][i]
        ffn = ffn_width(config, i)
        weights |= {f"transformer.layers.{i}.{name}.weight": value for name, value in {
            "attn.qkv_proj": matrix((heads + 2 * kv) * head_dim, dim), "attn.q_norm": ones(head_dim),
            "attn.k_norm": ones(head_dim), "attn.out_proj": matrix(dim, heads * head_dim),
            "attn_norm": ones(dim), "ffn_norm": ones(dim), "ffn.proj_1": matrix(2 * ffn, dim),
            "ffn.proj_2": matrix(dim, ffn)}.items()}
    return weights


def write_safetensors(path, tensors):
    """The format is a length, a JSON header and the bytes."""
    names = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64"}
    header, offset = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def write_model(directory, config, weights):
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    write_safetensors(directory / "model.safetensors", weights)


def canonical_map(base_layers, auxiliary_layers):
    """Method section 5: the early auxiliary layers are repeated."""
    times, more = divmod(base_layers, auxiliary_layers)
    return [j for j in range(auxiliary_layers) for _ in range(times + (j < more))]


def random_predictor(base, auxiliary, layer_map, dtype):
    """PyTorch's default initialisation of a linear layer."""
    tensors = {}
    for kind in ("key", "value"):
        for i, j in enumerate(layer_map):
            linear = torch.nn.Linear(auxiliary["num_kv_heads"][j] * auxiliary["head_dim"],
                                     base["num_kv_heads"][i] * base["head_dim"], dtype=dtype)
            tensors[f"{kind}_transforms.{i}.weight"] = linear.weight.detach()
            tensors[f"{kind}_transforms.{i}.bias"] = linear.bias.detach()
    return tensors


def rms_norm(x, weight):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS) * weight.float()).to(x.dtype)


def rope(x):
    """x [B, T, heads, head_dim], half-split."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angles = torch.outer(torch.arange(x.shape[1], device=x.device, dtype=torch.float64), frequencies)
    cos, sin = angles.cos().float()[:, None], angles.sin().float()[:, None]
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


def forward(config, weights, tokens, replaced=None):
    """Logits' hidden states, and each layer's keys before and after k_norm, and values."""
    x = weights["transformer.token_embeddings.weight"][tokens]
    head_dim, cache = config["head_dim"], []
    for i in range(config["num_transformer_layers"]):
        w = {name: weights[f"transformer.layers.{i}.{name}.weight"] for name in (
            "attn_norm", "attn.qkv_proj", "attn.q_norm", "attn.k_norm", "attn.out_proj", "ffn_norm",
            "ffn.proj_1", "ffn.proj_2")}
        heads, kv = config["num_query_heads"][i], config["num_kv_heads"][i]
        qkv = F.linear(rms_norm(x, w["attn_norm"]), w["attn.qkv_proj"])
        qkv = qkv.view(*tokens.shape, heads + 2 * kv, head_dim)
        query, key, value = qkv.split([heads, kv, kv], 2)
        normed = rms_norm(key, w["attn.k_norm"])
        cache.append((key, normed, value))
        if replaced is not None:
            normed, value = replaced[i]
        query, normed = rope(rms_norm(query, w["attn.q_norm"])), rope(normed)
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2), normed.repeat_interleave(GROUPS, 2).transpose(1, 2),
            value.repeat_interleave(GROUPS, 2).transpose(1, 2), is_causal=True)
        x = x + F.linear(attended.transpose(1, 2).flatten(2), w["attn.out_proj"])
        gate, up = F.linear(rms_norm(x, w["ffn_norm"]), w["ffn.proj_1"]).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, w["ffn.proj_2"])
    return rms_norm(x, weights["transformer.norm.weight"]), cache


def cross_entropy(weights, hidden, targets):
    logits = F.linear(hidden, weights["transformer.token_embeddings.weight"]).float().flatten(0, 1)
    z_loss = 1e-4 * logits.logsumexp(-1).square().mean()
    return F.cross_entropy(logits, targets.flatten()), z_loss


def step(base_config, base, auxiliary_config, auxiliary, predictor, layer_map, tokens, targets):
    """The losses of method section 4, by the names that `kvcast-train probe` gives them."""
    auxiliary_hidden, auxiliary_cache = forward(auxiliary_config, auxiliary, tokens)
    predicted = []
    for i, j in enumerate(layer_map):
        shape = (*tokens.shape, base_config["num_kv_heads"][i], base_config["head_dim"])

        def mapped(kind, x):
            return F.linear(x.flatten(2), predictor[f"{kind}_transforms.{i}.weight"],
                            predictor[f"{kind}_transforms.{i}.bias"]).view(shape)

        key = rms_norm(mapped("key", auxiliary_cache[j][0]),
                       base[f"transformer.layers.{i}.attn.k_norm.weight"])
        predicted.append((key, mapped("value", auxiliary_cache[j][2])))
    base_hidden, _ = forward(base_config, base, tokens, replaced=predicted)
    with torch.no_grad():
        _, exact = forward(base_config, base, tokens)
    losses = {}
    losses["base_loss"], losses["z_loss_base"] = cross_entropy(base, base_hidden, targets)
    losses["auxiliary_loss"], losses["z_loss_auxiliary"] = cross_entropy(
        auxiliary, auxiliary_hidden, targets)
    losses["k_loss/total"] = sum((p[0].float() - e[1].float()).abs().mean()
                                 for p, e in zip(predicted, exact))
    losses["v_loss/total"] = sum((p[1].float() - e[2].float()).abs().mean()
                                 for p, e in zip(predicted, exact))
    consistency = (losses["k_loss/total"] + losses["v_loss/total"]) / len(layer_map)
    losses["total_loss"] = sum(losses[name] for name in (
        "base_loss", "z_loss_base", "auxiliary_loss", "z_loss_auxiliary")) + consistency
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="openelm-1.1b", choices=SHAPES)
    parser.add_argument("--auxiliary", default="openelm-270m", choices=SHAPES)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sequences", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    program = Path(__file__).resolve().parents[2] / "build/release/kvcast-train"
    parser.add_argument("--program", default=program)
    arguments = parser.parse_args()
    stored = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    torch.manual_seed(3)

    base_config, auxiliary_config = config_of(arguments.base), config_of(arguments.auxiliary)
    layer_map = canonical_map(base_config["num_transformer_layers"],
                              auxiliary_config["num_transformer_layers"])
    base, auxiliary = random_weights(base_config, 1, stored), random_weights(auxiliary_config, 2, stored)
    predictor = random_predictor(base_config, auxiliary_config, layer_map, stored)
    windows = torch.randint(3, VOCABULARY, (arguments.sequences, arguments.tokens + 1))
    tokens, targets = windows[:, :-1], windows[:, 1:]

    with tempfile.TemporaryDirectory() as name:
        bundle = Path(name)
        write_model(bundle / "base", base_config, base)
        write_model(bundle / "auxiliary", auxiliary_config, auxiliary)
        write_safetensors(bundle / "predictor.safetensors", predictor)
        (bundle / "kvcast.json").write_text(json.dumps({
            "format": 1, "base": "base", "auxiliary": "auxiliary", "predictor": "predictor.safetensors",
            "layer_map": layer_map}))
        write_safetensors(bundle / "batch.safetensors", {"input_ids": tokens, "targets": targets})
        command = [arguments.program, "probe", bundle, "--batch", bundle / "batch.safetensors", "--dtype",
                   arguments.dtype, "--device", arguments.device, "--json"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.loads(output)

    def placed(tensors, trained):
        return {name: t.to(arguments.device).requires_grad_(trained) for name, t in tensors.items()}

    auxiliary, predictor = placed(auxiliary, True), placed(predictor, True)
    losses = step(base_config, placed(base, False), auxiliary_config, auxiliary, predictor, layer_map,
                  tokens.to(arguments.device), targets.to(arguments.device))
    losses["total_loss"].backward()

    worst, total = 0.0, losses["total_loss"].item()
    print(f"{'loss':20} {'kvcast-train':>14} {'plain PyTorch':>14} {'difference':>12} {'of the total':>12}")
    for name, value in losses.items():
        ours, plain = report["losses"][name], value.item()
        # Sums over layers are compared layer by layer.
        difference = abs(ours - plain) / (len(layer_map) if name.endswith("/total") else 1)
        worst = max(worst, difference / total)
        print(f"{name:20} {ours:14.6f} {plain:14.6f} {difference:12.2e} {difference / total:12.2e}")
    norms = {f"auxiliary.{name.removeprefix('transformer.')}": t for name, t in auxiliary.items()}
    norms |= {f"predictor.{name}": t for name, t in predictor.items()}
    ratios = [report["grad_norms"][name] / t.grad.float().norm().item() for name, t in norms.items()
              if t.grad is not None and t.grad.float().norm().item() > 0]
    print(f"gradient norms of {len(ratios)} tensors, kvcast-train / plain: {min(ratios):.4f} to "
          f"{max(ratios):.4f}")
    if not math.isfinite(worst) or worst > arguments.tolerance:
        sys.exit(f"plain_step.py: a loss differs by {worst:.2e} of the total, more than {arguments.tolerance}")


if __name__ == "__main__":
    main()
