#!/usr/bin/env python3
"""The text of held-out documents, decoded from token shards: JSON Lines with `text` and `source`, in random order, for
`kvcast eval --task nll`, `agreement` and `next_line` and `kvcast analyze`. Needs sentencepiece.

    recipes/data/held_out_text.py SHARDS OUT.jsonl [--source python] [--seed 1]
"""
import argparse
import array
import json
import pathlib
import random
import struct
import sys

import sentencepiece


def documents(path, bos, eos):
    """Token ids of each document of a .tok file (docs/FORMAT.md)."""
    data = path.read_bytes()
    magic, version, width, count = struct.unpack_from("<8sIIQ", data)
    if magic != b"KVCTOKEN" or version != 1 or len(data) != 32 + count * width:
        sys.exit(f"{path}: not a token shard of format 1, or cut short")
    ids = array.array("H" if width == 2 else "I", data[32:])
    if sys.byteorder == "big":
        ids.byteswap()
    document = []
    for token in ids:
        if token == bos:
            document = []
        elif token == eos:
            yield document
        else:
            document.append(token)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--source", help="of this source only")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    index = json.loads((args.shards / "shards.json").read_text())
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.shards / "tokenizer.model"))
    sources = [s for s in index["sources"] if args.source in (None, s["name"])]
    if not sources:
        sys.exit(f"--source {args.source}: not in {args.shards}: {', '.join(s['name'] for s in index['sources'])}")
    files = sorted((shard["file"], source["name"]) for source in sources for shard in source["held_out"]["shards"])
    rows = [{"text": tokenizer.decode(document), "source": name} for file, name in files
            for document in documents(args.shards / file, index["bos_token"], index["eos_token"])]
    random.Random(args.seed).shuffle(rows)
    partial = args.out.with_name(args.out.name + ".partial")
    with open(partial, "w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    partial.rename(args.out)
    print(f"{args.out}: {len(rows)} documents")


if __name__ == "__main__":
    main()
