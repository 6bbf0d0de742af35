// Tool calls: from an answer's text to what clients expect, and what templates are given.
#include "runtime/tool_calls.h"

#include <gmock/gmock.h>

#include <fstream>
#include <map>

#include "server/server_fixture.h"
#include "server/tool_templates.h"

namespace kvcast {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

/// "content|name(arguments)|..." of an answer that comes in pieces of `step` bytes.
std::string read(std::string_view answer, size_t step, bool parallel = true) {
  ToolCallReader reader({"look", "go"}, parallel);
  AnswerParts whole;
  for (size_t at = 0; at <= answer.size(); at += step) {
    AnswerParts parts;
    reader.add(answer.substr(at, step), parts);
    if (at + step > answer.size()) reader.end(parts);
    whole.content += parts.content;
    for (ToolCallPart& part : parts.calls) {
      EXPECT_EQ(part.name.empty(), part.index < std::ssize(whole.calls));
      if (!part.name.empty()) {
        whole.calls.push_back(std::move(part));
      } else {
        whole.calls.at(static_cast<size_t>(part.index)).arguments += part.arguments;
      }
    }
  }
  std::string text = whole.content;
  for (const ToolCallPart& call : whole.calls) text += "|" + call.name + "(" + call.arguments + ")";
  EXPECT_EQ(reader.has_calls(), !whole.calls.empty());
  return text;
}

TEST(ToolCallReader, SeparatesCallsFromTextHoweverItComes) {
  const std::pair<const char*, const char*> cases[] = {
      {"Just text.\n", "Just text.\n"},
      {"", ""},
      {"<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"}\\\"{\"}}\n</tool_call>",
       R"(|look({"at": "}\"{"}))"},
      {"Let me see.\n<tool_call>{\"name\":\"look\",\"arguments\":{}}</tool_call>\n"
       "<tool_call>{\"name\":\"go\",\"arguments\":{\"a\":[1,{\"b\":2}]}}</tool_call>\n",
       R"(Let me see.|look({})|go({"a":[1,{"b":2}]}))"},
      // Llama 3.
      {R"({"name": "go", "parameters": {"x": 1}})", R"(|go({"x": 1}))"},
      {R"({"name": "go", "parameters": {"x": 1}}; {"name": "look", "parameters": {}})",
       R"(|go({"x": 1})|look({}))"},
      // In a fence.
      {"```json\n{\n  \"name\": \"look\",\n  \"arguments\": {\"x\": 1}\n}\n```\n",
       R"(|look({"x": 1}))"},
      // Members in any order, more of them, arguments as text, none.
      {R"({"id": [1, "a"], "arguments": {"x": 1}, "name": "look", "n": -1.5e3, "t": null})",
       R"(|look({"x": 1}))"},
      {R"({"name": "look", "arguments": "{\"x\": 1}"})", R"(|look({"x": 1}))"},
      {R"({"name": "look"})", "|look({})"},
      {R"({"name": "look", "arguments": null})", "|look({})"},
      // What is no call stays as it is.
      {R"({"name": "Bob", "arguments": {}})", R"({"name": "Bob", "arguments": {}})"},
      {R"(<tool_call>{"name": "fly"}</tool_call>)", R"(<tool_call>{"name": "fly"}</tool_call>)"},
      {"<tool_call> look", "<tool_call> look"},
      {"a < b, <tool box>", "a < b, <tool box>"},
      {R"({"name": 5})", R"({"name": 5})"},
      {R"({"arguments": ]})", R"({"arguments": ]})"},
      {R"({"name": "look")", R"(|look())"},  // cut
      {R"({"name": "look", "arguments": ] it is.)", R"(] it is.|look())"},
      {"a <<tool_call>{\"name\": \"go\"}</tool_call>", R"(a <|go({}))"},
      {"{}", "{}"},
      {R"({"a": 1}, {"name": "look"})", R"({"a": 1}, {"name": "look"})"},
      {R"({"arguments": {"x": 1}} is all.)", R"({"arguments": {"x": 1}} is all.)"},
      {"```json\n[1]\n```", "```json\n[1]\n```"},
      {R"(The object {"name": "look", "arguments": {}} is text.)",
       R"(The object {"name": "look", "arguments": {}} is text.)"},
      {"<tool_call>\n{\"name\": \"look\", \"arguments\": {\"x\": \"cut he",
       R"(|look({"x": "cut he))"},
      {"  \n", "  \n"},
  };
  for (const auto& [answer, expected] : cases) {
    for (const size_t step : {1, 2, 3, 7, 1000}) EXPECT_EQ(read(answer, step), expected) << answer;
  }
}

TEST(ToolCallReader, GivesOneCallWhereOneIsAskedFor) {
  const std::string two =
      R"(<tool_call>{"name":"go"}</tool_call><tool_call>{"name":"look"}</tool_call>)";
  EXPECT_EQ(read(two, 3), "|go({})|look({})");
  EXPECT_EQ(read(two, 3, false), "|go({})");
}

TEST(ToolCallReader, LongSpaceIsReadInLittleTime) {
  const std::string space(1 << 20, ' ');
  EXPECT_EQ(read(space + "x", 16), space + "x");
}

TEST(ToolCallReader, StreamsArgumentsAsTheyCome) {
  ToolCallReader reader({"look"}, true);
  AnswerParts parts;
  reader.add(R"(<tool_call>{"name": "look", "arguments": {"city": "Zü)", parts);
  ASSERT_EQ(parts.calls.size(), 1U);
  EXPECT_EQ(parts.calls[0].name, "look");
  EXPECT_EQ(parts.calls[0].arguments, R"({"city": "Zü)");
}

TEST(ToolNames, AreOneTo64LettersDigitsAndSigns) {
  for (const auto& name : {std::string("a"), std::string("Go_2-b.c"), std::string(64, 'a')}) {
    EXPECT_TRUE(is_tool_name(name)) << name;
  }
  for (const auto& name : {std::string(), std::string("a b"), std::string(65, 'a')}) {
    EXPECT_FALSE(is_tool_name(name)) << name;
  }
}

/// The tiny bundle with a chat template.
class WithTemplate {
 public:
  explicit WithTemplate(const std::string& source)
      : file_(tiny_bundle().path() / "base/chat_template.jinja") {
    std::ofstream(file_) << source;
    server_ = std::make_unique<RunningServer>();
  }
  ~WithTemplate() {
    server_.reset();
    std::filesystem::remove(file_);
  }
  WithTemplate(const WithTemplate&) = delete;
  WithTemplate& operator=(const WithTemplate&) = delete;
  [[nodiscard]] ClientResponse post(const json& body, const char* path = kChat) const {
    return HttpClient(server_->port()).post(path, body);
  }

 private:
  std::filesystem::path file_;
  std::unique_ptr<RunningServer> server_;
};

json tool(const std::string& name) {
  return {{"type", "function"},
          {"function", {{"name", name}, {"parameters", {{"type", "object"}}}}}};
}

json body_with_tools() {
  return {{"messages", {{{"role", "user"}, {"content", "Look."}}}},
          {"tools", {tool("look"), tool("go")}},
          {"max_tokens", 12},
          {"temperature", 0},
          {"ignore_eos", true}};
}

TEST(ServedTools, TheTemplateSaysHowCallsAreWritten) {
  const auto tokenizer = Tokenizer::load(tiny_bundle().path() / "base/tokenizer.model");
  ASSERT_TRUE(tokenizer);
  const auto form = [&](const std::string& source) {
    return (*ChatTemplate::from_source(source, **tokenizer))->tool_calls();
  };
  EXPECT_EQ(form(template_with_tools(true)), ToolCallForm::kTagged);
  EXPECT_EQ(form(template_with_tools(false)), ToolCallForm::kJson);
  EXPECT_EQ(form("{% for m in messages %}{{ m.content }}{% endfor %}"), ToolCallForm::kNone);
  EXPECT_EQ(form("{% if tools %}{{ tools }}{% endif %}{{ messages[0].content }}"),
            ToolCallForm::kUnknown);
}

TEST(ServedTools, ANamedToolIsCalledWholeAndStreamed) {
  for (const bool tagged : {true, false}) {
    const WithTemplate server(template_with_tools(tagged));
    json body = body_with_tools();
    body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "go"}}}};
    const json whole = server.post(body).json()["choices"][0];
    const json call = whole["message"]["tool_calls"][0];
    EXPECT_THAT(call["id"].get<std::string>(), testing::StartsWith("call_"));
    EXPECT_EQ(call["type"], "function");
    EXPECT_EQ(call["function"]["name"], "go");

    body["stream"] = true;
    std::string content, name, arguments, reason;
    for (const json& event : Events(server.post(body).body).data) {
      const json& choice = event["choices"][0];
      content += choice["delta"].value("content", "");
      for (const json& part : choice["delta"].value("tool_calls", json::array())) {
        EXPECT_EQ(part["index"], 0);
        if (part["function"].contains("name")) name += part["function"]["name"];
        arguments += part["function"]["arguments"];
      }
      if (!choice["finish_reason"].is_null()) reason = choice["finish_reason"];
    }
    EXPECT_EQ(name, "go");
    // What a model of random numbers says may be text, too.
    const json& said = whole["message"]["content"];
    EXPECT_EQ(content, said.is_null() ? "" : said.get<std::string>());
    EXPECT_EQ(call["function"]["arguments"], arguments);
    EXPECT_EQ(whole["finish_reason"], reason);
  }
}

TEST(ServedTools, TheTemplateGetsToolsAndHistoryAsClientsSendThem) {
  const WithTemplate server(template_with_tools(true));
  const auto prompt_tokens = [&](json body) {
    body["max_tokens"] = 1;
    const ClientResponse response = server.post(body);
    EXPECT_EQ(response.status, 200) << response.body;
    return response.json()["usage"]["prompt_tokens"].get<int64_t>();
  };
  json body = body_with_tools();
  json without = body;
  without.erase("tools");
  const auto plain = prompt_tokens(without);
  EXPECT_GT(prompt_tokens(body), plain + 40);
  body["tool_choice"] = "none";
  EXPECT_EQ(prompt_tokens(body), plain);
  without["messages"].push_back(
      {{"role", "assistant"},
       {"content", nullptr},
       {"tool_calls",
        {{{"id", "c1"},
          {"type", "function"},
          {"function", {{"name", "look"}, {"arguments", "{\"x\": 1}"}}}}}}});
  without["messages"].push_back({{"role", "tool"}, {"tool_call_id", "c1"}, {"content", "A lamp."}});
  EXPECT_GT(prompt_tokens(without), plain + 20);
}

TEST(ServedTools, WhatCannotBeCalledIsRefusedByName) {
  const auto refused = [](const WithTemplate& server, json more, const char* field) {
    json body = body_with_tools();
    body.update(more);
    const ClientResponse response = server.post(body);
    EXPECT_EQ(response.status, 400) << response.body;
    EXPECT_EQ(response.json()["error"]["param"], field) << response.body;
  };
  const json history = {{{"role", "user"}, {"content", "Look."}},
                        {{"role", "tool"}, {"tool_call_id", "c1"}, {"content", "A lamp."}}};
  {
    const WithTemplate server("{% for m in messages %}{{ m.content }}{% endfor %}");
    refused(server, json::object(), "tools");
    refused(server, {{"tools", nullptr}, {"messages", history}}, "messages");
  }
  const WithTemplate server(template_with_tools(true));
  json strict = tool("look");
  strict["function"]["strict"] = true;
  refused(server, {{"tools", {strict}}}, "tools");
  refused(server, {{"tools", {{{"type", "web_search"}}}}}, "tools");
  refused(server, {{"tools", {tool("not a name")}}}, "tools");
  refused(server, {{"tools", "look"}}, "tools");
  refused(server, {{"tool_choice", "sometimes"}}, "tool_choice");
  refused(server, {{"tool_choice", {{"type", "function"}, {"function", {{"name", "fly"}}}}}},
          "tool_choice");
  refused(server, {{"tools", nullptr}, {"tool_choice", "required"}}, "tools");
  refused(server, {{"stream", true}, {"revise", true}}, "revise");
  const json no_arguments = {{{"role", "assistant"}, {"tool_calls", {{{"id", "c1"}}}}}};
  refused(server, {{"messages", no_arguments}}, "messages");
}

/// As /v1/responses has tools.
json flat_tool(const std::string& name) {
  return {{"type", "function"}, {"name", name}, {"parameters", {{"type", "object"}}}};
}

json response_with_tools() {
  return {{"input", "Look."},
          {"tools", {flat_tool("look"), flat_tool("go")}},
          {"max_output_tokens", 12},
          {"temperature", 0},
          {"ignore_eos", true}};
}

constexpr auto kResponses = "/v1/responses";

TEST(ServedTools, ResponsesCallWhatChatsCall) {
  for (const bool tagged : {true, false}) {
    const WithTemplate server(template_with_tools(tagged));
    json chat = body_with_tools(), asked = response_with_tools();
    chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", "go"}}}};
    asked["tool_choice"] = {{"type", "function"}, {"name", "go"}};
    const json in_chat = server.post(chat).json();
    const json expected = in_chat["choices"][0]["message"]["tool_calls"][0]["function"];
    const json whole = server.post(asked, kResponses).json();
    EXPECT_EQ(whole["usage"]["input_tokens"], in_chat["usage"]["prompt_tokens"]);
    EXPECT_EQ(whole["tools"], asked["tools"]);
    EXPECT_EQ(whole["tool_choice"], asked["tool_choice"]);
    const auto calls_of = [](const json& output) {
      json calls = json::array();
      for (const json& item : output) {
        if (item["type"] == "function_call") calls.push_back(item);
      }
      return calls;
    };
    const json call = calls_of(whole["output"]).at(0);
    EXPECT_EQ(call["name"], "go");
    EXPECT_EQ(call["arguments"], expected["arguments"]);
    EXPECT_THAT(call["call_id"].get<std::string>(), testing::StartsWith("call_"));

    asked["stream"] = true;
    std::map<std::string, std::string> written;  // by item
    json last, done = json::array();
    for (const json& event : Events(server.post(asked, kResponses).body).data) {
      const std::string type = event["type"];
      if (type.ends_with(".delta")) written[event["item_id"]] += event["delta"];
      if (type == "response.output_item.done") done.push_back(event["item"]);
      last = event;
    }
    EXPECT_EQ(last["response"]["output"], done);
    EXPECT_EQ(last["response"]["status"], whole["status"]);
    // Text on both sides of a call is one message of a whole answer, two of a stream.
    std::string in_whole, streamed;
    for (const json& item : whole["output"]) {
      if (item["type"] == "message") in_whole += item["content"][0]["text"];
    }
    for (const json& item : done) {
      const bool is_call = item["type"] == "function_call";
      const std::string text = is_call ? item["arguments"] : item["content"][0]["text"];
      EXPECT_EQ(written[item["id"]], text);
      if (!is_call) streamed += text;
    }
    EXPECT_EQ(streamed, in_whole);
    const json streamed_calls = calls_of(done), calls = calls_of(whole["output"]);
    ASSERT_EQ(streamed_calls.size(), calls.size());
    for (size_t i = 0; i < calls.size(); ++i) {
      EXPECT_EQ(streamed_calls[i]["arguments"], calls[i]["arguments"]);
    }
  }
}

TEST(ServedTools, ResponsesTakeCallsAndTheirResultsAsHistory) {
  const WithTemplate server(template_with_tools(true));
  const json call = {{"type", "function_call"},
                     {"id", "fc_1"},
                     {"call_id", "c1"},
                     {"name", "look"},
                     {"arguments", "{\"x\": 1}"}};
  const json result = {{"type", "function_call_output"}, {"call_id", "c1"}, {"output", "A lamp."}};
  const json said = {{"type", "message"},
                     {"role", "assistant"},
                     {"content", {{{"type", "output_text"}, {"text", "I see."}}}}};
  const json user = {{"role", "user"}, {"content", "Look."}};
  const auto tokens = [&](const json& input) {
    const json body = {{"input", input}, {"max_output_tokens", 1}};
    const ClientResponse response = server.post(body, kResponses);
    EXPECT_EQ(response.status, 200) << response.body;
    return response.json()["usage"]["input_tokens"].get<int64_t>();
  };
  const json function = {{"name", "look"}, {"arguments", "{\"x\": 1}"}};
  const json chat = {
      {"messages",
       {user,
        {{"role", "assistant"},
         {"content", "I see."},
         {"tool_calls", {{{"id", "c1"}, {"type", "function"}, {"function", function}}}}},
        {{"role", "tool"}, {"tool_call_id", "c1"}, {"content", "A lamp."}}}},
      {"max_tokens", 1}};
  EXPECT_EQ(tokens({user, said, call, result}), server.post(chat).json()["usage"]["prompt_tokens"]);
  EXPECT_GT(tokens({user, call, result}), tokens(json::array({user})));
}

TEST(ServedTools, ResponsesRefuseWhatTheyDoNotKnow) {
  const WithTemplate server(template_with_tools(true));
  const auto refused = [&](const json& more, const char* field) {
    json body = response_with_tools();
    body.update(more);
    const ClientResponse response = server.post(body, kResponses);
    EXPECT_EQ(response.status, 400) << response.body;
    EXPECT_EQ(response.json()["error"]["param"], field) << response.body;
  };
  json strict = flat_tool("look");
  strict["strict"] = true;
  refused({{"tools", {strict}}}, "tools");
  refused({{"tools", {tool("look")}}}, "tools");
  refused({{"tools", {{{"type", "web_search"}}}}}, "tools");
  refused({{"tool_choice", {{"type", "function"}, {"name", "fly"}}}}, "tool_choice");
  refused({{"input", json::array({{{"type", "reasoning"}}})}}, "input");
  refused({{"input", {{{"type", "function_call"}, {"call_id", "c1"}}}}}, "input");
  refused({{"input", {{{"type", "function_call_output"}, {"output", "a"}}}}}, "input");
  refused({{"input", {"text"}}}, "input");
  const json call = {
      {"type", "function_call"}, {"call_id", "c1"}, {"name", "look"}, {"arguments", "{}"}};
  refused({{"input", {{{"role", "assistant"}, {"tool_calls", "look"}}, call}}}, "input");
  refused({{"stream", true}, {"revise", true}}, "revise");
}

}  // namespace
}  // namespace kvcast
