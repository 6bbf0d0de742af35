#!/usr/bin/env python3
"""Changes one comparison, bound, constant, operator, condition or call of the sources at a time, builds, and asks the tests
whether they notice. What they do not notice is a survivor: a test that is missing, or a change that makes no difference.

    scripts/mutate.py BUILD_FOLDER [--count 60] [--seed 1] [--folder src/io ...] [--only FILE:LINE ...] [--json FILE]

The tree has to be committed and built in BUILD_FOLDER (tests included); it is changed in place and put back. Every file is
as likely as it has places to change, the same seed gives the same mutants of the same sources. Killed: a test program
fails, ends by a signal or takes longer than five times what it took before. Mutants that do not compile do not count.
"""

import argparse
import dataclasses
import json
import pathlib
import random
import re
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Programs whose tests are about a folder, the likeliest first. Kernels' tests take long and are about no such folder.
PROGRAMS = {
    "src/io": ["unit", "malformed"],
    "src/server": ["server"],
    "src/prefill": ["parity", "unit", "server"],
    "src/runtime": ["server", "unit", "parity", "malformed"],
}
MEMORY = 12 << 30  # bytes of address space of a test program: a mutant may ask for anything
FILTER = "--gtest_filter=-*Kernel*:*Isa*:*PackedMatrix*:*WeightBlocks*:*MatMul*:*Matmul*"
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
                after = code[:match.start()] + match.expand(replacement) if isinstance(replacement, str) else code[:match.start()] + replacement(match)
                if pattern.startswith(r"\bif"):
                    after = negated(code, match.start())
                else:
                    after += code[match.end():]
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


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


class Trials:
    def __init__(self, build):
        self.build = build
        self.usual = {}  # seconds of each program

    def run(self, program, limit):
        """Whether its tests pass within `limit` seconds."""
        begin = time.monotonic()
        try:
            done = subprocess.run([str(self.build / f"kvcast_{program}_tests"), "--gtest_brief=1", "--gtest_fail_fast", FILTER],
                                  capture_output=True, timeout=limit, cwd=self.build, preexec_fn=limit_memory)
        except subprocess.TimeoutExpired:
            return False, "takes too long"
        self.usual.setdefault(program, time.monotonic() - begin)
        failed = re.findall(rb"\[  FAILED  \] ([\w./]+)", done.stdout)
        return done.returncode == 0, failed[0].decode() if failed else f"status {done.returncode}"

    def make(self, programs):
        targets = [f"kvcast_{program}_tests" for program in programs]
        return subprocess.run(["cmake", "--build", str(self.build), "-j", "1", "--target", *targets], capture_output=True).returncode == 0

    def trial(self, mutant):
        path = ROOT / mutant.file
        original = path.read_text()
        lines = original.splitlines(keepends=True)
        lines[mutant.line - 1] = mutant.after + "\n"
        programs = next(tests for folder, tests in PROGRAMS.items() if mutant.file.startswith(folder + "/"))
        try:
            path.write_text("".join(lines))
            for program in programs:
                if not self.make([program]):
                    return "does not compile", ""
                passed, why = self.run(program, max(20.0, 5 * self.usual[program]))
                if not passed:
                    return "killed", f"{program}: {why}"
            return "survived", ""
        finally:
            path.write_text(original)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", nargs="+", default=list(PROGRAMS))
    parser.add_argument("--only", nargs="+", default=[], metavar="FILE:LINE", help="all mutants of these lines instead of a sample")
    parser.add_argument("--json", type=pathlib.Path, help="where results are written, after each trial")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no trial after this time")
    arguments = parser.parse_args()
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src"], cwd=ROOT).returncode != 0:
        sys.exit("mutate: src differs from what is committed: it would be hard to tell what is a mutant's")
    files = sorted(str(path.relative_to(ROOT)) for folder in arguments.folder for path in (ROOT / folder).glob("**/*.cpp"))
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    if arguments.only:
        mutants = [mutant for mutant in mutants if f"{mutant.file}:{mutant.line}" in arguments.only]
    else:
        random.Random(arguments.seed).shuffle(mutants)
    trials, results, begin = Trials(arguments.build.resolve()), [], time.monotonic()
    programs = sorted({program for folder in arguments.folder for program in PROGRAMS[folder]})
    if not trials.make(programs):
        sys.exit("mutate: the tests do not build")
    for program in programs:
        passed, why = trials.run(program, 3600)
        if not passed:
            sys.exit(f"mutate: {program} fails before anything is changed: {why}")
    print(f"{len(mutants)} mutants; " + ", ".join(f"{program} {seconds:.0f} s" for program, seconds in trials.usual.items()), flush=True)
    for mutant in mutants:
        counted = [result for result in results if result["outcome"] != "does not compile"]
        if not arguments.only and len(counted) >= arguments.count or time.monotonic() - begin > 60 * arguments.minutes:
            break
        outcome, why = trials.trial(mutant)
        results.append({**dataclasses.asdict(mutant), "outcome": outcome, "by": why})
        print(f"{outcome:17}{mutant}  {why}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    trials.make(programs)
    killed = sum(result["outcome"] == "killed" for result in results)
    survived = sum(result["outcome"] == "survived" for result in results)
    print(f"{killed + survived} mutants, {killed} killed, {survived} survived: {killed / max(1, killed + survived):.0%}")


if __name__ == "__main__":
    main()
