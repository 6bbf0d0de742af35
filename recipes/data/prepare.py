#!/usr/bin/env python3
"""Fetches and cleans the text of the model family: one .txt.zst per source and manifest.json.

    recipes/data/prepare.py --corpus CORPUS --eval EVAL --debs DEBS OUT

CORPUS holds the .txt.zst and .jsonl.zst files of English, EVAL the evaluation files (.jsonl.gz),
DEBS the Debian packages that packages.toml names; missing ones are fetched with apt-get download.
Documents that hold a question of an evaluation file are dropped and counted. The result depends on
the input alone. Needs Python 3.11, zstd and dpkg-deb; memory is that of the digests of what was
seen, about 0.4 GB for Python.
"""

import argparse
import fnmatch
import json
import multiprocessing
import pathlib
import sys
import tomllib

from corpus import debian, dictionaries, markup, trivia
from corpus.documents import DocumentWriter, falls_in_fraction, read_documents
from corpus.overlap import EvaluationQuestions
from corpus.prose import ProseCleaner
from corpus.python_source import PythonCleaner, is_test

COPIED = ("wikipedia-core-en", "openstax-textbooks", "classic-books", "world-factbook")
TRIVIA = {"trivia": ("triviaqa-train.jsonl.gz", "open-trivia-qa.jsonl.zst"),
          "trivia-extra": ("triviaqa-train-extra.jsonl.gz",)}  # poorer answers, apart for that
LARGEST_FILE_BYTES = 4 << 20
LARGEST_DICTIONARY_BYTES = 64 << 20


class Preparation:
    """What every source is made with; one process a source."""

    def __init__(self, arguments, packages, debs):
        self.arguments, self.packages, self.debs = arguments, packages, debs
        self.notes = {}  # package -> version and licences, from its file name and copyright file
        self.overlap = EvaluationQuestions(sorted(
            path for path in arguments.eval.glob("*.jsonl.gz")
            if not path.name.startswith("triviaqa-train")))

    def writer(self, name):
        return DocumentWriter(self.arguments.out / f"{name}.txt.zst", self.overlap,
                              self.arguments.level)

    def package_files(self, package, wanted, largest_bytes=LARGEST_FILE_BYTES):
        """(path, bytes) of the package's wanted files of a sane size; notes its licences."""
        deb = self.debs[package]
        note = {"version": deb.name.split("_")[1].replace("%3a", ":"),
                "licenses": ["no copyright file of its own"]}
        self.notes[package] = note
        for path, size, read in debian.regular_files(deb):
            if path == f"/usr/share/doc/{package}/copyright":
                note["licenses"] = debian.license_names(read().decode("utf-8", "replace"))
            elif size <= largest_bytes and wanted(path):
                yield path, read()

    def copy(self, name):
        with self.writer(name) as out:
            for document in read_documents(self.arguments.corpus / f"{name}.txt.zst"):
                out.add(document)
        return out.summary()

    def trivia(self, name):
        paths = [folder / file for file in TRIVIA[name]
                 for folder in (self.arguments.corpus, self.arguments.eval)
                 if (folder / file).exists()]
        documents, dropped = trivia.documents(paths, self.overlap)
        with self.writer(name) as out:
            for document in documents:
                out.add(document)
        return out.summary() | {"rows_dropped_for_evaluation": dropped}

    def python(self):
        section = self.packages["python"]
        cleaner = PythonCleaner()

        def wanted(path):
            return path.endswith(".py") and (
                not is_test(path) or falls_in_fraction(path, section["test_fraction"]))

        def cleaned(packages):
            for package in packages.split():
                for _, raw in self.package_files(package, wanted):
                    text = cleaner.clean(raw)
                    if text:
                        yield text

        with self.writer("python") as out:
            for text in cleaned(section["packages"]):
                out.add(text)
            share = section["openstack_share"]
            room = out.text_bytes * share / (1 - share)
            openstack = self.arguments.out / "openstack.txt.zst"
            with DocumentWriter(openstack, None, 1) as spool:
                for text in cleaned(section["openstack"]):
                    spool.add(text)
            fraction = min(1.0, room / max(1, spool.text_bytes))
            for number, text in enumerate(read_documents(openstack)):
                if falls_in_fraction(f"openstack {number}", fraction):
                    out.add(text)
            openstack.unlink()
        return out.summary() | {"files_skipped": cleaner.skipped,
                                "openstack_fraction": round(fraction, 4)}

    def technical_prose(self):
        section = self.packages["technical-prose"]
        cleaner = ProseCleaner()

        def wanted(path):
            return (any(fnmatch.fnmatchcase(path, rule) for rule in section["files"])
                    and not any(fnmatch.fnmatchcase(path, rule) for rule in section["skip"]))

        sizes = {}
        with self.writer("technical-prose") as out:
            for package in section["packages"].split():
                before = out.text_bytes
                for path, raw in self.package_files(package, wanted):
                    text = cleaner.clean(markup.text_of(path, raw) or "")
                    if text:
                        out.add(text)
                sizes[package] = out.text_bytes - before
        return out.summary() | {"package_bytes": sizes}

    def dictionaries(self):
        sizes = {}
        with self.writer("dictionaries") as out:
            for package in self.packages["dictionaries"]["packages"].split():
                before, files = out.text_bytes, {}
                for path, raw in self.package_files(package, lambda path: "/usr/share/" in path,
                                                    LARGEST_DICTIONARY_BYTES):
                    if path.endswith((".index", ".dict.dz")):
                        files[path.rsplit(".", 1)[-1]] = raw
                    elif "/fortunes/" in path and "." not in path.rsplit("/", 1)[-1]:
                        for document in dictionaries.pack(dictionaries.fortunes(raw)):
                            out.add(document)
                if files:
                    found = dictionaries.entries(files["index"], files["dz"])
                    for document in dictionaries.pack(found):
                        out.add(document)
                sizes[package] = out.text_bytes - before
        return out.summary() | {"package_bytes": sizes}

    def make(self, name):
        """(name, its part of the manifest, notes on the packages it used)."""
        if name in COPIED:
            summary = self.copy(name)
        elif name in TRIVIA:
            summary = self.trivia(name)
        else:
            summary = getattr(self, name.replace("-", "_"))()
        return name, summary, self.notes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--eval", type=pathlib.Path, required=True)
    parser.add_argument("--debs", type=pathlib.Path, required=True)
    parser.add_argument("--packages", type=pathlib.Path,
                        default=pathlib.Path(__file__).with_name("packages.toml"))
    parser.add_argument("--only", nargs="*", help="these sources (default: all)")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--level", type=int, default=12, help="zstd level of the output")
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()

    packages = tomllib.loads(arguments.packages.read_text())
    # The longest first.
    names = ["technical-prose", "python", *COPIED, "dictionaries", *TRIVIA]
    if arguments.only:
        names = [name for name in names if name in arguments.only]
    needed = {"python": ("packages", "openstack"), "technical-prose": ("packages",),
              "dictionaries": ("packages",)}
    wanted = [package for name in names for key in needed.get(name, ())
              for package in packages[name][key].split()]
    arguments.out.mkdir(parents=True, exist_ok=True)
    preparation = Preparation(arguments, packages, debian.fetch(wanted, arguments.debs))

    manifest_path = arguments.out / "manifest.json"
    manifest = {"packages": {}, "sources": {}}
    if manifest_path.exists():
        manifest = json.loads(manifest_path.read_text())
    with multiprocessing.get_context("fork").Pool(max(1, arguments.jobs)) as pool:
        for name, summary, notes in pool.imap_unordered(preparation.make, names, chunksize=1):
            manifest["sources"][name] = summary
            manifest["packages"] |= notes
            print(f"{name}: {summary['documents']} documents, {summary['bytes'] / 1e6:.1f} MB, "
                  f"dropped {sum(summary['dropped_for_evaluation'].values())}", file=sys.stderr)
    manifest_path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, RuntimeError) as error:
        sys.exit(f"prepare.py: {error}")
