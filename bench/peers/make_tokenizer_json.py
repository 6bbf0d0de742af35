"""A tokenizer.json, as the published models have it, from another form of the same vocabulary.

    python bench/peers/make_tokenizer_json.py SOURCE OUT.json

SOURCE is a GGUF file (a byte-level vocabulary of SmolLM2, Qwen2 or Llama 3), a tokenizer.model of Llama 3 (lines of
base64 and rank), a tekken.json of Mistral, or a SentencePiece BPE model with byte fallback (Llama 2, Mistral). Needs
PyPI's tokenizers, and gguf or sentencepiece for these. PyPI's llama-models and mistral-common have such files.
"""

import argparse
import base64
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def written_bytes() -> list[str]:
    """GPT-2's printable character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def byte_level(kind: str, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=kind in ("llama-bpe", "tekken")))
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    if kind == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        words = {"qwen2": QWEN2, "llama-bpe": LLAMA3, "tekken": TEKKEN}[kind]
        steps = [pre_tokenizers.Split(Regex(words), "isolated"),
                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def from_gguf(path: pathlib.Path) -> Tokenizer:
    import gguf

    fields = gguf.GGUFReader(path).fields
    value = lambda name: fields[f"tokenizer.ggml.{name}"].contents()
    tokens, types = value("tokens"), value("token_type")
    vocabulary = {token: i for i, (token, kind) in enumerate(zip(tokens, types)) if kind == 1}
    merges = [tuple(merge.split(" ")) for merge in value("merges")]
    tokenizer = byte_level(value("pre"), vocabulary, merges)
    added = [AddedToken(token, special=kind == 3, normalized=False) for token, kind in zip(tokens, types) if kind in (3, 4)]
    place_added(tokenizer, {t: i for i, t in enumerate(tokens)}, vocabulary, merges, value("pre"), added)
    return tokenizer


def place_added(tokenizer, ids, vocabulary, merges, kind, added) -> None:
    """Added tokens keep their ids: they are entries of the vocabulary too."""
    whole = {**vocabulary, **{str(token.content): ids[token.content] for token in added}}
    tokenizer.model = models.BPE(whole, merges, ignore_merges=kind in ("llama-bpe", "tekken"))
    tokenizer.add_tokens([token for token in added if not token.special])
    tokenizer.add_special_tokens([token for token in added if token.special])


def from_ranks(kind: str, ranks: list[bytes], first: int, special: list[str], special_first: int) -> Tokenizer:
    """Byte-level tokens in the order in which they are merged: every way to make one of two earlier ones is a merge."""
    alphabet = written_bytes()
    written = lambda token: "".join(alphabet[byte] for byte in token)
    order = {token: rank for rank, token in enumerate(ranks)}
    vocabulary = {written(token): first + rank for rank, token in enumerate(ranks)}
    merges = []
    for token in ranks:
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        cuts = [cut for cut in cuts if cut[0] in order and cut[1] in order]
        merges += [(written(a), written(b)) for a, b in sorted(cuts, key=lambda cut: (order[cut[0]], order[cut[1]]))]
    tokenizer = byte_level(kind, vocabulary, merges)
    added = [AddedToken(name, special=True, normalized=False) for name in special]
    place_added(tokenizer, {name: special_first + i for i, name in enumerate(special)}, vocabulary, merges, kind, added)
    return tokenizer


def from_tiktoken(text: str) -> Tokenizer:
    ranks = [base64.b64decode(line.split()[0]) for line in text.splitlines()]
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
               "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
               "<|eot_id|>", "<|python_tag|>"]
    special += [f"<|reserved_special_token_{i}|>" for i in range(2, 256 - len(special) + 2)]
    tokenizer = from_ranks("llama-bpe", ranks, 0, special, len(ranks))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", len(ranks))])])
    return tokenizer


def from_tekken(whole: dict) -> Tokenizer:
    special = [token["token_str"] for token in whole.get("special_tokens") or []] or ["<unk>", "<s>", "</s>"]
    count = whole["config"]["default_vocab_size"] - whole["config"]["default_num_special_tokens"]
    ranks = [base64.b64decode(token["token_bytes"]) for token in whole["vocab"][:count]]
    special += [f"<SPECIAL_{i}>" for i in range(len(special), whole["config"]["default_num_special_tokens"])]
    return from_ranks("tekken", ranks, len(special), special, 0)


def from_sentencepiece(path: pathlib.Path) -> Tokenizer:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ids = range(model.get_piece_size())
    vocabulary = {model.id_to_piece(i): i for i in ids}
    ordinary = {model.id_to_piece(i): i for i in ids if not (model.is_control(i) or model.is_unknown(i) or model.is_byte(i))}
    merges = []
    for piece in sorted(ordinary, key=lambda piece: (-model.get_score(ordinary[piece]), ordinary[piece])):
        cuts = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        cuts = [cut for cut in cuts if cut[0] in ordinary and cut[1] in ordinary]
        merges += sorted(cuts, key=lambda cut: (ordinary[cut[0]], ordinary[cut[1]]))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def read(source: pathlib.Path) -> Tokenizer:
    head = source.read_bytes()[:64]
    if head.startswith(b"GGUF"):
        return from_gguf(source)
    if head.startswith(b"{"):
        return from_tekken(json.loads(source.read_text()))
    if head.split(b"\n")[0].endswith(b" 0"):
        return from_tiktoken(source.read_text())
    return from_sentencepiece(source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out")
    asked = parser.parse_args()
    read(asked.source).save(asked.out, pretty=True)


if __name__ == "__main__":
    main()
