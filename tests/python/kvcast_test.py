"""The Python package on the shipped bundle. Needs numpy; finds the library through KVCAST_LIBRARY or in the wheel.

KVCAST_MODELS: the folder of the shipped bundle. KVCAST_README: the README whose Python is run.
"""

import ctypes
import gc
import importlib.util
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import numpy as np

import kvcast

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = Path(os.environ.get("KVCAST_MODELS", ROOT / "models")) / "kvcast-65m"
GOLDEN = ROOT / "tests" / "golden" / "openelm-tiny-kvp-c"
PROMPT = "The city of Rome was founded"


class Shipped(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = kvcast.Model.load(BUNDLE, threads=2)

    def answer(self, prompt=PROMPT, **options):
        """Under `exact`, unless asked otherwise: what follows a forecast may depend on when it is refined."""
        return self.model.session().generate(prompt, **({"max_tokens": 12, "prefill": "exact"} | options)).read()


class ModelTest(Shipped):
    def test_describes_itself(self):
        self.assertTrue(self.model.is_bundle and self.model.has_tokenizer)
        self.assertEqual(self.model.dtype, "int8")
        self.assertEqual(self.model.threads, 2)
        self.assertTrue(self.model.default_prefill.startswith("kv-prediction"))
        self.assertIn("bundle", repr(self.model))
        self.assertRegex(kvcast.__version__, r"^\d+\.\d+\.\d+")

    def test_a_path_is_no_model_yet(self):
        with self.assertRaisesRegex(TypeError, r"Model\.load\(path\)"):
            kvcast.Model("models/kvcast-65m")

    def test_tokens_are_int32_arrays_and_come_back_as_text(self):
        tokens = self.model.tokenize("Grüße, 世界")
        self.assertEqual((tokens.dtype, tokens.ndim), (np.int32, 1))
        self.assertEqual(self.model.detokenize(tokens[1:]).strip(), "Grüße, 世界")
        self.assertEqual(tokens.size, self.model.tokenize("Grüße, 世界", add_bos=False).size + 1)
        self.assertEqual(self.model.tokenize("", add_bos=False).size, 0)
        self.assertEqual(self.model.detokenize([]), "")
        for wrong in ([1.5], [[1]], {"a": 1}):
            with self.assertRaises(TypeError):
                self.model.detokenize(wrong)

    def test_errors_are_the_librarys_line(self):
        for call, expected in [(lambda: kvcast.Model.load("/no/such/model"), "/no/such/model"),
                               (lambda: kvcast.Model.load(BUNDLE, dtype="f7"), "f7"),
                               (lambda: self.answer(prefill="nothing"), "nothing"),
                               (lambda: self.answer(temperature=-1), "temperature"),
                               (lambda: self.answer(prompt=[10**6]), "1000000"),
                               (lambda: self.model.generate([[10**6]]), "prompt 0"),
                               (lambda: self.model.score([[1]], [[]]), "prompt 0")]:
            with self.assertRaises(kvcast.KvcastError) as caught:
                call()
            self.assertIn(expected, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))
        with self.assertRaises(ValueError):
            self.answer(max_tokens=0)

    def test_numbers_that_c_has_no_room_for_are_errors(self):
        for call in (lambda: self.model.detokenize([2**32 + 5]), lambda: self.answer(prompt=[1, -2**31 - 1]),
                     lambda: self.answer(max_tokens=2**64 + 1), lambda: self.answer(top_k=2**64), lambda: self.answer(seed=-1),
                     lambda: self.answer(stop="a\0b"), lambda: self.answer(prefill="exact\0")):
            with self.assertRaises(ValueError):
                call()

    def test_any_arguments_are_refused_or_answered(self):
        model, draw = kvcast.Model.load(GOLDEN, threads=1), random.Random(7)
        odd = [None, True, "", "exact", "a\0", b"a", 0, 1, -1, 3, 2**31, 2**63, 2**70, 0.5, float("nan"), float("inf"), [], [1], [95],
               [96], [-1], [1.5], [[1]], {}, {"a": 1}, np.array([3, 4], np.uint8), np.array([2**40]), object(), (), "\ud800"]
        names = ["prefill", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop",
                 "ignore_end_of_text", "drafts", "suffix"]
        answered = 0
        for _ in range(2000):
            options = {name: draw.choice(odd) for name in draw.sample(names, draw.randrange(3))}
            prompt = draw.choice([draw.choice(odd), [1, 2, 3]])
            call = draw.choice([lambda: model.session().generate(prompt, **options).read(),
                                lambda: model.generate([prompt], **options), lambda: model.detokenize(prompt),
                                lambda: model.score([prompt], [draw.choice(odd)]), lambda: model.tokenize(prompt)])
            try:
                call()
                answered += 1
            except (kvcast.KvcastError, TypeError, ValueError, OverflowError, AttributeError, ctypes.ArgumentError) as error:
                self.assertTrue(str(error))
        self.assertGreater(answered, 50)

    def test_a_model_without_tokenizer_takes_and_gives_token_ids(self):
        model = kvcast.Model.load(GOLDEN)
        self.assertFalse(model.has_tokenizer)
        answer = model.session().generate([1, 5, 7], max_tokens=3, ignore_end_of_text=True).read()
        self.assertEqual((answer.tokens.size, answer.text), (3, ""))
        with self.assertRaises(kvcast.KvcastError):
            model.tokenize("text")


class SessionTest(Shipped):
    def test_pieces_make_the_text_and_times_add_up(self):
        answer = self.model.session().generate(PROMPT, max_tokens=12)
        pieces = list(answer)
        self.assertGreater(len(pieces), 3)
        self.assertEqual("".join(pieces), answer.text)
        self.assertEqual(answer.tokens.size, 12)
        self.assertEqual(answer.finish_reason, "max-tokens")
        times = answer.timings
        self.assertEqual(times.decode_tokens, 11)
        self.assertEqual(times.prompt_tokens, self.model.tokenize(PROMPT).size)
        self.assertGreater(times.predicted_tokens, 0)
        parts = times.tokenize_ms + times.auxiliary_ms + times.predictor_ms + times.base_ms
        self.assertLess(0, parts)
        self.assertLess(parts, times.ttft_ms + 1)
        self.assertGreater(times.decode_tokens_per_s, 0)

    def test_text_and_token_ids_are_the_same_prompt(self):
        self.assertEqual(self.answer().text, self.answer(self.model.tokenize(PROMPT)).text)
        self.assertEqual(self.answer().text, self.answer(self.model.tokenize(PROMPT).tolist()).text)

    def test_options_reach_the_sampler(self):
        drawn = [self.answer(temperature=1.5, seed=seed).text for seed in (1, 1, 2)]
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], drawn[2])
        self.assertEqual(self.answer(temperature=1.5, top_k=1).text, self.answer().text)
        self.assertNotEqual(self.answer(prefill="random:0.5").text, self.answer(prefill="exact").text)
        whole = self.answer().text
        stop = whole.split()[3]
        stopped = self.answer(stop=stop)
        self.assertEqual((stopped.finish_reason, stopped.text), ("stop", whole[:whole.index(stop)]))

    def test_drafts_change_no_answer(self):
        prompt = "one two three, one two three, one two"
        expected = self.model.session().generate(prompt, prefill="exact", max_tokens=60, ignore_end_of_text=True, drafts="off").read()
        self.assertEqual(expected.timings.drafted_tokens, 0)
        for drafts in ("auto", 8, "3"):
            answer = self.model.session().generate(prompt, prefill="exact", max_tokens=60, ignore_end_of_text=True, drafts=drafts).read()
            self.assertEqual(answer.text, expected.text)
            self.assertEqual(list(answer.tokens), list(expected.tokens))
            self.assertLessEqual(answer.timings.accepted_tokens, answer.timings.drafted_tokens)
        for wrong in (0, 65, "on", -1):
            with self.assertRaisesRegex(kvcast.KvcastError, "drafts"):
                self.model.session().generate(prompt, drafts=wrong)
            with self.assertRaisesRegex(kvcast.KvcastError, "drafts"):
                self.model.generate([prompt], drafts=wrong)

    def test_a_gate_lets_a_forecast_pass_or_has_the_prompt_read_exactly(self):
        words = (ROOT / "examples/prompt.txt").read_text(encoding="utf-8").split(" ")
        forecast = "kv-prediction:tail=16"
        for count in range(270, 100, -10):  # after which words a forecast changes the answer depends on the processor's rounding
            prompt = " ".join(words[:count])
            exact, unjudged = (self.answer(prompt, prefill=prefill, max_tokens=6) for prefill in ("exact", forecast))
            if unjudged.text != exact.text:
                break
        self.assertNotEqual(unjudged.text, exact.text)
        refused, passed, judged = (self.answer(prompt, prefill=f"{forecast},gate={gate}", max_tokens=6) for gate in (1000, -1000, "auto"))
        self.assertEqual(refused.text, exact.text)
        self.assertEqual(refused.timings.predicted_tokens, 0)
        self.assertEqual(passed.text, unjudged.text)
        self.assertGreater(passed.timings.predicted_tokens, 0)
        is_refused = judged.timings.gate_score < judged.timings.gate_threshold
        # The least over the first tokens: a refusal comes as soon as one of them is below the threshold.
        self.assertGreaterEqual(judged.timings.gate_score, passed.timings.gate_score)
        if not is_refused:
            self.assertEqual(judged.timings.gate_score, passed.timings.gate_score)
        self.assertEqual(judged.text, (refused if is_refused else passed).text)

    def test_a_second_prompt_continues_the_conversation(self):
        session = self.model.session()
        first = session.generate(PROMPT, prefill="exact", max_tokens=4).read()
        again = session.generate(" And then", max_tokens=4).read()
        self.assertEqual(session.tokens.size, first.timings.prompt_tokens + again.timings.prompt_tokens + 8)
        self.assertGreater(session.cache_bytes, 0)
        session.reset()
        self.assertEqual(session.tokens.size, 0)
        self.assertEqual(session.generate(PROMPT, prefill="exact", max_tokens=4).read().text, first.text)

    def test_closing_ends_the_answer_and_the_conversation_goes_on(self):
        session = self.model.session()
        answer = session.generate(PROMPT, max_tokens=200, ignore_end_of_text=True)
        text = next(answer)
        answer.close()
        self.assertEqual(list(answer), [])
        self.assertEqual(answer.finish_reason, "cancelled")
        self.assertTrue(answer.text.startswith(text))
        self.assertLess(answer.tokens.size, 5)
        with session.generate(" and", max_tokens=200) as other:
            next(other)
        self.assertEqual(other.finish_reason, "cancelled")
        unfinished = session.generate(" and", max_tokens=200)
        next(unfinished)
        self.assertEqual(session.generate(" then", max_tokens=3).read().tokens.size, 3)
        self.assertEqual(unfinished.finish_reason, "cancelled")

    def test_cancelling_from_another_thread(self):
        answer = self.model.session().generate(PROMPT, max_tokens=1000, ignore_end_of_text=True)
        next(answer)
        threading.Timer(0.05, answer.cancel).start()
        done = answer.read()
        self.assertEqual(done.finish_reason, "cancelled")
        self.assertLess(done.tokens.size, 900)

    def test_chat_reads_only_what_is_new(self):
        session = self.model.session()
        messages = [{"role": "user", "content": "What is a river?"}]
        first = session.chat(messages, prefill="exact", max_tokens=8, stop="never").read()
        self.assertEqual(first.timings.prompt_tokens, self.model.chat_prompt(messages).size)
        other = self.model.session().generate(self.model.chat_prompt(messages), prefill="exact", max_tokens=8, stop=self.model.chat_stop).read()
        self.assertEqual(first.text, other.text)
        session.chat([{"role": "user", "content": "Another one."}], max_tokens=2).read()
        self.assertIsInstance(self.model.chat_stop, list)

    def test_ten_threads_give_what_one_gives(self):
        prompts = [f"{PROMPT} {i}" for i in range(10)]
        alone = [self.answer(prompt).text for prompt in prompts]
        together = [None] * len(prompts)

        def work(i):
            for _ in range(3):
                together[i] = self.answer(prompts[i]).text

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(together, alone)

    def test_the_interpreter_is_free_meanwhile(self):
        counted, done = 0, threading.Event()
        prompt = self.model.tokenize("word " * 800)
        thread = threading.Thread(target=lambda: (self.answer(prompt, prefill="exact", max_tokens=1), done.set()))
        thread.start()
        while not done.is_set():
            counted += 1
            done.wait(0.001)
        thread.join()
        self.assertGreater(counted, 3)

    def test_memory_does_not_grow(self):
        def peak():
            gc.collect()
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        rounds = int(os.environ.get("KVCAST_LEAK_ROUNDS", "300"))
        session = self.model.session()
        for i in range(rounds // 10):
            session.reset()
            list(session.generate(PROMPT, max_tokens=2))
        before = peak()
        for i in range(rounds):
            if i % 3 == 0:
                session = self.model.session()
            session.reset()
            next(session.generate(PROMPT, max_tokens=2))
            self.model.tokenize(PROMPT)
        self.assertLess(peak() - before, 8192)  # KiB


class BatchTest(Shipped):
    def test_answers_are_those_of_sessions(self):
        prompts = [PROMPT, "def add(a, b):", self.model.tokenize("Water is")]
        for prefill in ("exact", "auxiliary"):
            batch = self.model.generate(prompts, prefill=prefill, max_tokens=10)
            alone = [self.answer(prompt, prefill=prefill, max_tokens=10) for prompt in prompts]
            self.assertEqual([answer.text for answer in batch], [answer.text for answer in alone])
            self.assertEqual([answer.tokens.tolist() for answer in batch], [answer.tokens.tolist() for answer in alone])
        self.assertEqual(self.model.generate([]), [])

    def test_more_prompts_than_a_batch_holds_and_seeds_of_their_own(self):
        answers = self.model.generate(["The"] * 150, prefill="exact", max_tokens=3, temperature=2.0, seed=5)
        self.assertEqual(len(answers), 150)
        self.assertGreater(len({answer.text for answer in answers}), 50)
        self.assertEqual(answers[7].text, self.model.generate(["The"], prefill="exact", max_tokens=3, temperature=2.0, seed=12)[0].text)

    def test_scores_are_log_probabilities_of_what_greedy_choice_takes(self):
        answer = self.answer(prefill="exact", max_tokens=6)
        context = self.model.tokenize(PROMPT)
        good, bad = self.model.score([context, context], [answer.tokens, answer.tokens[::-1]], prefill="exact")
        self.assertTrue(good.most_probable.all())
        self.assertFalse(bad.most_probable.all())
        self.assertEqual(good.logprobs.shape, (6,))
        self.assertTrue((good.logprobs <= 0).all())
        self.assertGreater(good.total, bad.total)
        self.assertAlmostEqual(good.total, float(good.logprobs.sum()), places=3)
        text = self.model.score([PROMPT], [" by"], prefill="kv-prediction")[0]
        self.assertEqual(text.logprobs.size, self.model.tokenize(" by", add_bos=False).size)
        with self.assertRaises(ValueError):
            self.model.score([PROMPT], [])

    def test_probabilities_of_a_vocabulary_sum_to_one(self):
        model = kvcast.Model.load(GOLDEN)
        scores = model.score([[1, 5, 7]] * model.vocab_size, [[token] for token in range(model.vocab_size)], prefill="exact")
        self.assertAlmostEqual(sum(np.exp(score.total) for score in scores), 1, places=4)
        self.assertEqual(sum(bool(score.most_probable[0]) for score in scores), 1)

    def test_what_progress_raises_stops_the_batch(self):
        def stop(done):
            raise KeyboardInterrupt(done)

        with self.assertRaises(KeyboardInterrupt):
            self.model.generate([PROMPT] * 200, max_tokens=500, ignore_end_of_text=True, progress=stop)
        seen = []
        self.model.generate([PROMPT] * 3, max_tokens=100, ignore_end_of_text=True, progress=seen.append)
        self.assertEqual(seen, sorted(seen))


TOOLS = [{"type": "function", "function": {"name": "look", "description": "Looks.",
                                            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}},
         {"type": "function", "function": {"name": "go"}}]
TEMPLATE = """{% for t in tools or [] %}{{ t | tojson }}
{% endfor %}{% for m in messages %}{{ m.role }}{{ m.tool_call_id }}: {{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}
{% endfor %}assistant: """


class ToolsTest(unittest.TestCase):
    """The shipped base with a template that has a place for tools."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        for file in (BUNDLE / "base").resolve().iterdir():
            (Path(directory.name) / file.name).symlink_to(file)
        (Path(directory.name) / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
        cls.model = kvcast.Model.load(directory.name, threads=2)

    def prompt(self, *messages, **options):
        return self.model.detokenize(self.model.chat_prompt(messages, **options))

    def test_the_template_gets_tools_calls_and_results(self):
        user = {"role": "user", "content": "Look at the lamp."}
        self.assertIn('"description": "Looks."', self.prompt(user, tools=TOOLS))
        self.assertEqual(self.prompt(user, tools=TOOLS, tool_choice="none"), self.prompt(user))
        arguments = '{"at": "the lamp"}'
        for given in (arguments, json.loads(arguments)):
            call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": given}}
            text = self.prompt(user, {"role": "assistant", "content": None, "tool_calls": [call]},
                               {"role": "tool", "tool_call_id": "c1", "content": "It is lit."})
            self.assertIn('{"name": "look", "arguments": {"at": "the lamp"}}', text)
            self.assertIn("toolc1: It is lit.", text)

    def test_calls_are_read_from_what_the_model_wrote(self):
        text = 'Well.\n<tool_call>\n{"name": "look", "arguments": {"at": "Zürich"}}\n</tool_call>'
        message = self.model.chat_message(text, tools=TOOLS)
        self.assertEqual((message["role"], message["content"]), ("assistant", "Well."))
        self.assertEqual(message["tool_calls"][0]["function"], {"name": "look", "arguments": '{"at": "Zürich"}'})
        self.assertIn('"at": "Zürich"', self.prompt({"role": "user", "content": "Look."}, message, tools=TOOLS))
        self.assertEqual(self.model.chat_message(text), {"role": "assistant", "content": text})

    def test_a_chat_calls_the_tool_that_it_is_to_call(self):
        session, messages = self.model.session(), [{"role": "user", "content": "Look at the lamp."}]
        for choice in ("go", {"type": "function", "function": {"name": "go"}}):
            answer = session.chat(messages, tools=TOOLS, tool_choice=choice, max_tokens=3, temperature=0.0)
            self.assertEqual([(call.name, type(call.id)) for call in answer.tool_calls], [("go", str)])
            answer.read()
            (call,) = answer.tool_calls
            self.assertEqual(answer.message["tool_calls"][0]["id"], call.id, "the same each time one looks")
            self.assertNotIn("tool_calls", session.chat(messages, tools=TOOLS, max_tokens=3).read().text)
        plain = session.chat(messages, max_tokens=3)
        self.assertEqual(plain.read().text, plain.message["content"])
        self.assertEqual(plain.tool_calls, [])

    def test_what_cannot_be_is_refused(self):
        user = {"role": "user", "content": "Look."}
        for options, expected in [({"tools": TOOLS, "tool_choice": "fly"}, "fly"), ({"tools": ["look"]}, "tools[0]"),
                                  ({"tool_choice": "required"}, "no tools")]:
            with self.assertRaises(kvcast.KvcastError) as caught:
                self.model.session().chat([user], **options)
            self.assertIn(expected, str(caught.exception))
        with self.assertRaises(kvcast.KvcastError) as caught:
            kvcast.Model.load(BUNDLE).chat_prompt([user], tools=TOOLS)
        self.assertIn("no place", str(caught.exception))
        for wrong in ({"role": "user"}, {"role": "user", "content": None}, {"content": "Look."}, {"role": "user", "content": ["Look."]}):
            with self.assertRaises(TypeError):
                self.model.chat_prompt([wrong])

    def test_a_suffix_needs_a_model_that_fills_in(self):
        with self.assertRaises(kvcast.KvcastError) as caught:
            self.model.session().generate("a", suffix="b")
        self.assertIn("no tokens for filling in", str(caught.exception))


@unittest.skipUnless(importlib.util.find_spec("mypy"), "needs mypy")
class TypesTest(unittest.TestCase):
    """The package says what its types are (py.typed), and programs that use it are checked by them."""

    @staticmethod
    def mypy(*arguments):
        package = Path(kvcast.__file__).resolve().parents[1]
        # An installed package is found by itself, and may not be on the path as well.
        path = {} if package.name.endswith("-packages") else {"MYPYPATH": str(package)}
        with tempfile.TemporaryDirectory() as cache:
            return subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", cache, *arguments], cwd=cache, capture_output=True,
                                  text=True, check=False, env={**os.environ, **path})

    def test_the_package_and_a_strict_program_pass(self):
        self.assertTrue((Path(kvcast.__file__).parent / "py.typed").exists())
        for arguments in (["--ignore-missing-imports", "-p", "kvcast"],
                          ["--strict", "--follow-imports=silent", str(Path(__file__).parent / "typed_use.py")]):
            done = self.mypy(*arguments)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_wrong_uses_are_found(self):
        wrong = "import kvcast\nx: str = kvcast.Model.load('m').tokenize('a')\nkvcast.Model.load(5)\ny: int = kvcast.Model.load('m').generate([''])[0].text\n"
        done = self.mypy("--strict", "--follow-imports=silent", "-c", wrong)
        self.assertIn("Found 3 errors", done.stdout)


class ReadmeTest(unittest.TestCase):
    def test_its_python_runs(self):
        readme = Path(os.environ.get("KVCAST_README", ROOT / "README.md"))
        (code,) = re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), re.M | re.S)
        done = subprocess.run([sys.executable, "-c", code], cwd=BUNDLE.parent.parent, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("ms to the first token", done.stdout)


if __name__ == "__main__":
    unittest.main()
