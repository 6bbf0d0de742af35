#!/usr/bin/env python3
"""Text and prompts for recipes/adapt/qwen-coder.toml, out of Python source files.

    code_prompts.py MODEL.gguf OUT --held-out held.jsonl FOLDER...

Writes OUT/python.txt (the files, one document each; `zstd` it) and OUT/prompts.safetensors, which
`kvcast-train answers` reads. Three kinds of prompt, as the model is used:
  heads   signature and docstring of a function of the files, for the model to go on from;
  stems   a made-up function name with the beginning of a signature, for the model to make up the rest;
  chats   instructions around pieces of the files, in the model's chat template.
Files that begin like a document of the held-out set (JSON Lines with `text`) are left out.
Needs numpy, safetensors and the kvcast package (for tokenizer and chat template).
"""
import argparse
import ast
import glob
import hashlib
import json
import os
import random
import textwrap

VERBS = """count sum find get remove sort is check compute filter reverse max min split join rotate merge convert parse validate
encode decode flatten unique common longest shortest first last next prev add multiply double square cube even odd prime fibonacci
factorial gcd digits binary hex roman vowels words letters string list nested numbers integers triples pairs array matrix grid tree
graph path stack queue bank date time temperature triangle circle area median mean mode histogram palindrome anagram bracket balanced
closest smallest largest strange special lucky order select choose make build generate change replace insert delete compare match
intersect union difference total average sub super solve simplify exchange""".split()
IMPORTS = ["", "from typing import List\n\n\n", "\n", "\n", "from typing import List, Tuple\n\n\n",
           "from typing import Optional, List\n\n\n", "import math\n\n\n", "\n\n"]
SIGNATURES = ["(", "(", "(", "(numbers: List[int]) -> ", "(string: str) -> ", '(lst):\n    """', '(n: int):\n    """ ',
              '(s):\n    """\n    ', '(arr, k):\n    """\n    Given ', "(x: int, y: int) -> ", '(a, b):\n    """',
              "(words: List[str]) -> "]
OF_CODE = ["Explain what this code does.", "Find a mistake in this code, if there is one, and correct it.",
           "Write tests for this function.", "Rewrite this so that it is simpler.", "Add type hints and a docstring.",
           "Translate this to JavaScript.", "Translate this to C++.", "What is the time complexity of this code?"]
OF_HEADS = ["Complete this function.\n\n```python\n{}```", "Implement this in Python and explain your solution.\n\n{}"]
OF_TASKS = ["Write a Python function for this task: {}",
            "Write a program that does the following: {} Give an example of its use.",
            "{} How would you do that in Python?"]


def documents(folders, held_out, bytes_per_folder):
    """Source texts that are neither tables, nor copies of each other, nor held out."""
    files = [(folder, f) for folder in folders for f in glob.glob(folder + "/**/*.py", recursive=True)]
    random.shuffle(files)
    seen, taken, texts = set(), {}, []
    for folder, file in files:
        try:
            text = open(file, encoding="utf-8").read()
        except (OSError, UnicodeDecodeError):
            continue
        key = hashlib.md5(text[200:1500].encode()).digest()
        tables = text.count("0x") + text.count("\\x") > len(text) / 60 or max(map(len, text.split("\n"))) > 600
        if not 400 < len(text) < 200_000 or text[:200] in held_out or tables or key in seen:
            continue
        if taken.get(folder, 0) > bytes_per_folder:
            continue
        seen.add(key)
        taken[folder] = taken.get(folder, 0) + len(text)
        texts.append(text.strip("\n"))
    return texts


def heads(texts):
    """Signature and docstring of every function that has one of a useful length."""
    found = []
    for text in texts:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("test"):
                continue
            doc = ast.get_docstring(node)
            if not doc or not 40 < len(doc) < 1200 or '"""' in doc or "'''" in doc:
                continue
            if node.args.args and node.args.args[0].arg in ("self", "cls"):
                node.args.args = node.args.args[1:]
            node.body, node.decorator_list = [ast.Pass()], []
            signature = ast.unparse(node).split("\n    pass")[0]
            if "\n" in signature or len(signature) > 200:
                continue
            quote = random.choice(['"""', "'''", '"""'])
            start = random.choice(["", " ", "\n    "])
            imports = "from typing import List\n\n\n" if "List" in signature else random.choice(["", "\n", "\n"])
            found.append((f"{imports}{signature}\n    {quote}{start}{textwrap.indent(doc, '    ').strip()}\n    {quote}\n",
                          doc.split("\n\n")[0].replace("\n", " ")))
    random.shuffle(found)
    return found


def chat(texts, functions):
    """An instruction, or None where the piece that was drawn is of no use."""
    kind = random.random()
    if kind < 0.6:
        lines = random.choice(texts).split("\n")
        starts = [i for i, line in enumerate(lines) if line.startswith(("def ", "class ", "    def "))]
        if not starts:
            return None
        first = random.choice(starts)
        code = textwrap.dedent("\n".join(lines[first:first + random.choice([8, 14, 20, 30])])).strip()
        return f"{random.choice(OF_CODE)}\n\n```python\n{code}\n```" if 60 < len(code) < 1400 else None
    head, task = random.choice(functions)
    return random.choice(OF_HEADS).format(head.strip("\n") + "\n") if kind < 0.75 else random.choice(OF_TASKS).format(task)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--held-out")
    parser.add_argument("--megabytes", type=float, default=5.0, help="of each folder")
    parser.add_argument("--prompts", type=int, nargs=3, default=[9000, 5000, 4500], metavar=("HEADS", "STEMS", "CHATS"))
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    held_out = set()
    if arguments.held_out:
        held_out = {json.loads(line)["text"][:200] for line in open(arguments.held_out, encoding="utf-8")}
    texts = documents(arguments.folders, held_out, 1e6 * arguments.megabytes)
    functions = heads(texts)
    if not functions:
        parser.error("no function with a docstring in these folders")
    os.makedirs(arguments.out, exist_ok=True)
    with open(os.path.join(arguments.out, "python.txt"), "w", encoding="utf-8") as file:
        file.writelines(text + "\n<|endoftext|>\n" for text in texts)

    import kvcast
    import numpy as np
    from safetensors.numpy import save_file
    model = kvcast.Model.load(arguments.model)

    def tokens(text):
        return model.tokenize(text, add_bos=False)

    def chat_tokens(text):
        return model.chat_prompt([{"role": "user", "content": text}])

    n_heads, n_stems, n_chats = arguments.prompts
    stems = {random.choice(IMPORTS) + "def " + "_".join(random.sample(VERBS, random.choice([1, 2, 2, 2, 3])))
             + random.choice(["", "", "_"]) + random.choice(SIGNATURES) for _ in range(2 * n_stems)}
    prompts = [tokens(head) for head, _ in functions[:n_heads]] + [tokens(stem) for stem in sorted(stems)[:n_stems]]
    drawn = (chat(texts, functions) for _ in range(4 * n_chats))
    prompts += [chat_tokens(text) for text in [text for text in drawn if text][:n_chats]]
    prompts = [p for p in prompts if len(p) <= 300]
    random.shuffle(prompts)
    save_file({"tokens": np.concatenate([np.array(p, dtype=np.int64) for p in prompts]),
               "ends": np.cumsum([len(p) for p in prompts]).astype(np.int64)},
              os.path.join(arguments.out, "prompts.safetensors"))
    print(f"{len(texts)} files, {sum(map(len, texts)) / 1e6:.1f} MB; {len(functions)} functions; "
          f"{len(prompts)} prompts of {sum(map(len, prompts))} tokens")


if __name__ == "__main__":
    main()
