#!/bin/sh
# Makes tests/data/tokenizer.model, a 400-piece SentencePiece model with Llama's settings: BPE, byte
# fallback, no normalisation, extra spaces kept. Needs spm_train (Debian package sentencepiece).
set -eu
target=$(cd "$(dirname "$0")" && pwd)/tokenizer.model
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > text <<'TEXT'
The cache is predicted from a smaller model, and the base model answers.
A prompt is read once; the first token comes sooner than it would otherwise come.
Keys and values of every layer are forecast by one linear map for each layer.
She said that the weather in the mountains was fine, and that they should leave at 6:45.
def add(a, b):
    return a + b
for i in range(10):
    if i % 2 == 0:
        print(i)
Où est le café? Das Mädchen läuft über die Straße. Cafés und Straßen.
TEXT
spm_train --input=text --model_prefix=tokenizer --model_type=bpe --vocab_size=400 \
  --byte_fallback=true --normalization_rule_name=identity --remove_extra_whitespaces=false \
  --split_digits=true --allow_whitespace_only_pieces=true --character_coverage=1.0 \
  --num_threads=1 --minloglevel=2
mv tokenizer.model "$target"
