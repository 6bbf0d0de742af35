#!/usr/bin/env python3
"""Tiny random models of each family and the numbers that transformers and PyTorch compute on them (README.md).

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors
    venv/bin/python tests/golden/make_golden.py

Writes tests/golden/families/NAME/ for each model, and tests/golden/qwen2-llama-kvp/, a KV-prediction bundle with the losses and
gradient norms of one training step. The weights are seeded: the same versions write the same files.
"""
import json
import math
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import save_file
from torch.nn import functional
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

HERE = pathlib.Path(__file__).parent
VOCABULARY, PROMPTS, TOKENS, STEPS = 96, 2, 24, 8

SHAPE = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.3)
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 16}
MODELS = {
    "llama": transformers.LlamaConfig(**SHAPE, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2),
    "llama3": transformers.LlamaConfig(**SHAPE, tie_word_embeddings=True, bos_token_id=90, eos_token_id=[91, 92],
                                       rope_parameters=LLAMA3_ROPE),
    "mistral": transformers.MistralConfig(**SHAPE, tie_word_embeddings=False, head_dim=12, sliding_window=48),
    "qwen2": transformers.Qwen2Config(**SHAPE, tie_word_embeddings=True, bos_token_id=None, eos_token_id=93,
                                      rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
    "qwen3": transformers.Qwen3Config(**SHAPE, tie_word_embeddings=False, head_dim=16, bos_token_id=None, eos_token_id=94),
}


def random_model(config, seed):
    """All parameters random, norms and biases too: PyTorch starts those as ones and zeros, which hide mistakes."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif name.endswith(".bias"):
                parameter.copy_(0.5 * torch.randn_like(parameter))
    return model


def save_model(model, directory):
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)


def greedy(model, prompt):
    """[STEPS] tokens that follow `prompt`, each computed from the whole sequence anew."""
    tokens = prompt
    for _ in range(STEPS):
        tokens = torch.cat([tokens, model(tokens[None]).logits[0, -1].argmax()[None]])
    return tokens[len(prompt):]


@torch.no_grad()
def write_family(name, config, seed):
    model = random_model(config, seed)
    directory = HERE / "families" / name
    save_model(model, directory)
    ids = torch.randint(0, VOCABULARY, (PROMPTS, TOKENS), generator=torch.Generator().manual_seed(seed))
    save_file({"input_ids": ids, "logits": model(ids).logits.contiguous(), "greedy_tokens": torch.stack([greedy(model, p) for p in ids])},
              directory / "expected.safetensors")


# ---- one training step (docs/TRAINING.md): what follows are the equations, on transformers' own modules ----

def heads_of(x, head_dim):
    return x.view(*x.shape[:2], -1, head_dim).transpose(1, 2)


def raw_key_values(model, ids):
    """Keys before RoPE and values of every layer, [B, T, width], and the logits."""
    cache, handles = {}, []
    for i, layer in enumerate(model.model.layers):
        for kind, module in (("key", layer.self_attn.k_proj), ("value", layer.self_attn.v_proj)):
            handles.append(module.register_forward_hook(lambda m, a, out, k=(kind, i): cache.__setitem__(k, out)))
    logits = model(ids).logits
    for handle in handles:
        handle.remove()
    return cache, logits


def forward_with_replaced(model, ids, cache):
    """The base reads every token, with the keys (before RoPE) and values of `cache` in place of its own."""
    head_dim = model.config.hidden_size // model.config.num_attention_heads
    x = model.model.embed_tokens(ids)
    cos, sin = model.model.rotary_emb(x, torch.arange(ids.shape[1])[None])
    future = torch.full((ids.shape[1], ids.shape[1]), -math.inf).triu(1)
    for i, layer in enumerate(model.model.layers):
        h = layer.input_layernorm(x)
        query, key = apply_rotary_pos_emb(heads_of(layer.self_attn.q_proj(h), head_dim), heads_of(cache["key", i], head_dim), cos, sin)
        groups = query.shape[1] // key.shape[1]
        scores = query @ repeat_kv(key, groups).transpose(2, 3) / math.sqrt(head_dim) + future
        attended = scores.softmax(-1) @ repeat_kv(heads_of(cache["value", i], head_dim), groups)
        x = x + layer.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(model.model.norm(x))


def cross_entropy(logits, targets, z_loss):
    flat = logits.flatten(0, 1)
    return functional.cross_entropy(flat, targets.flatten()), z_loss * flat.logsumexp(-1).square().mean()


def fused(gradients, prefix):
    """Gradient norms by the trainer's names, where query, key and value are one tensor, gate and up another."""
    parts = {"self_attn.qkv_proj.{}": ("self_attn.q_proj.{}", "self_attn.k_proj.{}", "self_attn.v_proj.{}"),
             "mlp.proj_1.{}": ("mlp.gate_proj.{}", "mlp.up_proj.{}")}
    names = {"self_attn.qkv_proj": "attn.qkv_proj", "self_attn.o_proj": "attn.out_proj", "mlp.proj_1": "ffn.proj_1",
             "mlp.down_proj": "ffn.proj_2", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
             "embed_tokens": "token_embeddings"}
    whole = {}
    for name, gradient in gradients.items():
        name = name.removeprefix("model.")
        for into, of in parts.items():
            for kind in ("weight", "bias"):
                for part in of:
                    name = name.replace(part.format(kind), into.format(kind))
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        whole.setdefault(prefix + name, []).append(gradient.flatten())
    return {name: torch.cat(parts).norm().item() for name, parts in whole.items()}


def write_training_step(seed):
    directory = HERE / "qwen2-llama-kvp"
    shutil.rmtree(directory, ignore_errors=True)
    small = SHAPE | dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1)
    base = random_model(MODELS["qwen2"], seed)
    auxiliary = random_model(transformers.LlamaConfig(**small, tie_word_embeddings=False, rope_parameters=LLAMA3_ROPE), seed + 1)
    save_model(base, directory / "base")
    save_model(auxiliary, directory / "auxiliary")
    base.requires_grad_(False)
    layer_map = [0, 0, 1]
    base_width, auxiliary_width = (m.model.layers[0].self_attn.k_proj.out_features for m in (base, auxiliary))
    predictor = {}
    for i in range(len(layer_map)):
        for kind in ("key", "value"):
            predictor[f"{kind}_transforms.{i}.weight"] = 0.3 * torch.randn(base_width, auxiliary_width)
            predictor[f"{kind}_transforms.{i}.bias"] = 0.1 * torch.randn(base_width)
    save_file(predictor, directory / "predictor.safetensors")
    for tensor in predictor.values():
        tensor.requires_grad_(True)
    manifest = {"format": 1, "base": "base", "auxiliary": "auxiliary", "predictor": "predictor.safetensors", "layer_map": layer_map}
    (directory / "kvcast.json").write_text(json.dumps(manifest, indent=1) + "\n")
    generator = torch.Generator().manual_seed(seed)
    ids, targets = (torch.randint(0, VOCABULARY, (2, 9), generator=generator) for _ in range(2))
    save_file({"input_ids": ids, "targets": targets}, directory / "batch.safetensors")

    own, auxiliary_logits = raw_key_values(auxiliary, ids)
    predicted = {(kind, i): functional.linear(own[kind, j], predictor[f"{kind}_transforms.{i}.weight"], predictor[f"{kind}_transforms.{i}.bias"])
                 for i, j in enumerate(layer_map) for kind in ("key", "value")}
    with torch.no_grad():
        exact, _ = raw_key_values(base, ids)
    consistency = {at: (predicted[at] - exact[at]).abs().mean() for at in predicted}
    weight, z_loss = 1 / len(layer_map), 1e-4
    base_loss, base_z = cross_entropy(forward_with_replaced(base, ids, predicted), targets, z_loss)
    auxiliary_loss, auxiliary_z = cross_entropy(auxiliary_logits, targets, z_loss)
    total = base_loss + base_z + auxiliary_loss + auxiliary_z + weight * sum(consistency.values())
    total.backward()
    losses = {"base_loss": base_loss, "auxiliary_loss": auxiliary_loss, "z_loss_base": base_z, "z_loss_auxiliary": auxiliary_z, "total_loss": total}
    losses |= {f"{kind[0]}_loss/{i}": loss for (kind, i), loss in consistency.items()}
    gradients = fused({name: p.grad for name, p in auxiliary.named_parameters()}, "auxiliary.")
    gradients |= {f"predictor.{name}": p.grad.norm().item() for name, p in predictor.items()}
    expected = {"lambda_consistency": weight, "z_loss": z_loss, "losses": {name: loss.item() for name, loss in losses.items()}, "grad_norms": gradients}
    (directory / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    for number, (name, config) in enumerate(MODELS.items()):
        write_family(name, config, 100 + number)
    write_training_step(200)
