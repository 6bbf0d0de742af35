// What the fields of a request mean, as clients send them.
#include <gmock/gmock.h>

#include <cctype>
#include <fstream>
#include <set>

#include "kvcast/kvcast.h"
#include "server/server_fixture.h"
#include "server/text_offsets.h"

namespace kvcast {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class RequestFields : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = std::make_unique<RunningServer>(); }
  static void TearDownTestSuite() { server_.reset(); }
  static ClientResponse post(const char* path, const json& body) {
    return HttpClient(server_->port()).post(path, body);
  }
  static json complete(json body, const char* path = kCompletions) {
    if (!body.contains("temperature")) body["temperature"] = 0;
    const ClientResponse response = post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    return response.json();
  }
  static inline std::unique_ptr<RunningServer> server_;
};

TEST_F(RequestFields, AnAssistantMayHaveSaidNothing) {
  const auto tokens = [](const json& content) {
    return post("/tokenize", {{"messages",
                               {{{"role", "user"}, {"content", "Hi"}},
                                {{"role", "assistant"}, {"content", content}},
                                {{"role", "user"}, {"content", "And?"}}}}})
        .json()["tokens"];
  };
  EXPECT_EQ(tokens(nullptr), tokens(""));
  EXPECT_GT(tokens(nullptr).size(), 3U);
  const json user = {{"messages", {{{"role", "user"}, {"content", nullptr}}}}};
  EXPECT_EQ(post(kChat, user).status, 400);
}

TEST_F(RequestFields, ATopPOfNothingIsGreedy) {
  const json greedy = complete({{"prompt", kPrompt}, {"max_tokens", 12}});
  const json none = complete(
      {{"prompt", kPrompt}, {"max_tokens", 12}, {"temperature", 1.5}, {"top_p", 0}, {"seed", 3}});
  EXPECT_EQ(greedy["choices"], none["choices"]);
}

TEST_F(RequestFields, MinusOneTokenIsAsLongAsFits) {
  const json answer = complete({{"prompt", kPrompt}, {"max_tokens", -1}, {"ignore_eos", true}});
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(answer["usage"]["total_tokens"], 256);
  const json chat = complete({{"messages", {{{"role", "user"}, {"content", "Hi"}}}},
                              {"max_completion_tokens", -1},
                              {"ignore_eos", true}},
                             kChat);
  EXPECT_EQ(chat["usage"]["total_tokens"], 256);
  std::vector<int32_t> full(256, 5);
  const ClientResponse refused = post(kCompletions, {{"prompt", full}, {"max_tokens", 1}});
  EXPECT_EQ(refused.json()["error"]["code"], "context_length_exceeded");
}

TEST_F(RequestFields, PenaltiesAndBiasesChangeTheChoice) {
  const json common = {
      {"prompt", kPrompt}, {"max_tokens", 20}, {"ignore_eos", true}, {"logprobs", 0}};
  json forced = common;
  forced["logit_bias"] = {{"300", 100}};
  const json tokens = complete(forced)["choices"][0]["logprobs"]["tokens"];
  for (const json& token : tokens) EXPECT_EQ(token, tokens[0]);
  // The same token cannot go on for ever once it costs something.
  json varied = forced;
  varied["logit_bias"] = {{"300", 3}};
  varied["frequency_penalty"] = 2;
  varied["presence_penalty"] = 2;
  const json other = complete(varied)["choices"][0]["logprobs"]["tokens"];
  std::set<std::string> kinds;
  for (const json& token : other) kinds.insert(token.get<std::string>());
  EXPECT_GT(kinds.size(), 1U);
  json banned = common;
  const std::string first = complete(common)["choices"][0]["logprobs"]["tokens"][0];
  banned["logit_bias"] = json::object();
  for (int id = 0; id < 400; ++id) {
    if (HttpClient(server_->port())
            .post("/detokenize", json{{"tokens", {5, id}}})
            .json()["prompt"]
            .get<std::string>()
            .ends_with(first)) {
      banned["logit_bias"][std::to_string(id)] = -100;
    }
  }
  EXPECT_NE(complete(banned)["choices"][0]["logprobs"]["tokens"][0], first);
  for (const json& wrong : {json{{"x", 1}}, json{{"5", 101}}, json{{"-5", 1}}, json::array()}) {
    EXPECT_EQ(post(kCompletions, {{"prompt", "a"}, {"logit_bias", wrong}}).status, 400) << wrong;
  }
}

TEST_F(RequestFields, StopTokensEndAnAnswerAndMinTokensHoldThemBack) {
  const auto ask = [](json more) {
    more.update(
        {{"prompt", kPrompt}, {"max_tokens", 20}, {"logit_bias", {{"300", 100}}}, {"logprobs", 0}});
    return complete(std::move(more));
  };
  const json stopped = ask({{"stop_token_ids", {300}}});
  EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(stopped["choices"][0]["text"], "");
  EXPECT_EQ(stopped["usage"]["completion_tokens"], 1);
  const json later = ask({{"stop_token_ids", {300}}, {"min_tokens", 7}, {"ignore_eos", true}});
  EXPECT_EQ(later["usage"]["completion_tokens"], 8);
  EXPECT_EQ(later["choices"][0]["finish_reason"], "stop");
}

TEST_F(RequestFields, BadWordsDoNotAppear) {
  const json common = {{"prompt", kPrompt}, {"max_tokens", 24}, {"ignore_eos", true}};
  const std::string text = complete(common)["choices"][0]["text"];
  // Any letters that it did say, as a word of their own.
  const size_t begin = text.find_first_of("abcdefghijklmnopqrstuvwxyz");
  ASSERT_NE(begin, std::string::npos) << text;
  size_t end = begin;
  while (end < text.size() && std::islower(static_cast<unsigned char>(text[end])) != 0) ++end;
  json without = common;
  without["bad_words"] = {text.substr(begin, end - begin)};
  EXPECT_NE(complete(without)["choices"][0]["text"], text);
  EXPECT_EQ(post(kCompletions, {{"prompt", "a"}, {"bad_words", {""}}}).status, 400);
}

TEST_F(RequestFields, WhatIsNotSupportedIsRefusedByName) {
  const std::pair<const char*, json> fields[] = {{"use_beam_search", true},
                                                 {"include_stop_str_in_output", true},
                                                 {"guided_json", json::object()},
                                                 {"guided_regex", "a+"},
                                                 {"grammar", "root ::= \"a\""},
                                                 {"structured_outputs", {{"regex", "a"}}},
                                                 {"response_format", {{"type", "json_object"}}},
                                                 {"length_penalty", 2},
                                                 {"mirostat", 2},
                                                 {"best_of", 7},
                                                 {"suffix", "end"}};
  for (const auto& [field, value] : fields) {
    const ClientResponse response =
        post(kCompletions, {{"prompt", "a"}, {"max_tokens", 1}, {field, value}});
    EXPECT_EQ(response.status, 400) << field;
    EXPECT_EQ(response.json()["error"]["param"], field);
    EXPECT_EQ(response.json()["error"]["code"], "unsupported_parameter") << field;
  }
  const json harmless = {{"prompt", "a"},       {"max_tokens", 1},      {"presence_penalty", 0},
                         {"grammar", ""},       {"bad_words", nullptr}, {"use_beam_search", false},
                         {"unknown_field", 17}, {"tool_choice", "none"}};
  EXPECT_EQ(post(kCompletions, harmless).status, 200);
}

TEST_F(RequestFields, ScoringIsExactUnlessTheRequestSaysOtherwise) {
  const json scored = {{"prompt", kPrompt}, {"max_tokens", 1}, {"echo", true}, {"logprobs", 1}};
  json exact = scored;
  exact["prefill"] = "exact";
  const json answer = complete(scored);
  EXPECT_EQ(answer["timings"]["prefill"], "exact");
  EXPECT_EQ(answer["choices"], complete(exact)["choices"]);
  json forecast = scored;
  forecast["prefill"] = "kv-prediction";
  EXPECT_EQ(post(kCompletions, forecast).status, 400);
}

/// The characters of valid UTF-8.
std::vector<std::string> characters(const std::string& text) {
  std::vector<std::string> all;
  for (const char byte : text) {
    if ((static_cast<unsigned char>(byte) & 0xC0) != 0x80) all.emplace_back();
    all.back() += byte;
  }
  return all;
}

TEST_F(RequestFields, TextOffsetsAreThePlacesOfTheTokensInTheText) {
  for (const std::string prompt :
       {"日本語の文章、猫。", "The cache naïve", "a 日b", " two spaces"}) {
    json body = {{"prompt", prompt}, {"max_tokens", 24},   {"echo", true},      {"logprobs", 0},
                 {"temperature", 0}, {"prefill", "exact"}, {"ignore_eos", true}};
    const json whole = complete(body)["choices"][0];
    const std::vector<std::string> text = characters(whole["text"]);
    const json& logprobs = whole["logprobs"];
    ASSERT_EQ(logprobs["tokens"].size(), logprobs["text_offset"].size());
    int64_t last = 0;
    for (size_t i = 0; i < logprobs["tokens"].size(); ++i) {
      const std::string token = logprobs["tokens"][i];
      const int64_t offset = logprobs["text_offset"][i];
      ASSERT_GE(offset, last) << prompt << " " << i;
      last = offset;
      if (token.starts_with("bytes:") || token.starts_with("<")) continue;
      std::string rest;
      for (size_t c = static_cast<size_t>(offset); c < text.size(); ++c) rest += text[c];
      // The space that the tokenizer puts before a text is in its first token alone.
      const bool first_word = offset == 0 && token.starts_with(' ');
      EXPECT_TRUE(rest.starts_with(token) || (first_word && rest.starts_with(token.substr(1))))
          << prompt << ": token " << i << " \"" << token << "\" at " << offset << " of " << rest;
    }
    body["stream"] = true;
    json offsets = json::array();
    for (const json& event : Events(post(kCompletions, body).body).data) {
      const json& piece = event["choices"][0]["logprobs"];
      if (piece.is_null()) continue;
      for (const json& offset : piece["text_offset"]) offsets.push_back(offset);
    }
    EXPECT_EQ(offsets, logprobs["text_offset"]) << prompt;
  }
}

TEST(TextOffsets, CountCharactersOfTokensThatAreParts) {
  TextOffsets offsets("日本 x", true);
  EXPECT_EQ(offsets.place(""), 0);  // BOS
  EXPECT_EQ(offsets.place(" \xE6"), 0);
  EXPECT_EQ(offsets.place("\x97"), 0);
  EXPECT_EQ(offsets.place("\xA5"), 0);
  EXPECT_EQ(offsets.place("本"), 1);
  EXPECT_EQ(offsets.place(" x"), 2);
  offsets.end_known_text();
  EXPECT_EQ(offsets.place("\xFF"), 4);  // shown as one character
  EXPECT_EQ(offsets.place("\xE6"), 5);
  EXPECT_EQ(offsets.place("a"), 6);  // the byte before has become a character of its own
  EXPECT_EQ(offsets.place("b"), 7);
}

TEST_F(RequestFields, ResponsesSayWhatChatSays) {
  const json chat = complete({{"messages",
                               {{{"role", "system"}, {"content", "Be brief."}},
                                {{"role", "user"}, {"content", "She said that"}}}},
                              {"max_tokens", 12},
                              {"ignore_eos", true}},
                             kChat);
  const json body = {{"instructions", "Be brief."},
                     {"input", "She said that"},
                     {"max_output_tokens", 12},
                     {"temperature", 0},
                     {"ignore_eos", true}};
  const json response = complete(body, "/v1/responses");
  EXPECT_EQ(response["object"], "response");
  EXPECT_EQ(response["status"], "incomplete");
  EXPECT_EQ(response["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(response["output"][0]["content"][0]["text"], chat["choices"][0]["message"]["content"]);
  EXPECT_EQ(response["usage"]["output_tokens"], 12);

  json streamed = body;
  streamed["input"] = {
      {{"role", "user"}, {"content", {{{"type", "input_text"}, {"text", "She said that"}}}}}};
  streamed["stream"] = true;
  const std::string events = post("/v1/responses", streamed).body;
  std::string text;
  std::vector<std::string> types;
  for (size_t at = events.find("data: "); at != std::string::npos;
       at = events.find("data: ", at + 1)) {
    const json event = json::parse(events.substr(at + 6, events.find('\n', at) - at - 6));
    EXPECT_EQ(event["sequence_number"], types.size());
    types.push_back(event["type"].get<std::string>());
    if (event["type"] == "response.output_text.delta") text += event["delta"];
    EXPECT_THAT(events, HasSubstr("event: " + types.back() + "\n"));
  }
  EXPECT_EQ(types.front(), "response.created");
  EXPECT_EQ(types.back(), "response.incomplete");
  EXPECT_EQ(chat["choices"][0]["message"]["content"], text);
  EXPECT_EQ(post("/v1/responses", {{"input", "a"}, {"previous_response_id", "resp_1"}}).status,
            400);
}

TEST_F(RequestFields, PropsDescribeTheServer) {
  const json props = HttpClient(server_->port()).get("/props").json();
  EXPECT_EQ(props["default_generation_settings"]["n_ctx"], 256);
  EXPECT_EQ(props["model_alias"], "tiny");
  EXPECT_TRUE(props["chat_template"].is_null());
  EXPECT_EQ(props["prefill"]["default"], "kv-prediction");
}

TEST(BrokenTemplate, OnlyWhatItRefusesIsTheClients) {
  const auto file = tiny_bundle().path() / "base/chat_template.jinja";
  std::ofstream(file) << "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
                         "{% endif %}{{ messages[0].content.no_such_method() }}";
  {
    RunningServer server;
    const auto status = [&](const char* role) {
      const json message = {{"role", role}, {"content", "a"}};
      return HttpClient(server.port())
          .post(kChat, json{{"messages", json::array({message})}, {"max_tokens", 1}})
          .status;
    };
    EXPECT_EQ(status("system"), 400);
    EXPECT_EQ(status("user"), 500);
  }
  std::filesystem::remove(file);
}

TEST(BrokenTemplate, StopsChatAndNothingElse) {
  const auto file = tiny_bundle().path() / "base/chat_template.jinja";
  std::ofstream(file) << "{% for m in %}";
  {
    RunningServer server;
    EXPECT_EQ(HttpClient(server.port())
                  .post(kCompletions, json{{"prompt", "a"}, {"max_tokens", 1}})
                  .status,
              200);
    const ClientResponse chat =
        HttpClient(server.port())
            .post(kChat, json{{"messages", {{{"role", "user"}, {"content", "a"}}}}});
    EXPECT_EQ(chat.status, 500);
    EXPECT_THAT(chat.body, HasSubstr("chat_template.jinja"));
    EXPECT_EQ(HttpClient(server.port()).get("/tokenizer_info").status, 200);
  }
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace kvcast
