#!/usr/bin/env python3
"""Changes one comparison, bound, constant, operator, condition or call of the sources at a time and asks the tests whether
they notice. What they do not notice is a survivor: a test that is missing, or a change that makes no difference.

    cmake --preset release
    scripts/mutate.py make build/release [--count 100] [--seed 1] [--folder src/io ...] [--only FILE:LINE ...]
    scripts/mutate.py run build/release [--part K/N] [--minutes M] [--json FILE]
    scripts/mutate.py merge FILE...

`make` builds the tests and compiles each mutant as a small library of its own, build/release/mutants/K.so. The program and
the tests are linked once more, into the same folder, against the library's objects as a shared library; a mutant that is
preloaded takes the place of the file that it was made of. So neither the sources nor the build are changed, a mutant costs
one compilation, and any number of `run`s goes on beside one another: part K of N (from 1) tries every Nth of the same
shuffled list. They need no compiler: only the tree (tests/, models/, scripts/) and build/release/mutants at their paths,
with mutants/lib, the system's libraries, in LD_LIBRARY_PATH where they are not installed. `merge` sums the parts up and
lists the survivors.

Killed: a test program fails, ends by a signal or takes longer than a minute and five times what it took before
(--patience). The same seed gives the same mutants of the same sources. Changes that do not compile, or compile to the
same code, do not count.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import re
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Programs whose tests are about a folder, the quickest first. Kernels' tests take long and are about no such folder.
PROGRAMS = {
    "src/io": ["unit", "malformed"],
    "src/server": ["server"],
    "src/prefill": ["unit", "parity", "server"],
    "src/runtime": ["unit", "server", "parity", "malformed"],
}
MEMORY = 12 << 30  # bytes of address space of a test program: a mutant may ask for anything
FILTER = "-*Kernel*:*Isa*:*PackedMatrix*:*WeightBlocks*:*MatMul*:*Matmul*"
SWAPS = [(r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" == ", " != "), (r" != ", " == "),
         (r" && ", " || "), (r" \|\| ", " && "), (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " + "), (r" / ", " * "),
         (r" \+= ", " -= "), (r" -= ", " += "), (r"\+\+", "--"), (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
         (r"std::min\b", "std::max"), (r"std::max\b", "std::min"), (r"\(!", "("), (r"\bif \((?!constexpr)", "if (!"),
         (r"(?<![\w.\"'])(\d+)(?![\w.\"'])", lambda m: str(int(m[1]) + 1)),
         (r"^(\s+)(?!return|KVCAST_TRY|const|auto|std|int|size_t|float|bool|using|static|break|continue)(\w[\w.>-]*\([^;]*\);)$", r"\1;")]


@dataclasses.dataclass
class Mutant:
    file: str
    line: int
    before: str
    after: str

    def __str__(self):
        return f"{self.file}:{self.line}: {self.before.strip()}  ->  {self.after.strip()}"

    def programs(self):
        return next(tests for folder, tests in PROGRAMS.items() if self.file.startswith(folder + "/"))


def mutants_of(path):
    """Every change of one place. Lines of comments, messages and declarations have none."""
    found = []
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        code = line.split("//")[0].rstrip()
        if not code.strip() or code.lstrip().startswith(("#", "*", "using", "namespace", "template", "static_assert")) or '"' in code:
            continue
        for pattern, replacement in SWAPS:
            for match in re.finditer(pattern, code):
                if pattern == r" \* " and re.search(r"[(,]\s*\w*$", code[:match.start()]) is None and "=" not in code[:match.start()]:
                    continue  # a pointer's declaration
                if pattern.startswith(r"\bif"):
                    after = negated(code, match.start())
                else:
                    new = replacement(match) if callable(replacement) else match.expand(replacement)
                    after = code[:match.start()] + new + code[match.end():]
                if after and after != code and after.count("(") == after.count(")"):
                    found.append(Mutant(path, number, code, after))
    return found


def negated(code, at):
    """`if (condition)` with the condition turned round, if it is on one line."""
    depth, begin = 0, code.index("(", at)
    for end in range(begin, len(code)):
        depth += {"(": 1, ")": -1}.get(code[end], 0)
        if depth == 0:
            inside = code[begin + 1:end]
            return None if ";" in inside else f"{code[:begin]}(!({inside})){code[end + 1:]}"
    return None


def chosen_mutants(arguments):
    files = sorted(str(path.relative_to(ROOT)) for folder in arguments.folder for path in (ROOT / folder).glob("**/*.cpp"))
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    if arguments.only:
        return [mutant for mutant in mutants if f"{mutant.file}:{mutant.line}" in arguments.only]
    random.Random(arguments.seed).shuffle(mutants)
    return mutants


class Maker:
    """Compiles mutants and links what they are preloaded into."""

    def __init__(self, build):
        self.build = build
        self.programs = sorted({program for tests in PROGRAMS.values() for program in tests})
        self.targets = ["kvcast_program"] + [f"kvcast_{program}_tests" for program in self.programs]
        self.commands = {}  # of each source file
        self.links = {}  # of each program
        self.plain = {}  # objects of what is not mutated
        self.lock = threading.Lock()
        self.pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())  # of the objects above

    def shell(self, command):
        return subprocess.run(command, cwd=self.build, capture_output=True, text=True)

    def build_tests(self):
        if subprocess.run(["cmake", "--build", str(self.build), "-j", str(os.cpu_count()), "--target", *self.targets]).returncode != 0:
            sys.exit("mutate: the tests do not build")

    def prepare(self):
        self.build_tests()
        for line in self.shell(["ninja", "-t", "commands", *self.targets]).stdout.splitlines():
            if match := re.search(r"&& (\S+/[cg]\+\+ .* -o (kvcast\w*) .*?) &&", line):
                self.links[match[2]] = shlex.split(match[1])
        for line in self.apart():
            if match := re.search(r" -c (\S+\.cpp)$", line):
                words = shlex.split(line)
                words = words[1:] if words[0].endswith("ccache") else words
                for option, values in (("-MD", 1), ("-MT", 2), ("-MF", 2), ("-o", 2), ("-c", 2)):
                    at = words.index(option)
                    del words[at:at + values]
                self.commands[os.path.relpath(match[1], ROOT)] = words
        archives = ["src/libkvcast_internal.a", "src/server/libkvcast_server.a"]
        shared = sorted({word for link in self.links.values() for word in link if word.endswith(".so") or ".so." in word})
        self.must([self.compiler(), "-shared", "-o", "mutants/libmutable.so", "-Wl,--whole-archive", *archives, "-Wl,--no-whole-archive", *shared])
        # As installed: the tests look for the program in their folder, the program for models below share.
        (self.folder / "bin").mkdir()
        (self.folder / "share/kvcast").mkdir(parents=True)
        (self.folder / "share/kvcast/models").symlink_to(ROOT / "models")
        paths, compiled = "tests/support/paths.cpp", "tests/CMakeFiles/kvcast_test_paths.dir/"
        words = [f'-DPATH_OF_BINARY="{self.folder}/bin"' if "PATH_OF_BINARY" in word else word for word in self.commands[paths]]
        self.must([*words, "-o", "mutants/paths.o", "-c", str(ROOT / paths)])
        for name, link in self.links.items():
            words = ["mutants/paths.o" if word.startswith(compiled) else word for word in link if word not in archives]
            words[words.index("-o") + 1] = f"mutants/bin/{name}"
            self.must([*words, "-Lmutants", "-Wl,-rpath,$ORIGIN/..", "-lmutable", *shared])

    def apart(self):
        """How each file is compiled by itself, where the build compiles several together too."""
        settings = [line for line in (self.build / "CMakeCache.txt").read_text().splitlines()
                    if re.match(r"(KVCAST_\w+|CMAKE_BUILD_TYPE|CMAKE_CXX_COMPILER|CMAKE_CXX_FLAGS):(?!INTERNAL)", line)]
        self.must(["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", "mutants/apart", *(f"-D{setting}" for setting in settings)])
        lines = self.shell(["ninja", "-C", "mutants/apart", "-t", "commands", *self.targets]).stdout.splitlines()
        shutil.rmtree(self.folder / "apart")
        return lines

    def compiler(self):
        return self.links["kvcast"][0]

    def must(self, command):
        done = self.shell(command)
        if done.returncode != 0:
            sys.exit(f"mutate: {shlex.join(command)}\n{done.stderr}")

    def compile(self, source, file, out):
        """The object's code, or None."""
        done = self.shell([*self.commands[file], "-w", "-I", str((ROOT / file).parent), "-o", str(out), "-c", str(source)])
        return out.read_bytes() if done.returncode == 0 else None

    @property
    def folder(self):
        return self.build / "mutants"

    def plain_code(self, file):
        """The code of an unchanged file, compiled once, where the other threads wait for it."""
        with self.lock:
            if file not in self.plain:
                self.plain[file] = self.pool.submit(self.code_of, file, (ROOT / file).read_text(), f"plain{len(self.plain)}")
        return self.plain[file]

    def code_of(self, file, text, name):
        """Compiles a text in the place of a file; the object stays as NAME/changed.o."""
        copy, out = self.folder / name / file, self.folder / name / "changed.o"
        copy.parent.mkdir(parents=True)
        copy.write_text(text)
        return self.compile(copy, file, out)

    def make(self, mutant, number):
        """Why there is no such mutant, or nothing: then it is mutants/NUMBER.so."""
        lines = (ROOT / mutant.file).read_text().splitlines(keepends=True)
        lines[mutant.line - 1] = mutant.after + "\n"
        code = self.code_of(mutant.file, "".join(lines), f"work{number}")
        if code is None:
            return "does not compile"
        if code == self.plain_code(mutant.file).result():
            return "is the same code"
        # Needs the library: whatever program a test starts inherits the mutant and has to find what it calls.
        library, changed = self.folder / f"{number}.so", self.folder / f"work{number}" / "changed.o"
        self.must([self.compiler(), "-shared", "-s", "-o", str(library), str(changed), "-Lmutants", "-lmutable", "-Wl,-rpath,$ORIGIN"])
        return ""

    def copy_libraries(self):
        """The system's, but for the C library's, for another machine."""
        (self.folder / "lib").mkdir()
        for line in self.shell(["ldd", "mutants/libmutable.so", *(f"mutants/bin/{name}" for name in self.links)]).stdout.splitlines():
            if (match := re.search(r"=> (/\S+)", line)) and not re.search(r"/(libc|libm|ld-.*|libmutable)\.so", match[1]):
                shutil.copy(match[1], self.folder / "lib")
        (self.folder / "paths.o").unlink()
        for left in [*self.folder.glob("plain*"), *self.folder.glob("work*")]:
            shutil.rmtree(left)


class Trials:
    def __init__(self, folder, patience):
        self.folder = folder
        self.patience = patience
        self.usual = {}  # seconds of each program

    def run(self, program, limit, preload=None):
        """Whether its tests pass within `limit` seconds, and what was wrong."""
        environment = dict(os.environ, **({"LD_PRELOAD": str(preload)} if preload else {}))
        command = [str(self.folder / "bin" / f"kvcast_{program}_tests"), "--gtest_brief=1", "--gtest_fail_fast", f"--gtest_filter={FILTER}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder, env=environment,
                                   start_new_session=True,
                                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)))
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # with the programs that it started
            process.communicate()
            return False, "takes too long"
        failed = re.findall(rb"\[  FAILED  \] ([\w./]+)", output)
        return process.returncode == 0, failed[0].decode() if failed else f"status {process.returncode}"

    def trial(self, mutant, number):
        for program in mutant.programs():
            limit = max(60.0, self.patience * self.usual[program])
            passed, why = self.run(program, limit, self.folder / f"{number}.so")
            if not passed:
                return "killed", f"{program}: {why}"
        return "survived", ""


def make(arguments):
    maker = Maker(arguments.build.resolve())
    shutil.rmtree(maker.folder, ignore_errors=True)
    maker.folder.mkdir()
    maker.prepare()
    trials = Trials(maker.folder, 1)
    for program in maker.programs:
        begin = time.monotonic()
        passed, why = trials.run(program, 3600)
        if not passed:
            sys.exit(f"mutate: {program} fails before anything is changed: {why}")
        trials.usual[program] = time.monotonic() - begin
    print("; ".join(f"{program} {seconds:.0f} s" for program, seconds in trials.usual.items()), flush=True)
    refused, begin = collections.Counter(), time.monotonic()
    candidates = iter(enumerate(chosen_mutants(arguments)))
    made = {}  # by their places in the list, so that the same ones come first whoever is sooner

    def work():
        while True:
            with maker.lock:
                number, mutant = next(candidates, (0, None))
                if mutant is None or len(made) >= arguments.count or time.monotonic() - begin > 60 * arguments.minutes:
                    return
            why = maker.make(mutant, number)
            with maker.lock:
                if why:
                    refused[why] += 1
                else:
                    made[number] = mutant

    with concurrent.futures.ThreadPoolExecutor() as workers:
        for worker in [workers.submit(work) for _ in range(os.cpu_count())]:
            worker.result()
    maker.copy_libraries()
    listed = {"usual_seconds": trials.usual,
              "mutants": [{"number": number, **dataclasses.asdict(mutant)} for number, mutant in sorted(made.items())]}
    (maker.folder / "mutants.json").write_text(json.dumps(listed, indent=1) + "\n")
    print(f"{len(made)} mutants" + "".join(f", {count} more: {why}" for why, count in refused.items()))


def run(arguments):
    folder = arguments.build.resolve() / "mutants"
    listed = json.loads((folder / "mutants.json").read_text())
    trials = Trials(folder, arguments.patience)
    trials.usual = listed["usual_seconds"]
    part, parts = (int(number) for number in arguments.part.split("/"))
    results, begin = [], time.monotonic()
    for values in listed["mutants"][part - 1::parts]:
        if time.monotonic() - begin > 60 * arguments.minutes:
            break
        number = values["number"]
        mutant = Mutant(**{field.name: values[field.name] for field in dataclasses.fields(Mutant)})
        start = time.monotonic()
        outcome, why = trials.trial(mutant, number)
        results.append({**values, "outcome": outcome, "by": why, "seconds": round(time.monotonic() - start, 1)})
        print(f"{number:4} {outcome:9}{mutant}  {why}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def table(results):
    """Killed and survived in each folder."""
    lines = [f"{'':14}{'mutants':>8}{'killed':>8}{'survived':>10}{'score':>7}"]
    folders = sorted({"/".join(result["file"].split("/")[:2]) for result in results})
    for folder in [*folders, ""]:
        of_folder = [result for result in results if result["file"].startswith(folder)]
        killed = sum(result["outcome"] == "killed" for result in of_folder)
        score = killed / max(1, len(of_folder))
        lines.append(f"{folder or 'all':14}{len(of_folder):8}{killed:8}{len(of_folder) - killed:10}{score:7.0%}")
    return "\n".join(lines)


def merge(arguments):
    results = {result["number"]: result for file in arguments.files for result in json.loads(file.read_text())}
    print(table(list(results.values())))
    for number, result in sorted(results.items(), key=lambda item: (item[1]["file"], item[1]["line"])):
        if result["outcome"] == "survived":
            values = {field.name: result[field.name] for field in dataclasses.fields(Mutant)}
            print(f"{number:4} survived {Mutant(**values)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make", help="build, and compile mutants")
    making.add_argument("build", type=pathlib.Path)
    making.add_argument("--count", type=int, default=100)
    making.add_argument("--seed", type=int, default=1)
    making.add_argument("--folder", nargs="+", default=list(PROGRAMS))
    making.add_argument("--only", nargs="+", default=[], metavar="FILE:LINE", help="all mutants of these lines instead of a sample")
    making.add_argument("--minutes", type=float, default=1e9, help="make no more after this time")
    making.set_defaults(command=make)
    running = commands.add_parser("run", help="try mutants that were made")
    running.add_argument("build", type=pathlib.Path)
    running.add_argument("--part", default="1/1", metavar="K/N")
    running.add_argument("--minutes", type=float, default=1e9, help="begin no trial after this time")
    running.add_argument("--patience", type=float, default=5, help="times what a program usually takes")
    running.add_argument("--json", type=pathlib.Path, help="where results are written, after each trial")
    running.set_defaults(command=run)
    merging = commands.add_parser("merge", help="results of several parts as one table")
    merging.add_argument("files", nargs="+", type=pathlib.Path)
    merging.set_defaults(command=merge)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
