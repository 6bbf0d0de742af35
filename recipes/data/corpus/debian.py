"""Files out of Debian packages, without installing them."""

import subprocess
import tarfile


def fetch(packages, folder):
    """Downloads what is missing; {package: path of its .deb}."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for package in packages:
        if not list(folder.glob(f"{package}_*.deb")):
            run = subprocess.run(["apt-get", "download", "-q", package], cwd=folder, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if run.returncode != 0:
                raise RuntimeError(f"{package}: apt-get could not download it: {run.stdout}")
        found[package] = max(folder.glob(f"{package}_*.deb"))
    return found


def regular_files(deb):
    """(path, size, read) of every regular file, in the archive's order; `read()` gives the bytes
    and must be called before the next file is asked for."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)],
                          stdout=subprocess.PIPE) as unpack:
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile():
                    yield (member.name.removeprefix("."), member.size,
                           lambda member=member: archive.extractfile(member).read())
        while unpack.stdout.read(1 << 20):  # what follows the archive's end mark
            pass
    if unpack.returncode != 0:
        raise RuntimeError(f"{deb}: dpkg-deb could not unpack it")


def license_names(copyright_text):
    """The short names in a machine-readable copyright file, or "see copyright file"."""
    names = sorted({line.split(":", 1)[1].strip() for line in copyright_text.splitlines()
                    if line.startswith("License:") and line.split(":", 1)[1].strip()})
    return names or ["see copyright file"]
