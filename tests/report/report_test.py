"""kvcast-report: what it reads, how it compares, what it writes. Runs with Debian's python3-matplotlib, -pandas and -jinja2."""

import copy
import html.parser
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

import samples
from kvcast_report import ResultError, figures, read_results
from kvcast_report.compare import compare, frontier, quality_at
from kvcast_report.questions import make_questions


class InDirectory(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def write(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def read(self, *files, name="file"):
        for i, file in enumerate(files):
            self.write(f"{name}/{i}.json", file)
        return read_results(self.root / name)


class ReadingTest(InDirectory):
    def error_of(self, content, name="bad.json"):
        path = self.write(name, content)
        with self.assertRaises(ResultError) as caught:
            read_results(path)
        message = str(caught.exception)
        self.assertTrue(message.startswith(str(path)), message)
        self.assertNotIn("\n", message)
        return message

    def test_errors_name_file_and_key(self):
        good = samples.family()[0]
        for change, expected in [(lambda f: f.update(format=2), '"format"'),
                                 (lambda f: f["results"][1].update(task=5), 'entry 1: key "task"'),
                                 (lambda f: f["results"][1].update(n="x"), 'key "n"'),
                                 (lambda f: f["results"][0].pop("exact_match"), "no metric"),
                                 (lambda f: f["results"][0]["exact_match"].update(low="x"), '"low"'),
                                 (lambda f: f["results"][0]["total_ms"].update(x=1), '"x"'),
                                 (lambda f: f["model"].update(base=3), 'key "base"')]:
            bad = copy.deepcopy(good)
            change(bad)
            self.assertIn(expected, self.error_of(bad))
        self.assertIn("not JSON", self.error_of("{"))
        cut = samples.healing_file()
        cut["strategies"][1]["kl"].pop()
        self.assertIn('key "strategies" entry 1: key "kl": expected a list of 4 numbers', self.error_of(cut))
        bad = samples.analysis_file()
        bad["layers"][1]["keys"]["l1_by_position"] = [1]
        self.assertIn('entry 1: key "keys": key "l1_by_position": expected a list of 3', self.error_of(bad))

    def test_a_named_file_must_be_a_result_others_give_a_note(self):
        self.assertIn("neither", self.error_of({"some": "file"}))
        self.error_of({"results": [{"ttft_ms": {}, "engine": "other"}]})
        self.write("d/other.json", {"some": "file"})
        self.write("d/model/config.json", {})
        results = read_results(self.root / "d")
        self.assertFalse(results)
        self.assertEqual(len(results.notes), 1)
        self.assertIn("other.json", results.notes[0])
        with self.assertRaises(ResultError):
            read_results(self.root / "missing.json")

    def test_the_repositorys_own_results_are_read(self):
        results = read_results(Path(__file__).resolve().parents[2] / "results")
        self.assertTrue(results)
        self.assertIn("llama-cpp-gguf.json", " ".join(results.notes))

    def test_nulls_are_gaps(self):
        entry = samples.eval_entry("nll", "exact", "nll", 2.0, 1, 10)
        entry["nll"]["low"] = entry["nll"]["high"] = entry["ttft_ms"]["median"] = None
        results = self.read(samples.eval_file("x", 10, 0, [entry]))
        self.assertTrue(math.isnan(results.evals.low[0]))
        self.assertTrue(math.isnan(results.evals.ttft_ms[0]))

    def test_several_runs_of_bench_in_one_file(self):
        results = self.read({"runs": [samples.bench_file(), samples.bench_file()]})
        self.assertEqual(len(results.bench), 8)
        self.assertEqual(results.bench.run.nunique(), 2)
        self.assertEqual(results.bench.step_ms[0], 50)

    def test_training_logs(self):
        lines = [json.dumps(samples.log_line(step, loss=4.0 - step)) for step in (1, 2, 3, 2)]
        results = read_results(self.write("run.jsonl", "\n".join(lines) + '\n{"step": 5'))
        self.assertEqual(list(results.training.step), [1, 2])
        self.assertIn("resumed after step 1", results.notes[0])
        self.assertIn("cut short", results.notes[1])
        self.assertIn("line 2", self.error_of(lines[0] + '\n{"step": 5}\n', "a.jsonl"))
        self.error_of("", "b.jsonl")
        gap = read_results(self.write("c.jsonl", json.dumps(samples.log_line(1, loss=None)) + "\n"))
        self.assertTrue(math.isnan(gap.training.loss[0]))


class ComparingTest(InDirectory):
    def family(self, *arguments, **more):
        return compare(self.read(*samples.family(*arguments, **more)))

    def test_the_exact_base_comes_first_and_once(self):
        (comparison,) = self.family()
        entries = comparison.entries
        self.assertEqual(list(entries.method).count("exact"), 1)
        self.assertEqual(entries.method[0], "exact")
        self.assertEqual(list(zip(entries.method, entries.name))[1:4],
                         [("KV prediction (ours)", "KVP-C-10M"), ("KV prediction (paper)", "KVP-C-10M"), ("alone", "10M")])
        self.assertEqual(comparison.exact, 20)

    def test_costs_are_over_exact_in_the_same_file(self):
        (comparison,) = self.family()
        rows = comparison.entries.set_index("method")
        self.assertAlmostEqual(rows.ttft["KV prediction (ours)"], 4)
        self.assertAlmostEqual(rows.ttft["KV prediction (paper)"], 4)
        self.assertAlmostEqual(rows.flops["KV prediction (ours)"], 6.6)
        self.assertAlmostEqual(rows.flops["alone"], 6)  # by parameters: its own count is over its own exact prefill
        self.assertAlmostEqual(rows.ttft["alone"], 5)

    def test_tasks_lengths_settings_bases_and_folders_stay_apart(self):
        for folder, files in {"a": samples.family(), "b": samples.family("passkey", length=128),
                              "c": samples.family("passkey", length=512), "d": samples.family(shots=5),
                              "e": [samples.eval_file("x", 80_000_000, 10_000_000, samples.family()[0]["results"])]}.items():
            for i, file in enumerate(files):
                self.write(f"all/{folder}/{i}.json", file)
        self.assertEqual(len(compare(read_results(self.root / "all"))), 5)

    def test_likelihoods_are_differences_and_lower_is_better(self):
        (comparison,) = self.family("nll", "nll")
        self.assertEqual(comparison.beside_exact(0.25), "+0.050")
        self.assertTrue(comparison.lower_is_better)
        self.assertEqual(comparison.scale, 1)

    def test_frontier_holds_its_definition_on_random_points(self):
        random.seed(1)
        for _ in range(200):
            points = [(random.randint(1, 6), random.randint(0, 5)) for _ in range(random.randint(0, 9))]
            points.append((math.nan, 9))
            kept = frontier(*zip(*points))
            for i, (x, y) in enumerate(points[:-1]):
                beaten = any((a >= x and b >= y) and (a > x or b > y) for a, b in points[:-1])
                self.assertEqual(i in kept, not beaten, (points, i))
            self.assertNotIn(len(points) - 1, kept)
            self.assertEqual([points[i][0] for i in kept], sorted(points[i][0] for i in kept))

    def test_equal_cost_lies_on_the_line_between_frontier_points(self):
        reductions, goodness = [1, 4, 2], [10, 2, 1]  # costs 1, 1/4; the third is beaten
        self.assertAlmostEqual(quality_at(reductions, goodness, 1 / 0.625), 6)
        self.assertEqual(quality_at(reductions, goodness, 4), 2)
        self.assertEqual(quality_at(reductions, goodness, 0.5), 10)
        self.assertTrue(math.isnan(quality_at(reductions, goodness, 5)))


class _Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[key] for key in ("src", "href") if key in attrs]
        self.open += [] if tag in ("meta", "img", "input") else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


class PageTest(InDirectory):
    def fill(self):
        for task, metric in (("triviaqa", "exact_match"), ("nll", "nll"), ("sciq", "acc_norm"), ("piqa", "acc_norm")):
            for i, file in enumerate(samples.family(task, metric)):
                self.write(f"in/{task}-{i}.json", file)
        self.write("in/bench.json", samples.bench_file())
        self.write("in/analysis.json", samples.analysis_file())
        self.write("in/healing.json", samples.healing_file())
        self.write("in/heldout.json", samples.heldout_file())
        self.write("in/other.json", {"some": "<file>"})
        self.write("in/run.jsonl", "".join(json.dumps(samples.log_line(s, base=3 - s / 100, keys=1.0)) + "\n" for s in range(1, 60)))
        return self.root / "in"

    def run_report(self, *arguments):
        return subprocess.run([sys.executable, "-m", "kvcast_report", *map(str, arguments)], capture_output=True, text=True,
                              env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False)

    def test_one_entry_for_each_question(self):
        questions = make_questions(read_results(self.fill()))
        self.assertEqual(len(questions), 7)
        healing = next(q for q in questions if "heal" in q.title).views[0].tables[0].rows
        self.assertEqual(list(healing["exact after"]), ["–", "2 tokens"])
        quality = next(q for q in questions if "quality" in q.title)
        self.assertEqual(quality.filters["task"][0], "all tasks")
        self.assertEqual(len(quality.filters["task"]), 5)
        overview = quality.views[0].tables[0].rows.set_index(["method", "model"])
        mean = overview["mean of multiple choice"]
        self.assertEqual(mean["exact", "exact"], "20.0")
        choice = next(q for q in questions if "same cost" in q.title).views[0]
        self.assertFalse(any("wrong-cache" in str(row) for row in choice.tables[0].rows.to_dict("records")))
        equal = choice.tables[0].rows.set_index("point")
        self.assertEqual(equal.loc["KVP-C-10M, KV prediction (ours)", "KV prediction (ours)"], "·")
        self.assertEqual(equal.loc["KVP-C-10M, KV prediction (ours)", "LazyLLM"], "–")  # never so cheap

    def test_the_page_is_whole_and_asks_for_nothing(self):
        done = self.run_report(self.fill(), "--out", self.root / "out")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.strip(), str(self.root / "out/index.html"))
        self.assertIn("other.json", done.stderr)
        text = (self.root / "out/index.html").read_text()
        page = _Page(text)
        self.assertEqual(page.open, [])
        self.assertEqual(len(page.ids), len(set(page.ids)))
        self.assertIn("&lt;tiny&gt;", text)
        for link in page.links:
            self.assertTrue(link[1:] in page.ids if link.startswith("#") else (self.root / "out" / link).is_file(), link)
        self.assertEqual(text.count("<section id="), 7)

    def test_the_same_data_give_the_same_svg(self):
        results = self.read(samples.analysis_file(), *samples.family())
        (comparison,) = compare(results)
        for draw in (lambda: figures.cache_heat_map(results.analyses[0]), lambda: figures.pareto(comparison)):
            files = [self.root / f"{i}.svg" for i in range(2)]
            with figures.style():
                for file in files:
                    figures.save(draw(), file)
            xml.etree.ElementTree.parse(files[0])
            self.assertEqual(files[0].read_bytes(), files[1].read_bytes())

    def test_wrong_input_is_one_line_and_writes_nothing(self):
        self.write("bad.json", {"results": [{"task": 5}]})
        (self.root / "empty").mkdir()
        for name in ("bad.json", "missing.json", "empty"):
            done = self.run_report(self.root / name, "--out", self.root / "out")
            self.assertEqual((done.returncode, done.stdout), (1, ""), name)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn(name, done.stderr)
            self.assertFalse((self.root / "out").exists())
        self.assertEqual(self.run_report("x").returncode, 2)


if __name__ == "__main__":
    unittest.main()
