"""The corpus recipe (recipes/data) on a fixture made here: every rule, then the whole program."""

import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

RECIPE = pathlib.Path(__file__).resolve().parents[2] / "recipes" / "data"
sys.path.insert(0, str(RECIPE))

from corpus import dictionaries, markup, trivia  # noqa: E402
from corpus.documents import read_documents  # noqa: E402
from corpus.overlap import EvaluationQuestions  # noqa: E402
from corpus.prose import ProseCleaner, is_prose  # noqa: E402
from corpus.python_source import PythonCleaner, is_test  # noqa: E402

SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank every day. "


def function(name):
    lines = "\n".join(f"    total = add_numbers(total, values, {name}_{i})" for i in range(8))
    return f"def {name}(values):\n    total = 0\n{lines}\n    return total\n"


def write_rows(path, rows):
    with gzip.open(path, "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def write_zst(path, text):
    subprocess.run(["zstd", "-q", "-f", "-o", str(path)], input=text.encode(), check=True)


class PythonSource(unittest.TestCase):
    def test_copies_generated_files_and_data_are_left_out(self):
        cleaner = PythonCleaner()
        source = function("first") + "\n\n" + function("second")
        self.assertEqual(cleaner.clean(source.encode()), source.strip("\n"))
        self.assertIsNone(cleaner.clean(source.replace("\n", "\r\n").encode()))
        self.assertIsNone(cleaner.clean(b"# Automatically generated, do not edit\n" +
                                        function("third").encode()))
        table = "TABLE = [\n" + "    1234567, 2345678, 3456789, 4567890,\n" * 40 + "]\n"
        self.assertIsNone(cleaner.clean(table.encode()))
        self.assertIsNone(cleaner.clean(("x = '" + "abc " * 500 + "'\n").encode()))
        self.assertIsNone(cleaner.clean(b"\xff\xfe" + source.encode()))
        self.assertEqual(cleaner.skipped, {"copy": 1, "generated": 1, "data-like": 2,
                                           "encoding": 1})

    def test_repeated_blocks_are_cut_and_files_of_them_dropped(self):
        cleaner = PythonCleaner()
        cleaner.clean((function("shared") + "\n\n" + function("old")).encode())
        text = cleaner.clean((function("shared") + "\n\n" + function("new") + "\n\n" +
                              function("newer")).encode())
        self.assertNotIn("def shared", text)
        self.assertIn("def new(", text)
        self.assertIsNone(cleaner.clean((function("shared") + "\n\n" + function("old") + "\n\n" +
                                         "x = 1\n" * 10).encode()))

    def test_test_files_are_told_by_their_path(self):
        for path in ("/a/tests/x.py", "/a/test/x.py", "/a/test_x.py", "/a/x_test.py"):
            self.assertTrue(is_test(path), path)
        self.assertFalse(is_test("/a/testing.py"))


class Markup(unittest.TestCase):
    def test_html_loses_tags_and_navigation_and_keeps_preformatted_lines(self):
        page = ("<html><head><title>T</title><style>p{}</style></head><body><nav>Up</nav>"
                "<h1>A &amp; B<a class=\"headerlink\" href=\"#\">¶</a></h1>\n<p>One\n <b>two</b>."
                "<ul><li><p>first</p></li><li>second</ul><pre>if x:\n    <i>y</i> &lt; 1</pre>"
                "<table><tr><td>a</td><td>b</td></tr></table></body></html>")
        self.assertEqual(markup.html_to_text(page),
                         "A & B\n\nOne two.\n\n- first\n\n- second\n\nif x:\n    y < 1\n\na b")

    def test_manual_pages_and_pod(self):
        page = ('.TH X 1\n.\\" comment\n.SH NAME\nx \\- does\n.B all\n.BR y (3)\n.PP\n'
                '\\fIOther\\fP text\n.nf\n  a\n  b\n.fi\n')
        self.assertEqual(markup.manual_to_text(page),
                         "NAME\n\nx - does all y(3)\n\nOther text\n\n  a\n  b")
        pod = "=head1 NAME\n\nB<x> is C<$a E<lt> 1>\nand L<more|http://a>.\n\n  code B<x>\n\n=cut\n"
        self.assertEqual(markup.pod_to_text(pod),
                         "NAME\n\nx is $a < 1 and more.\n\n  code B<x>")

    def test_prose_is_kept_once_with_its_neighbours(self):
        self.assertTrue(is_prose(SENTENCE))
        self.assertFalse(is_prose("int f(void); int g(int a, int b); void *p = &x[3]; y += 1;"))
        document = "\n\n".join(["Next", "Up", "Heading", SENTENCE * 5, "x = f(1)", "y = 2;", "z()"])
        cleaner = ProseCleaner()
        self.assertEqual(cleaner.clean(document),
                         "\n\n".join(["Heading", SENTENCE * 5, "x = f(1)"]))
        self.assertIsNone(cleaner.clean(document))


class Dictionaries(unittest.TestCase):
    def test_entries_lose_marks_and_line_ends(self):
        text = ("Bath \\Bath\\ (b[.a]th), n.\n   1. A place to\n      wash {in water}.\n"
                "      [1913 Webster]\n\n   2. Another.\n").encode()
        index = f"bath\tA\t{'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'[len(text) // 64]}" \
                f"{'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'[len(text) % 64]}\n"
        found = list(dictionaries.entries(index.encode(), gzip.compress(text)))
        self.assertEqual(found, ["Bath, n.\n1. A place to wash in water.\n2. Another."])

    def test_fortunes_are_cut_at_percent_signs(self):
        self.assertEqual(list(dictionaries.fortunes(b"One.\n%\nTwo.\n\t-- A\n%\n")),
                         ["One.", "Two.\n\t-- A\n%"[:-2]])


class Overlap(unittest.TestCase):
    def test_a_whole_question_is_found_whatever_its_case_and_punctuation(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "triviaqa-validation.jsonl.gz"
            write_rows(path, [{"question": "Who wrote “Dracula”, in 1897?"}])
            overlap = EvaluationQuestions([path])
        self.assertEqual(overlap.find("Asked: WHO wrote\n  'Dracula' in 1897 ..."),
                         "triviaqa-validation")
        self.assertIsNone(overlap.find("Who wrote Dracula in 18970?"))
        self.assertIsNone(overlap.find("In 1897, who wrote Dracula?"))

    def test_questions_that_lean_on_choices_do_not_stand_alone(self):
        row = {"question": "Which of these is red?", "answer": "A rose"}
        self.assertFalse(trivia.stands_alone(row))
        self.assertTrue(trivia.stands_alone(row | {"question": "Which flower is red?"}))


class WholeProgram(unittest.TestCase):
    def build_package(self, folder, name, files):
        root = folder / f"root-{name}"
        files = files | {"DEBIAN/control": f"Package: {name}\nVersion: 1\nArchitecture: all\n"
                                           "Maintainer: A <a@example.org>\nDescription: x\n",
                         f"usr/share/doc/{name}/copyright": "License: Expat\n"}
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(root),
                        str(folder / "debs" / f"{name}_1_all.deb")], check=True,
                       stdout=subprocess.DEVNULL)

    def make_input(self, folder):
        for name in ("corpus", "eval", "debs"):
            (folder / name).mkdir()
        question = "Which river bank is it near?"
        for name in ("wikipedia-core-en", "openstax-textbooks", "classic-books", "world-factbook"):
            write_zst(folder / "corpus" / f"{name}.txt.zst",
                      f"{name}\n\nText.\n<|endoftext|>\nQuiz\n{question.upper()}\n<|endoftext|>\n")
        write_zst(folder / "corpus" / "open-trivia-qa.jsonl.zst", "".join(
            json.dumps({"question": q, "answer": "Yes"}) + "\n"
            for q in ("Is it?", "is it?", "Which of these is it?")))
        write_rows(folder / "eval" / "triviaqa-validation.jsonl.gz", [{"question": question}])
        rows = [{"question": "Where?", "answer": "Here"}, {"question": question, "answer": "X"}]
        write_rows(folder / "eval" / "triviaqa-train.jsonl.gz", rows)
        write_rows(folder / "eval" / "triviaqa-train-extra.jsonl.gz", rows[:1])
        for name in ("code", "stack"):
            self.build_package(folder, name, {
                f"usr/lib/python3/dist-packages/{name}/m{i}.py": function(f"{name}{i}")
                for i in range(20)})
        self.build_package(folder, "manual", {
            "usr/share/doc/manual/a.html": f"<h1>Use</h1><p>{SENTENCE * 6}</p>",
            "usr/share/doc/manual/skipped.html": f"<p>Other {SENTENCE * 6}</p>"})
        self.build_package(folder, "words", {"usr/share/games/fortunes/wise": "Be good.\n%\n"})
        (folder / "packages.toml").write_text(
            '[python]\npackages = "code"\nopenstack = "stack"\nopenstack_share = 0.25\n'
            'test_fraction = 0.5\n[technical-prose]\nfiles = ["*.html"]\nskip = ["*/skipped*"]\n'
            'packages = "manual"\n[dictionaries]\npackages = "words"\n')

    def run_program(self, folder, out, jobs):
        subprocess.run([sys.executable, str(RECIPE / "prepare.py"), "--corpus",
                        str(folder / "corpus"), "--eval", str(folder / "eval"), "--debs",
                        str(folder / "debs"), "--packages", str(folder / "packages.toml"),
                        "--jobs", str(jobs), str(folder / out)], check=True,
                       stderr=subprocess.PIPE)
        return {path.name: path.read_bytes() for path in sorted((folder / out).iterdir())}

    def test_every_source_is_made_and_the_result_is_the_same_each_time(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            self.make_input(folder)
            files = self.run_program(folder, "out", 2)
            self.assertEqual(files, self.run_program(folder, "again", 1))
            manifest = json.loads(files["manifest.json"])
            documents = {name: list(read_documents(folder / "out" / f"{name}.txt.zst"))
                         for name in manifest["sources"]}
        self.assertEqual(documents["wikipedia-core-en"], ["wikipedia-core-en\n\nText."])
        self.assertEqual(manifest["sources"]["wikipedia-core-en"]["dropped_for_evaluation"],
                         {"triviaqa-validation": 1})
        self.assertEqual(sorted("\n\n".join(documents["trivia"]).split("\n\n")),
                         ["Question: Is it?\nAnswer: Yes", "Question: Where?\nAnswer: Here"])
        self.assertEqual(manifest["sources"]["trivia"]["rows_dropped_for_evaluation"],
                         {"triviaqa-validation": 1})
        self.assertEqual(len(documents["technical-prose"]), 1)
        self.assertEqual(documents["dictionaries"], ["Be good."])
        own = sum("def code" in text for text in documents["python"])
        openstack = sum("def stack" in text for text in documents["python"])
        self.assertEqual(own, 20)
        self.assertTrue(0 < openstack <= 12, openstack)
        self.assertEqual(manifest["packages"]["code"], {"licenses": ["Expat"], "version": "1"})


if __name__ == "__main__":
    unittest.main()
