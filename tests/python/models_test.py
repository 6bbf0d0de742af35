"""The package with a model that `make models` fetches: `make test-models` runs this."""

import json
import os
import unittest
from pathlib import Path

import kvcast

HUB = Path(os.environ.get("KVCAST_MODELS") or Path(__file__).resolve().parents[2] / "models" / "hub")
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


class QwenCoderTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = kvcast.Model.load(HUB / "qwen2.5-coder-0.5b-instruct.gguf")

    def test_calls_a_tool_and_reads_its_result(self):
        session, messages = self.model.session(), [{"role": "user", "content": "How is the weather in Paris?"}]
        asked = session.chat(messages, tools=[WEATHER], tool_choice="required", max_tokens=48)
        asked.read()
        call = asked.tool_calls[0]
        self.assertEqual((call.name, json.loads(call.arguments)["city"]), ("get_weather", "Paris"))
        messages += [asked.message, {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "snow", "celsius": -7}'}]
        told = session.chat(messages, tools=[WEATHER], tool_choice="none", max_tokens=48).read()
        self.assertIn("snow", told.text.lower())

    def test_what_is_filled_in_ends_where_the_model_says(self):
        answer = self.model.session().generate("def add(first, second):\n    return first", suffix="\n\nprint(add(1, 2))  # 3\n").read()
        self.assertTrue(answer.text.startswith(" + second\n"), answer.text)
        self.assertEqual(answer.finish_reason, "end-of-text")  # by <|endoftext|>, which does not end its chats


if __name__ == "__main__":
    unittest.main()
