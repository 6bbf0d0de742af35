"""Documents in and out: text files whose documents end with a line `<|endoftext|>`."""

import hashlib
import subprocess

END_OF_TEXT = "<|endoftext|>"


def digest(text):
    """64 bits of a text that are the same in every run, unlike hash()."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def falls_in_fraction(name, fraction):
    """True for a `fraction` of all names."""
    return digest(name) < fraction * 2**64


def read_documents(path):
    """The documents of a .txt.zst file, one after another."""
    mark = END_OF_TEXT.encode() + b"\n"
    with subprocess.Popen(["zstd", "-dcq", "--long=31", str(path)],
                          stdout=subprocess.PIPE) as unpack:
        lines = []
        for line in unpack.stdout:
            if line == mark:
                yield b"".join(lines).decode().strip("\n")
                lines = []
            else:
                lines.append(line)
        if lines:
            yield b"".join(lines).decode().strip("\n")
    if unpack.returncode != 0:
        raise RuntimeError(f"{path}: zstd could not unpack it")


class DocumentWriter:
    """Writes one source as .txt.zst; drops and counts documents that hold an evaluation question."""

    def __init__(self, path, overlap, level=12):
        self.path, self.overlap = path, overlap
        self.documents = self.text_bytes = 0
        self.dropped = {}  # evaluation file -> documents dropped for it
        self.partial = path.with_name(path.name + ".partial")
        self.pack = subprocess.Popen(["zstd", "-q", f"-{level}", "-f", "-o", str(self.partial)],
                                     stdin=subprocess.PIPE)

    def add(self, text):
        text = text.strip("\n")
        if not text.strip() or END_OF_TEXT in text:
            return
        found = self.overlap.find(text) if self.overlap else None
        if found:
            self.dropped[found] = self.dropped.get(found, 0) + 1
            return
        data = f"{text}\n{END_OF_TEXT}\n".encode()
        self.documents += 1
        self.text_bytes += len(data)
        self.pack.stdin.write(data)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.pack.stdin.close()
        if self.pack.wait() != 0 or kind is not None:
            self.partial.unlink(missing_ok=True)
            if kind is None:
                raise RuntimeError(f"{self.path}: zstd could not write it")
        else:
            self.partial.replace(self.path)

    def summary(self):
        return {"documents": self.documents, "bytes": self.text_bytes,
                "dropped_for_evaluation": self.dropped}


class SeenBlocks:
    """Remembers blocks of text by a digest of their words."""

    def __init__(self):
        self.seen = set()

    def add(self, block):
        """True if the block is new; layout does not count."""
        key = digest(" ".join(block.split()))
        if key in self.seen:
            return False
        self.seen.add(key)
        return True
