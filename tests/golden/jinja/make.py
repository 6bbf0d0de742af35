"""What PyPI's jinja2 makes of the constructs that public chat templates use.

    python make.py                          # writes cases.json beside itself
    python make.py qwen2.5-coder FILE.gguf  # NAME.json: conversations as that file's own template puts them

The environment is the one in which Hugging Face renders chat templates.
"""

import json
import pathlib
import sys

from jinja2.ext import LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment

GLOBALS = {
    "messages": [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hello\nthere"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}]},
        {"role": "tool", "content": "{\"t\": 20}", "tool_call_id": "c1"},
        {"role": "user", "content": "Bye <b>'now'</b>"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "weather", "description": "Get \"it\"", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "enum": [1, 2]}},
            "required": ["city"]}}},
        {"type": "function", "function": {"name": "Clock", "description": None, "parameters": {}}},
    ],
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "numbers": [3, 1, 2, 1],
    "words": ["b", "A", "c", "a"], "text": "one two  three",
}

TEMPLATES = [
    # macros
    "{% macro greet(name, mark='!') %}Hi {{ name }}{{ mark }}{% endmacro %}{{ greet('A') }}{{ greet('B', mark='?') }}{{ greet(name='C') }}",
    "{%- macro show(m) -%}\n  [{{ m.role }}]\n{%- endmacro -%}\n{% for m in messages %}{{ show(m) }}{% endfor %}",
    "{% macro walk(v) %}{% if v is mapping %}{% for k, w in v.items() %}{{ k }}({{ walk(w) }}){% endfor %}{% elif v is iterable and v is not string %}{% for w in v %}{{ walk(w) }},{% endfor %}{% else %}{{ v }}{% endif %}{% endmacro %}{{ walk(tools) }}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 2 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}b{% endmacro %}{{ a() | upper }}",
    "{% macro ask() %}{{ bos_token }}{{ messages[0].role }}{% endmacro %}{{ ask() }}",
    "{{ strftime_now is defined }} {{ nothing is defined }} {{ raise_exception is defined }}",
    # choosing and changing lists
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}",
    "{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | join(', ') }}",
    "{{ messages | selectattr('tool_calls') | list | length }} {{ messages | selectattr('tool_calls', 'defined') | list | length }}",
    "{{ messages | selectattr('role', 'in', ['tool', 'system']) | map(attribute='role') | list }}",
    "{{ tools | map(attribute='function.name') | list }} {{ tools | map(attribute='function') | map(attribute='name') | join('|') }}",
    "{{ words | map('upper') | list }} {{ words | map('replace', 'a', 'x') | list }} {{ numbers | select('odd') | list }} {{ numbers | reject('equalto', 1) | list }}",
    "{{ numbers | sort }} {{ numbers | sort(reverse=true) }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ numbers | unique | list }} {{ words | unique | list }}",
    "{{ tools | sort(attribute='function.name') | map(attribute='function.name') | list }} {{ numbers | sum }} {{ numbers | max }} {{ numbers | min }} {{ words | first }} {{ words | last }}",
    "{% for k, v in {'b': 1, 'a': 2}|dictsort %}{{ k }}={{ v }};{% endfor %}{% for k, v in {'b': 1, 'a': 2}|dictsort(by='value', reverse=true) %}{{ k }};{% endfor %}",
    "{{ numbers | batch(3) | list }} {{ numbers | reverse | list }} {{ 'abc' | reverse }} {{ 'abc' | list }}",
    # tojson
    "{{ tools | tojson }}", "{{ tools | tojson(indent=4) }}", "{{ tools[0] | tojson(indent=2) }}", "{{ [] | tojson(indent=2) }} {{ {} | tojson(indent=2) }} {{ 'ü\"\\n\\t' | tojson }} {{ 1.5 | tojson }} {{ none | tojson }}",
    "{{ messages[2].tool_calls[0].function.arguments | tojson }}",
    # printing
    "{{ tools }}", "{{ [1, 2.0, true, none, 'a', \"it's\", 'say \"x\"', 'both \\' and \"', 'n\\n'] }} {{ {'a': {'b': []}} }}", "{{ 1 }} {{ 1.0 }} {{ 2.50 }} {{ -3 }} {{ true }} {{ none }} {{ nothing }}",
    # namespaces and sets
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.found }} {{ ns.n }}",
    "{% set a, b = [1, 2] %}{{ a }}{{ b }}{% set a, b = (b, a) %}{{ a }}{{ b }}", "{% set block %}  text {{ 1 + 1 }}\n{% endset %}[{{ block }}]{{ block | trim | length }}",
    # loops
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }} {% endfor %}",
    "{% for m in messages %}{% if loop.previtem is defined %}<{{ loop.previtem.role }}{% endif %}{% if loop.nextitem is defined %}>{{ loop.nextitem.role }}{% endif %}{% endfor %}",
    "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role }} {% endfor %}", "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{% if loop.index == 4 %}{% break %}{% endif %}{{ m.role }} {% endfor %}",
    "{% for m in messages[1:] %}{{ m.role }},{% endfor %}{% for m in messages[::-1] %}{{ m.role }},{% endfor %}{{ messages[-1].role }}{{ messages[:-1] | length }}{{ messages[1:3][0].role }}",
    "{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}{% for i in range(0) %}x{% else %}none{% endfor %}", "{% for a, b in [('x', 1), ('y', 2)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for i in [1, 2] %}{% for j in [3, 4] %}{{ i }}{{ j }}{{ loop.last }} {% endfor %}{{ loop.last }}{% endfor %}",
    # strings
    "{{ text.split() }} {{ text.split(' ') }} {{ text.split(' ', 1) }} {{ text.rsplit(' ', 1) }} {{ 'a</think>b</think>c'.split('</think>')[-1] }} {{ text.split('x') }}",
    "{{ ' ab '.strip() }}|{{ ' ab '.lstrip() }}|{{ ' ab '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ '\\nab\\n'.lstrip('\\n') }}|{{ 'abc'.rstrip('cb') }}",
    "{{ text.startswith('one') }}{{ text.endswith('x') }}{{ text.startswith(('x', 'one')) }}{{ text.find('two') }}{{ text.rfind('e') }}{{ text.find('zz') }}{{ text.count('o') }}{{ text.replace('o', '0') }}{{ text.replace('o', '0', 1) }}",
    "{{ text.upper() }}{{ 'ABC'.lower() }}{{ text.title() }}{{ text.capitalize() }}{{ 'a-b'.title() }}{{ '12'.isdigit() }}{{ 'a1'.isalpha() }}{{ ''.isdigit() }}{{ 'Ab'.isupper() }}",
    "{{ 'AB'.isupper() }}{{ 'A1'.isupper() }}{{ '12'.isupper() }}{{ ''.isupper() }}{{ 'ab'.islower() }}{{ 'a1'.islower() }}{{ 'aB'.islower() }}{{ '12'.islower() }}",
    "{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'x.py'.removesuffix('.py') }}{{ 'a\\nb\\r\\nc'.splitlines() }}{{ ', '.join(words) }}{{ 'ab' * 3 }}{{ 'x' ~ 1 ~ none }}",
    "{{ text | trim | upper | replace('O', '0') }}{{ text | title }}{{ text | capitalize }}{{ text | wordcount }}{{ 'a\\nb\\n\\nc' | indent(2) }}|{{ 'a\\nb' | indent(width=3, first=true) }}|{{ 'xxa' | trim('x') }}",
    "{{ text[0] }}{{ text[-1] }}{{ text[4:7] }}{{ text[::-1] }}{{ 'ü€'[1] }}{{ 'ü€' | length }}",
    # numbers
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ 7 / 2 }} {{ 2 ** 5 }} {{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ '42' | int + 1 }} {{ 'x' | int }} {{ '2.5' | float }} {{ 2.567 | round(1) }} {{ 3 | abs }} {{ -3 | abs }} {{ 5.9 | int }}",
    # tests and conditions
    "{{ 3 is odd }}{{ 4 is divisibleby 2 }}{{ 4 is divisibleby(3) }}{{ 'a' is in ['a'] }}{{ 'a' in 'abc' }}{{ 'z' not in words }}{{ 1 is number }}{{ 1.5 is integer }}{{ true is boolean }}{{ none is none }}{{ [] is sequence }}{{ {} is mapping }}{{ 'x' is string }}{{ 1 is eq 1 }}{{ 2 is gt 1 }}{{ 'a' is lower }}",
    "{{ 'yes' if messages else 'no' }}{{ 'x' if not tools }}{{ nothing or 'default' }}{{ '' or none or 0 or 'last' }}{{ 1 and 2 }}{{ not nothing }}",
    "{% if messages[0].role == 'system' and messages[0].content is not none %}a{% elif tools %}b{% else %}c{% endif %}{% if tools is defined and tools is iterable and tools | length > 1 %}d{% endif %}{% if not add_generation_prompt is defined %}e{% endif %}",
    "{{ nothing | default('d') }}{{ '' | default('e') }}{{ '' | default('f', true) }}{{ none | default('g', boolean=true) }}{{ nothing | d }}", "{{ messages[0]['content'] | trim }}{{ messages[0].get('name', 'x') }}{{ messages[0].get('name') }}{{ 'content' in messages[0] }}{{ messages[2].tool_calls is defined }}{{ messages[1].tool_calls is defined }}",
    "{{ {'a': 1, 'b': 2}.keys() | list }}{{ {'a': 1}.values() | list }}{{ dict(a=1, b='x') }}{{ {'a': 1}['a'] }}{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}{% for k in {'a': 1} %}{{ k }}{% endfor %}{{ {'a': 1} | items | list | length }}",
    # white space
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a {{- ' b ' -}} c\n{#- note -#}\n d", "{%- for m in messages -%}\n  {{- m.role -}}\n{%- endfor %}\n\nend\n", "  {{ 1 }}\n  {# c #}\n  {% set x = 2 %}\n  {{ x }}\n", "{% if true %}a{% endif %} {% if true %}b{% endif %}\n{{ 'c' }}\n\n",
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "{{ 'a' 'b' }}{{ \"q\\\"q\" }}{{ 'it\\'s' }}{{ '{{ not code }}' }}{{ '%}' }}", "{{ (1, 2) | length }}{{ (1,) | length }}{{ () | length }}{{ [1, 2] + [3] }}{{ 1 == 1.0 }}{{ 'a' < 'b' }}{{ [1] == [1] }}",
]


LOOK = {"type": "function", "function": {"name": "look", "description": "What's in \"it\" <now>?\nÜberall", "parameters": {
    "type": "object", "properties": {"where": {"type": "string", "enum": ["in", "on"]}, "depth": {"type": "number", "default": 1.5}},
    "required": ["where"]}}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {}}}
# As OpenAI's clients send them; templates get the arguments of calls as objects.
CONVERSATIONS = [
    ([{"role": "user", "content": "Hello"}], None),
    ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], [LOOK]),
    ([{"role": "user", "content": "What time is it, and what is in the box?"}], [LOOK, CLOCK]),
    ([{"role": "user", "content": "Both, please."},
      {"role": "assistant", "content": None, "tool_calls": [
          {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{\"where\": \"in\", \"depth\": 2}"}},
          {"id": "b", "type": "function", "function": {"name": "clock", "arguments": "{}"}}]},
      {"role": "tool", "tool_call_id": "a", "content": "A lamp."}, {"role": "tool", "tool_call_id": "b", "content": "6:45"},
      {"role": "user", "content": "Again."},
      {"role": "assistant", "content": "Looking.", "tool_calls": [
          {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{\"where\": \"on\"}"}}]},
      {"role": "tool", "tool_call_id": "c", "content": "Nothing."}], [LOOK, CLOCK]),
]


def render_conversations(environment, name, file):
    from gguf import GGUFReader
    field = GGUFReader(file).fields["tokenizer.chat_template"]
    template = environment.from_string(bytes(field.parts[field.data[0]]).decode())
    cases = []
    for messages, tools in CONVERSATIONS:
        given = json.loads(json.dumps(messages))
        for message in given:
            message["content"] = message["content"] or ""
            for call in message.get("tool_calls", []):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        cases.append({"messages": messages, "tools": tools,
                      "output": template.render(messages=given, tools=tools, add_generation_prompt=True)})
    path = pathlib.Path(__file__).parent / f"{name}.json"
    path.write_text("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n")


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension])

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = environment.globals["strftime_now"] = lambda text: text
    if len(sys.argv) > 2:
        return render_conversations(environment, *sys.argv[1:])
    cases = [{"template": text, "output": environment.from_string(text).render(GLOBALS)} for text in TEMPLATES]
    path = pathlib.Path(__file__).parent / "cases.json"
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    path.write_text(f'{{"globals": {json.dumps(GLOBALS, ensure_ascii=False)},\n"cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
