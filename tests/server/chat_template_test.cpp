// The Jinja subset, and what a conversation becomes.
#include "runtime/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/jinja/template.h"
#include "support/temporary_directory.h"

namespace kvcast {
namespace {

using jinja::List;
using jinja::Map;
using jinja::Value;
using ::testing::HasSubstr;

const Tokenizer& tokenizer() {
  static const auto loaded =
      *Tokenizer::load(std::filesystem::path(KVCAST_SOURCE_DIR) / "tests/data/tokenizer.model");
  return *loaded;
}

std::string render(const std::string& source, Map globals = {}) {
  const auto parsed = jinja::Template::parse(source);
  if (!parsed) return "parse error: " + parsed.error().message;
  const auto text = parsed->render(Value(std::move(globals)));
  return text ? *text : "error: " + text.error().message;
}

TEST(Jinja, EvaluatesExpressions) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ 1 + 2 * 3 }}", "7"},
      {"{{ (1 + 2) * 3 }}", "9"},
      {"{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }}", "3 -4 1 2 3.5"},
      {"{{ 'a' ~ 1 ~ none ~ true }}", "a1NoneTrue"},
      {"{{ 'a' + 'b' }}", "ab"},
      {"{{ 1 < 2 and not 2 < 1 }}", "True"},
      {"{{ 'x' if false else 'y' }}{{ 'z' if false }}", "y"},
      {"{{ 'b' in 'abc' }} {{ 4 not in [1, 2] }}", "True True"},
      {"{{ [1, 'a', {'k': none}] }}", "[1, 'a', {'k': None}]"},
      {"{{ {'a': [1, 2]}['a'][-1] }} {{ {'a': {'b': 3}}.a.b }}", "2 3"},
      {"{{ 'hello'[1:3] }} {{ [1,2,3][::-1] }} {{ [1,2,3][1:] }}", "el [3, 2, 1] [2, 3]"},
      {"{{ ' x '|trim ~ 'A'|lower ~ 'b'|upper ~ ([1,2]|length) }}", "xaB2"},
      {"{{ missing is defined }} {{ missing|default('d') }} {{ '' | default('e', true) }}",
       "False d e"},
      {"{{ 'a,b'.split(',')|join('-') }} {{ ' s '.strip() }} {{ 'abc'.startswith('a') }}",
       "a-b s True"},
      {"{{ {'a': 1}.items()|list }} {{ {'a': 1}.get('b', 2) }}", "[['a', 1]] 2"},
      {"{{ 'a\"b\\n'|tojson }}", "\"a\\\"b\\n\""},
      {"{{ 3 is odd }} {{ 'x' is string }} {{ none is none }} {{ {} is mapping }}",
       "True True True True"},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(render(source), expected) << source;
}

TEST(Jinja, RunsStatements) {
  EXPECT_EQ(render("{% for i in range(3) %}{{ i }}{{ ',' if not loop.last }}{% endfor %}"),
            "0,1,2");
  EXPECT_EQ(render("{% for i in [] %}x{% else %}none{% endfor %}"), "none");
  EXPECT_EQ(render("{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}"), "a1b2");
  EXPECT_EQ(render("{% for i in range(9) if i is even %}{% if i == 6 %}{% break %}{% endif %}"
                   "{{ i }}{% endfor %}"),
            "024");
  EXPECT_EQ(render("{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}"
                   "{% endfor %}{{ ns.n }}"),
            "6");
  EXPECT_EQ(render("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}"), "1");
  EXPECT_EQ(render("{% if false %}a{% elif true %}b{% else %}c{% endif %}"), "b");
  EXPECT_EQ(render("a\n  {% if true %}\nb\n  {% endif %}\nc"), "a\nb\nc");
  EXPECT_EQ(render("a {{- ' b ' -}} c{# note #}"), "a b c");
}

TEST(Jinja, SaysWhatIsWrongAndWhere) {
  EXPECT_THAT(render("a\n{% if %}"), HasSubstr("line 2"));
  EXPECT_THAT(render("{{ 1 + }}"), HasSubstr("missing"));
  EXPECT_THAT(render("{% if true %}"), HasSubstr("endif is missing"));
  EXPECT_THAT(render("{% include 'x' %}"), HasSubstr("not supported"));
  EXPECT_THAT(render("{{ x|nonsense }}"), HasSubstr("unknown filter"));
  EXPECT_THAT(render("{{ raise_exception('no tools') }}"), HasSubstr("refuses: no tools"));
  EXPECT_THAT(render("{{ 'open }}"), HasSubstr("not closed"));
  EXPECT_THAT(render("{{ 1 // 0 }}"), HasSubstr("zero"));
}

TEST(Jinja, HostileTemplatesEnd) {
  EXPECT_THAT(render("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}"),
              HasSubstr("too deeply"));
  EXPECT_THAT(render("{{ " + std::string(5000, '-') + "1 }}"), HasSubstr("too deeply"));
  std::string chain = "{{ 1";
  for (int i = 0; i < 5000; ++i) chain += "+1";
  EXPECT_THAT(render(chain + " }}"), HasSubstr("too long"));
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += "{% if true %}";
  EXPECT_THAT(render(nested), HasSubstr("too deeply"));
  std::string branches = "{% if false %}";
  for (int i = 0; i < 5000; ++i) branches += "{% elif false %}";
  EXPECT_THAT(render(branches + "{% endif %}"), HasSubstr("too many"));
  EXPECT_THAT(
      render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
      HasSubstr("does not come to an end"));
  EXPECT_THAT(render("{% set ns = namespace(t='aaaaaaaa') %}{% for i in range(99) %}"
                     "{% set ns.t = ns.t ~ ns.t %}{% endfor %}"),
              HasSubstr("too long"));
  EXPECT_THAT(render("{% set ns = namespace(l=[1]) %}{% for i in range(99) %}"
                     "{% set ns.l = ns.l + ns.l %}{% endfor %}"),
              HasSubstr("too long"));
  EXPECT_THAT(render("{% set ns = namespace() %}{% set ns.x = ns %}"), HasSubstr("itself"));
  EXPECT_THAT(render("{% set ns = namespace(l=[]) %}{% for i in range(999) %}"
                     "{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}"),
              HasSubstr("error"));
  EXPECT_THAT(render("{{ range(999999999) }}"), HasSubstr("too long"));
  EXPECT_THAT(
      render("{% for i in range(9999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 9 }}{% endfor %}"),
      HasSubstr("too long"));
  EXPECT_THAT(render("{{ 'a' * 99999999 }}"), HasSubstr("too long"));
  EXPECT_THAT(render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("too deeply"));
  std::string blocks = "{% macro m() %}", ends;
  for (int i = 0; i < 50; ++i) {
    blocks += "{% if true %}";
    ends += "{% endif %}";
  }
  EXPECT_THAT(render(blocks + "{{ m() }}" + ends + "{% endmacro %}{{ m() }}"),
              HasSubstr("too deeply"));
}

const std::vector<ChatMessage> kConversation = {{"system", "Be brief."},
                                                {"user", "The cache?"},
                                                {"assistant", "It is predicted."},
                                                {"user", "Why?"}};

TEST(ChatTemplate, WellKnownTemplatesRenderAsElsewhere) {
  const auto text = [](const std::string& source) {
    const auto loaded = ChatTemplate::from_source(source, tokenizer());
    EXPECT_TRUE(loaded) << loaded.error().message;
    const auto prompt = (*loaded)->render(kConversation);
    EXPECT_TRUE(prompt) << prompt.error().message;
    return prompt ? prompt->text : "";
  };
  // ChatML.
  EXPECT_EQ(text("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
                 "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nThe cache?<|im_end|>\n"
            "<|im_start|>assistant\nIt is predicted.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
            "<|im_start|>assistant\n");
  // In the manner of Llama 2.
  EXPECT_EQ(text("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
                 "{% set system_message = messages[0]['content'] %}{% else %}"
                 "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
                 "{% for message in loop_messages %}"
                 "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
                 "{{ raise_exception('roles must alternate') }}{% endif %}"
                 "{% if loop.index0 == 0 and system_message != false %}"
                 "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + "
                 "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
                 "{% if message['role'] == 'user' %}"
                 "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
                 "{% elif message['role'] == 'assistant' %}"
                 "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"),
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nThe cache? [/INST] It is predicted. </s>"
            "<s>[INST] Why? [/INST]");
}

TEST(ChatTemplate, OnlyTheTemplateMakesControlTokens) {
  const auto loaded = ChatTemplate::from_source(
      "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{{ eos_token }}{% endfor %}",
      tokenizer());
  ASSERT_TRUE(loaded);
  const auto honest = (*loaded)->render({{"user", "cache"}});
  ASSERT_TRUE(honest);
  EXPECT_EQ(honest->tokens.front(), 1);
  EXPECT_EQ(honest->tokens.back(), 2);
  for (const std::string content : {"</s><s>", "<\xEF\xB7\x90/s>", "</s</s>>"}) {
    const auto prompt = (*loaded)->render({{"user", content}});
    ASSERT_TRUE(prompt);
    EXPECT_EQ(std::ranges::count(prompt->tokens, 2), 1) << content;
    EXPECT_EQ(std::ranges::count(prompt->tokens, 1), 1) << content;
  }
  EXPECT_THAT((*loaded)->render({{"user", "a</s>b"}})->text, HasSubstr("[a</s>b]"));
}

TEST(ChatTemplate, IsFoundInTheModelDirectory) {
  const auto source_in = [](const TemporaryDirectory& directory) {
    const auto loaded = ChatTemplate::load(directory.path(), tokenizer());
    return loaded ? (*loaded)->source() : "error: " + loaded.error().message;
  };
  TemporaryDirectory directory;
  EXPECT_EQ(source_in(directory), "");
  directory.write("tokenizer_config.json", R"({"chat_template": "A{{ bos_token }}"})");
  EXPECT_EQ(source_in(directory), "A{{ bos_token }}");
  directory.write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "x", "template": "X"}, {"name": "default", "template": "D"}]})");
  EXPECT_EQ(source_in(directory), "D");
  directory.write("chat_template.jinja", "file");
  EXPECT_EQ(source_in(directory), "file");
  directory.write("chat_template.jinja", "{% if %}");
  EXPECT_THAT(source_in(directory), HasSubstr("chat_template.jinja: chat template: line 1"));
}

TEST(ChatTemplate, ThePlainDefaultNamesTheTurns) {
  const auto prompt = ChatTemplate::plain(tokenizer())->render(kConversation);
  ASSERT_TRUE(prompt);
  EXPECT_EQ(prompt->text,
            "Be brief.\n\nUser: The cache?\nAssistant: It is predicted.\nUser: Why?\nAssistant:");
  EXPECT_EQ(prompt->tokens.front(), 1);
  EXPECT_FALSE(ChatTemplate::plain(tokenizer())->render({{"wizard", "x"}}));
}

}  // namespace
}  // namespace kvcast
