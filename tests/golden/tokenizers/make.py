"""Small tokenizers of every kind that kvcast reads, and what PyPI's `tokenizers` makes of texts.

    python make.py        # writes NAME.json and NAME.cases.json beside itself, and variants.json

variants.json: parts of these tokenizers replaced by others (as RFC 7396 merges JSON), to have every step and flag.

The vocabularies are trained on the texts below; the pipelines are those of the published models.
"""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

HERE = pathlib.Path(__file__).parent

TRAINING = """The cache is predicted from a smaller model, and the base model answers.
A prompt is read once; the first token comes sooner than it would otherwise come.
Keys and values of every layer are forecast by one linear map for each layer.
She said that the weather in the mountains was fine, and that they shouldn't leave at 6:45.
def add(a, b):\n    return a + b\nfor i in range(10):\n    if i % 2 == 0:\n        print(i)
Où est le café? Das Mädchen läuft über die Straße. Cafés und Straßen.
Быстрая лиса прыгает. 日本語の文章です。今日は天気がいい。 العربية نص. 1234567890 2024-01-01
""".splitlines()

# What the tokenizers are asked for. Escapes, so that no editor changes them.
TEXTS = [
    "", " ", "  ", "\n", "\n\n", " \n ", "\t", "\r\n\r\n", "a", " a", "a ", "  a  b   c    ",
    "The cache is predicted from a smaller model.", "Hello, world! It's 2024; we'll see: I'D, YOU'VE.",
    "don't DON'T 'S 'lll '\u017f \u017fs", "x=1;y=22;z=333;w=4444;v=55555;u=1234567890123",
    "def f(x):\n\treturn x**2  # caf\u00e9\n\n\n    pass\n", "if (a<b && c>d) { e[f] = \"g\"; }",
    "caf\u00e9 cafe\u0301 \u212b \u1e9b\u0323 \uac00 \u1100\u1161\u11a8 e\u0323\u0302",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002\u4eca\u65e5\u306f", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0646\u0635",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u1019\u103c\u1014\u103a\u1019\u102c",
    "\U0001F600\U0001F468\u200d\U0001F469\u200d\U0001F467 \U0001F1E9\U0001F1EA \u2764\ufe0f",
    "\u0000\u0001\u001f\u007f\u0085\u00a0\u00ad", "a\u180eb \u2028 \u2029 \u3000x\u3000\u202f\u200b\ufeff",
    "\u2581\u2581under \u2581score \u2581", "\u00bd\u00b2\u2167\u4e00\u0663\u0967 \u2460 1\u00b22",
    "<s>", "</s>", "a<s>b </s> c", "<|end|> <|end|>x", "<0x41><0x0A>", "<unk>", "<|en", "<<|end|>>",
    "<tool>x</tool> a<tool> b", "word masked   [M]   more[M]", "wordy word wordword",
    "a\u0335\u1abf\u031b a\u20d2\u0abc\u0301 \u0e40\U0001e130\u0323\u0301",
    " " * 50 + "x" + " " * 49, "0" * 40, "\n" * 30, "=" * 60, "ab" * 30, "\u00e9" * 20,
    "\U0001F600" * 10, "\ud7ff\ue000\uffff\U0010ffff",
]

GPT2 = dict(add_prefix_space=False, trim_offsets=True)
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
SPECIAL = [AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<s>", "</s>", "<|end|>")]
# Found in every text: one as it is, one that takes spaces along, one that is no part of a word.
WORDS = [AddedToken("<tool>", normalized=False), AddedToken("[M]", lstrip=True, rstrip=True, normalized=False),
         AddedToken("word", single_word=True, normalized=True)]


def bytes_as_tokens():
    return [f"<0x{value:02X}>" for value in range(256)]


def byte_level(name, normalizer, splits, ignore_merges=False, bos=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splits[0] if len(splits) == 1 else pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet,
                                  show_progress=False)
    return name, tokenizer, trainer


def with_fallback(name, normalizer, splits, decoder):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizer
    if splits:
        tokenizer.pre_tokenizer = splits
    tokenizer.decoder = decoder
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = SPECIAL[:3] + [AddedToken(b, special=True) for b in bytes_as_tokens()] + SPECIAL[3:]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=special, limit_alphabet=90,
                                  max_token_length=16, show_progress=False)
    return name, tokenizer, trainer


def kinds():
    split = lambda regex: pre_tokenizers.Split(Regex(regex), "isolated")
    mapped = pre_tokenizers.ByteLevel(use_regex=False, **GPT2)
    digits = pre_tokenizers.Digits(individual_digits=True)
    yield byte_level("gpt-2", None, [pre_tokenizers.ByteLevel(use_regex=True, **GPT2)])
    yield byte_level("smollm", None, [digits, pre_tokenizers.ByteLevel(use_regex=True, **GPT2)])
    yield byte_level("qwen2", normalizers.NFC(), [split(QWEN2), mapped])
    yield byte_level("llama-bpe", None, [split(LLAMA3), mapped], ignore_merges=True, bos=True)
    metaspace = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    stripped = decoders.Sequence([*metaspace, decoders.Strip(" ", 1, 0)])
    prepended = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    yield with_fallback("llama-2", normalizers.Sequence(prepended), None, stripped)
    yield with_fallback("mistral", normalizers.Sequence([]),
                        pre_tokenizers.Metaspace(prepend_scheme="first", split=False), stripped)
    yield with_fallback("gemma", normalizers.Replace(" ", "\u2581"),
                        pre_tokenizers.Split(" ", "merged_with_previous"), decoders.Sequence(metaspace))


def published(path, is_fallback):
    """As the models' files have it: byte tokens are ordinary entries of the vocabulary."""
    whole = json.loads(path.read_text())
    if is_fallback:
        whole["added_tokens"] = [t for t in whole["added_tokens"] if not t["content"].startswith("<0x")]
    path.write_text(json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n")


def added(first_id, **flags):
    """Added tokens of all of these texts, with these flags; ids go on from `first_id`."""
    texts = flags.pop("texts")
    token = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False) | flags
    return [dict(token, id=first_id + i, content=text) for i, text in enumerate(texts)]


def split(regex, behavior="Isolated", invert=False):
    return dict(type="Split", pattern=dict(Regex=regex), behavior=behavior, invert=invert)


def steps(*parts, kind="pretokenizers"):
    return {"type": "Sequence", kind: list(parts)}


def template(*names):
    ids = {"<unk>": 0, "<s>": 1, "</s>": 2}
    part = lambda name: {"Sequence": dict(id="A", type_id=0)} if name == "$A" else {"SpecialToken": dict(id=name, type_id=0)}
    special = {name: dict(id=name, ids=[ids[name]], tokens=[name]) for name in names if name != "$A"}
    return dict(type="TemplateProcessing", single=[part(name) for name in names], pair=[], special_tokens=special)


def variants():
    """(base, what replaces its parts)"""
    special = lambda base: [t for t in json.loads((HERE / f"{base}.json").read_text())["added_tokens"] if t["special"]]
    mapped = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    byte_offsets = dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True)
    yield "gpt-2", dict(post_processor=template("<s>", "$A", "</s>"))
    yield "gpt-2", dict(post_processor=template("$A", "</s>"))
    yield "qwen2", dict(post_processor=steps(byte_offsets, template("<s>", "<unk>", "$A"), kind="processors"))
    yield "llama-2", dict(post_processor=template("$A"))
    names = ["[M]", "  ", "word", "\n", "\u65e5", "\u24b6"]
    for base, first in (("gpt-2", 420), ("llama-2", 480), ("mistral", 480)):
        vocabulary = json.loads((HERE / f"{base}.json").read_text())["model"]["vocab"]
        texts = [name for name in names if name not in vocabulary]
        listed = [dict(added(vocabulary[name], texts=[name], normalized=True)[0], lstrip=True) for name in names if name in vocabulary]
        for flags in (dict(lstrip=True), dict(rstrip=True), dict(lstrip=True, rstrip=True), dict(single_word=True), dict(normalized=True),
                      dict(normalized=True, rstrip=True), dict(normalized=True, single_word=True), dict(special=True, lstrip=True)):
            tokens = special(base) + added(first, texts=texts, **flags) + (listed if "special" not in flags else [])
            yield base, dict(added_tokens=sorted(tokens, key=lambda token: token["id"]))
    yield "qwen2", dict(added_tokens=special("qwen2") + added(420, texts=["caf\u00e9", "cafe\u0301", " x"], normalized=True))
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            yield "gpt-2", dict(pre_tokenizer=steps(split(r"\d| ", behavior, invert), split("a*", behavior), mapped))
    yield "gpt-2", dict(pre_tokenizer=steps(dict(type="Digits", individual_digits=False), mapped))
    yield "gpt-2", dict(pre_tokenizer=dict(mapped, add_prefix_space=True, use_regex=True))
    for regex in (r"^a|b$", r"(?m).x", r"\h+", r"a{,2}", r"\b\w", r"\W+", r"\p{Han}+", r"[[:space:]]", r"\p{^L}"):
        yield "gpt-2", dict(pre_tokenizer=steps(split(regex), mapped))
    for content, regex in (("x", "a+"), ("", r"\s"), (" ", r"\p{P}")):
        replace = dict(type="Replace", pattern=dict(Regex=regex), content=content)
        yield "gpt-2", dict(normalizer=steps(dict(type="NFKC"), replace, kind="normalizers"))
    for scheme in ("first", "always", "never"):
        for is_split in (False, True):
            yield "mistral", dict(pre_tokenizer=dict(type="Metaspace", replacement="\u2581", prepend_scheme=scheme, split=is_split))


VARIANT_TEXTS = [
    "", " ", "a[M]  b", "[M]  ", "  [M]\u3000 x", "[M][M]  [M]", "word words sword word\u24b6 word\u200d word_ word", "wordword word", "\n\n\n", " \n \n",
    "x \u65e5\u672c \u65e5", "<s> [M]</s>", "caf\u00e9 cafe\u0301 x x", "aaxbaa 12 345 a1b2", "a\nb\nab\n", "09af Gg 0x1F", "\u4e2d\u3001\u3005 \u6587",
    "\ufb01 \u2460 \u00bd \u1e9b\u0323 \u32ff \U0001fbf5", "A\u0301\u0323 \U00011935\U00011930 \U000105d2\u0307", "\U00010d40\U00011de0 \U00031350x \u1c89y",
    "\u00a0a\u2003b\u180ec", "It's a don't, aren't it? (Yes!)", "<tool>\u2581x \u2581"]


def main():
    for name, tokenizer, trainer in kinds():
        make_kind(name, tokenizer, trainer)
    make_variants()


def make_variants():
    made = []
    for base, changes in variants():
        whole = json.loads((HERE / f"{base}.json").read_text())
        tokenizer = Tokenizer.from_str(json.dumps({**whole, **changes}))
        # Flags of added tokens matter to the first half of the texts, steps to the second.
        half = len(VARIANT_TEXTS) // 2
        texts = VARIANT_TEXTS[:half] if "added_tokens" in changes else VARIANT_TEXTS[half:]
        cases = [[text, *case] for text in texts if (case := variant_case(tokenizer, text))]
        made.append(json.dumps(dict(base=base, changes=changes, cases=cases), separators=(",", ":")))
    (HERE / "variants.json").write_text("[" + ",\n".join(made) + "]\n")


def cases_of(tokenizer, text):
    """Ids with control tokens parsed and with what the post-processor adds, ids of plain text, and what these decode to."""
    tokenizer.encode_special_tokens = False
    parsed = tokenizer.encode(text).ids
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    return [parsed, plain, tokenizer.decode(plain)]


def variant_case(tokenizer, text):
    """None where `tokenizers` panics."""
    try:
        return cases_of(tokenizer, text)
    except BaseException as error:  # noqa: BLE001: a panic is no Exception
        if type(error).__name__ != "PanicException":
            raise
        return None


def make_kind(name, tokenizer, trainer):
    tokenizer.train_from_iterator(TRAINING if name not in ("llama-2",) else
                                  [line.replace(" ", "\n") for line in TRAINING], trainer)
    tokenizer.add_tokens(WORDS)
    path = HERE / f"{name}.json"
    tokenizer.save(str(path), pretty=False)
    published(path, tokenizer.model.byte_fallback)
    tokenizer = Tokenizer.from_file(str(path))
    cases = []
    for text in TEXTS:
        parsed, plain, decoded = cases_of(tokenizer, text)
        cases.append({"text": text, "plain": plain, "parsed": parsed, "decoded": decoded})
    (HERE / f"{name}.cases.json").write_text(
        "[" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "]\n")


if __name__ == "__main__":
    main()
