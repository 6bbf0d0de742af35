#!/usr/bin/env python3
"""The software bill of materials of built kvcast programs, as SPDX 2.3 JSON: kvcast itself with the hashes of its
files, every Debian package whose shared library they load, and those whose headers they were compiled from.

    scripts/sbom.py build/release/kvcast build/release/libkvcast.so > kvcast.spdx.json

Needs dpkg. Two runs on the same files give the same bytes (SOURCE_DATE_EPOCH, else the last commit, is the date).
"""

import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Header-only: nothing of them is loaded.
COMPILED_IN = ["libexpected-dev", "nlohmann-json3-dev", "libcli11-dev", "libeigen3-dev", "libboost1.81-dev"]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def owner(library):
    """The Debian package that has a file. With a merged /usr dpkg may know it by its name without /usr."""
    real = os.path.realpath(library)
    for name in (library, real, real.removeprefix("/usr")):
        found = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.splitlines()[0].rsplit(": ", 1)[0].split(",")[0]
    sys.exit(f"sbom: no package has {library}")


def loaded_packages(files):
    """Debian packages of the libraries that the dynamic linker would load."""
    libraries = {library for file in files for library in re.findall(r"=> (/\S+)", output("ldd", file))}
    return {owner(library) for library in libraries if not pathlib.Path(library).resolve().is_relative_to(ROOT)}


def package(name):
    version, source, home = output("dpkg-query", "-W", "-f", "${Version}\n${source:Package}\n${Homepage}", name).split("\n")
    identifier = re.sub(r"[^A-Za-z0-9.-]", "-", name)
    bare = name.split(":")[0]
    return {"SPDXID": f"SPDXRef-{identifier}", "name": bare, "versionInfo": version, "supplier": "Organization: Debian",
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION", "sourceInfo": f"Debian source package {source}",
            **({"homepage": home} if home else {}),
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                              "referenceLocator": f"pkg:deb/debian/{bare}@{version}?distro=debian-12"}]}


def main():
    files = sys.argv[1:]
    if not files or files[0].startswith("-"):
        sys.exit(__doc__)
    commit = output("git", "rev-parse", "HEAD")
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or output("git", "log", "-1", "--format=%ct"))
    created = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    version = re.search(r'KVCAST_VERSION "([^"]+)"', (ROOT / "include/kvcast/macros.h").read_text()).group(1)
    ours = {"SPDXID": "SPDXRef-kvcast", "name": "kvcast", "versionInfo": f"{version}+{commit[:12]}",
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": "Apache-2.0",
            "licenseDeclared": "Apache-2.0", "copyrightText": "NOASSERTION"}
    listed = [{"SPDXID": f"SPDXRef-file-{i}", "fileName": "./" + pathlib.Path(file).name,
               "licenseConcluded": "Apache-2.0", "copyrightText": "NOASSERTION",
               "checksums": [{"algorithm": kind, "checksumValue": hashlib.new(kind.lower(), pathlib.Path(file).read_bytes()).hexdigest()}
                             for kind in ("SHA1", "SHA256")]}
              for i, file in enumerate(files)]
    loaded = [package(name) for name in sorted(loaded_packages(files))]
    compiled = [package(name) for name in COMPILED_IN]
    relate = lambda a, kind, b: {"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b}
    relations = [relate("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-kvcast")]
    relations += [relate(one["SPDXID"], "GENERATED_FROM", "SPDXRef-kvcast") for one in listed]
    relations += [relate("SPDXRef-kvcast", "DYNAMIC_LINK", one["SPDXID"]) for one in loaded]
    relations += [relate("SPDXRef-kvcast", "STATIC_LINK", one["SPDXID"]) for one in compiled]
    print(json.dumps({"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
                      "name": f"kvcast-{version}", "documentNamespace": f"https://spdx.org/spdxdocs/kvcast-{version}-{commit}",
                      "creationInfo": {"created": created, "creators": ["Tool: kvcast-sbom"]},
                      "packages": [ours, *loaded, *compiled], "files": listed, "relationships": relations}, indent=1))


if __name__ == "__main__":
    main()
