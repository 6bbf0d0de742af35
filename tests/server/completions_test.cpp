// What clients of /v1/completions and /v1/chat/completions rely on.
#include <gmock/gmock.h>

#include "kvcast/kvcast.h"
#include "server/server_fixture.h"

namespace kvcast {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class CompletionsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = std::make_unique<RunningServer>(); }
  static void TearDownTestSuite() { server_.reset(); }

  static json complete(json body, const char* path = kCompletions) {
    if (!body.contains("temperature")) body["temperature"] = 0;
    const ClientResponse response = HttpClient(server_->port()).post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    return response.json();
  }
  static std::shared_ptr<const Model> model() {
    static const auto loaded = [] {
      LoadOptions options;
      options.threads = 2;
      return *Model::load(tiny_bundle().path(), options);
    }();
    return loaded;
  }
  static inline std::unique_ptr<RunningServer> server_;
};

TEST_F(CompletionsTest, AnswersAreThoseOfASession) {
  for (const std::string prefill :
       {"exact", "kv-prediction", "kv-prediction:tail=4", "auxiliary"}) {
    Session session(model());
    GenerateOptions options;
    options.prefill = prefill;
    options.max_tokens = 20;
    const auto expected = session.generate(kPrompt, options);
    ASSERT_TRUE(expected);
    const json answer = complete({{"prompt", kPrompt}, {"max_tokens", 20}, {"prefill", prefill}});
    EXPECT_EQ(answer["choices"][0]["text"], expected->text) << prefill;
    EXPECT_EQ(answer["timings"]["prefill"], prefill);
    EXPECT_EQ(answer["timings"]["prompt_tokens"], expected->timings.prompt_tokens);
    EXPECT_EQ(answer["object"], "text_completion");
    EXPECT_EQ(answer["usage"]["completion_tokens"], 20);
  }
}

TEST_F(CompletionsTest, AStreamSaysTheSameInPieces) {
  const json body = {{"prompt", kPrompt}, {"max_tokens", 24}, {"ignore_eos", true}};
  const std::string expected = complete(body)["choices"][0]["text"];
  json streamed = body;
  streamed.update({{"stream", true},
                   {"temperature", 0},
                   {"return_progress", true},
                   {"stream_options", {{"include_usage", true}}}});
  const ClientResponse response = HttpClient(server_->port()).post(kCompletions, streamed);
  EXPECT_THAT(response.head, HasSubstr("text/event-stream"));
  const Events events(response.body);
  EXPECT_TRUE(events.done);
  std::string text, finish_reason;
  bool progress = false, usage = false, timings = false;
  for (const json& event : events.data) {
    progress = progress || event.contains("prompt_progress");
    usage = usage || event.contains("usage");
    timings = timings || event.contains("timings");
    for (const json& choice : event["choices"]) {
      text += choice["text"];
      if (choice["finish_reason"].is_string()) finish_reason = choice["finish_reason"];
    }
  }
  EXPECT_EQ(text, expected);
  EXPECT_EQ(finish_reason, "length");
  EXPECT_TRUE(progress && usage && timings);
}

TEST_F(CompletionsTest, ChatStreamsDeltas) {
  const json messages = {{{"role", "user"}, {"content", "She said that"}}};
  const json whole = complete({{"messages", messages}, {"max_tokens", 12}}, kChat);
  EXPECT_EQ(whole["object"], "chat.completion");
  EXPECT_EQ(whole["choices"][0]["message"]["role"], "assistant");
  const ClientResponse response = HttpClient(server_->port())
                                      .post(kChat, json{{"messages", messages},
                                                        {"max_tokens", 12},
                                                        {"temperature", 0},
                                                        {"stream", true}});
  const Events events(response.body);
  std::string text;
  for (const json& event : events.data) {
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    text += event["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(events.data.front()["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(whole["choices"][0]["message"]["content"], text);
  EXPECT_TRUE(events.done);
}

TEST_F(CompletionsTest, ADeveloperMessageIsASystemMessage) {
  const auto tokens_with = [](const char* role) {
    const json messages = {{{"role", role}, {"content", "Be brief."}},
                           {{"role", "user"}, {"content", "She said that"}}};
    return HttpClient(server_->port()).post("/tokenize", json{{"messages", messages}}).json();
  };
  EXPECT_GT(tokens_with("system")["count"], 5);
  EXPECT_EQ(tokens_with("developer"), tokens_with("system"));
}

// The shape that LM Evaluation Harness's local-completions reads.
TEST_F(CompletionsTest, ScoringGivesPromptPlusOneEntries) {
  const json tokens = (*model()->tokenize(kPrompt));
  for (const int max_tokens : {0, 1}) {
    const json answer = complete({{"prompt", tokens},
                                  {"max_tokens", max_tokens},
                                  {"echo", true},
                                  {"logprobs", 1},
                                  {"prefill", "exact"}});
    const json& logprobs = answer["choices"][0]["logprobs"];
    for (const auto* field : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
      EXPECT_EQ(logprobs[field].size(), tokens.size() + static_cast<size_t>(max_tokens)) << field;
    }
    EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
    EXPECT_THAT(answer["choices"][0]["text"].get<std::string>(), ::testing::StartsWith(kPrompt));
  }
}

TEST_F(CompletionsTest, GreedyTokensAreTheMostProbableToTheLastBit) {
  json tokens = *model()->tokenize(kPrompt);
  const size_t context = tokens.size();
  for (const std::string prefill : {"exact", "kv-prediction", "kv-prediction:tail=4"}) {
    // Greedy tokens, found by asking for one more each time.
    json scored = tokens;
    json expected = json::array();
    for (int i = 0; i < 5; ++i) {
      // Scoring with the context's end keeps the cache that generation has.
      const json answer = complete({{"prompt", scored},
                                    {"max_tokens", 1},
                                    {"echo", true},
                                    {"logprobs", 1},
                                    {"prefill", prefill},
                                    {"context_length", context}});
      const json& logprobs = answer["choices"][0]["logprobs"];
      for (size_t t = context; t < scored.size(); ++t) {
        EXPECT_EQ(logprobs["token_logprobs"][t], *logprobs["top_logprobs"][t].begin())
            << prefill << " " << t;
      }
      EXPECT_TRUE(logprobs["token_logprobs"][context - 1].is_null());
      const std::string name = logprobs["tokens"].back();
      expected.push_back(logprobs["token_logprobs"].back());
      for (int32_t id = 0; id < 400; ++id) {
        const json one =
            HttpClient(server_->port()).post("/detokenize", json{{"tokens", {id}}}).json();
        if (one["prompt"] == name.substr(name.starts_with(' ') ? 1 : 0) && id > 258) {
          scored.push_back(id);
          break;
        }
      }
      if (scored.size() != context + static_cast<size_t>(i) + 1) break;  // a byte or control token
    }
    const json generated = complete({{"prompt", tokens},
                                     {"max_tokens", expected.size()},
                                     {"logprobs", 0},
                                     {"prefill", prefill},
                                     {"ignore_eos", true}});
    const json& actual = generated["choices"][0]["logprobs"]["token_logprobs"];
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(actual[i].get<double>(), expected[i].get<double>(), 1e-4) << prefill << " " << i;
    }
  }
}

TEST_F(CompletionsTest, ScoringUnderPredictionNeedsToKnowWhereTheContextEnds) {
  const ClientResponse response = HttpClient(server_->port())
                                      .post(kCompletions, json{{"prompt", kPrompt},
                                                               {"max_tokens", 1},
                                                               {"echo", true},
                                                               {"logprobs", 1},
                                                               {"prefill", "kv-prediction"}});
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("context_length"));
}

TEST_F(CompletionsTest, SeveralPromptsAndChoicesAreIndexed) {
  const json answer = complete({{"prompt", {"The cache", "She said that the weather"}},
                                {"max_tokens", 6},
                                {"n", 3},
                                {"temperature", 1.0},
                                {"seed", 7}});
  ASSERT_EQ(answer["choices"].size(), 6U);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(answer["choices"][i]["index"], i);
  const json again = complete({{"prompt", {"The cache", "She said that the weather"}},
                               {"max_tokens", 6},
                               {"n", 3},
                               {"temperature", 1.0},
                               {"seed", 7}});
  EXPECT_EQ(answer["choices"], again["choices"]);
  const json greedy = complete({{"prompt", "The cache"}, {"max_tokens", 6}, {"n", 2}});
  EXPECT_EQ(greedy["choices"][0]["text"], greedy["choices"][1]["text"]);
}

TEST_F(CompletionsTest, StopStringsEndTheAnswer) {
  const std::string text = complete(
      {{"prompt", kPrompt}, {"max_tokens", 24}, {"ignore_eos", true}})["choices"][0]["text"];
  ASSERT_GT(text.size(), 8U);
  const std::string stop = text.substr(4, 3);
  const json answer = complete(
      {{"prompt", kPrompt}, {"max_tokens", 24}, {"ignore_eos", true}, {"stop", {"", stop}}});
  EXPECT_EQ(answer["choices"][0]["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
}

TEST_F(CompletionsTest, ReusedPrefixesDoNotChangeAnswersNorMixFamilies) {
  const std::string prompt =
      "Reuse: Keys and values of every layer are forecast by one linear map.";
  std::map<std::string, std::string> first;
  for (const int round : {0, 1}) {
    for (const std::string prefill : {"exact", "kv-prediction", "auxiliary"}) {
      const json answer = complete({{"prompt", prompt}, {"max_tokens", 10}, {"prefill", prefill}});
      const int64_t cached = answer["timings"]["cached_tokens"];
      const int64_t prompt_tokens = answer["timings"]["prompt_tokens"];
      if (round == 0) {
        EXPECT_LT(cached, prompt_tokens / 2) << prefill;  // nothing of another family
        first[prefill] = answer["choices"][0]["text"];
      } else {
        EXPECT_EQ(cached, prompt_tokens - 1) << prefill;
        EXPECT_EQ(answer["choices"][0]["text"], first[prefill]) << prefill;
      }
    }
  }
}

TEST_F(CompletionsTest, BatchedAnswersEqualOneByOneAnswers) {
  std::vector<json> bodies;
  const std::vector<std::string> specs = {"exact", "kv-prediction", "auxiliary",
                                          "kv-prediction:tail=5"};
  for (int i = 0; i < 24; ++i) {
    std::string prompt = "Number " + std::to_string(i) + ":";
    for (int repeat = 0; repeat < i % 5; ++repeat) prompt += " A prompt is read once;";
    bodies.push_back({{"prompt", prompt},
                      {"max_tokens", 10 + i},
                      {"ignore_eos", true},
                      {"prefill", specs[static_cast<size_t>(i) % 4]}});
  }
  std::vector<json> expected, actual(bodies.size());
  for (const json& body : bodies) expected.push_back(complete(body));
  std::vector<std::thread> clients;
  for (size_t i = 0; i < bodies.size(); ++i) {
    clients.emplace_back([&, i] { actual[i] = complete(bodies[i]); });
  }
  for (std::thread& client : clients) client.join();
  for (size_t i = 0; i < bodies.size(); ++i) {
    EXPECT_EQ(actual[i]["choices"][0]["text"], expected[i]["choices"][0]["text"]) << bodies[i];
  }
}

TEST_F(CompletionsTest, ALongPromptIsRefusedWithBothNumbers) {
  std::string prompt;
  for (int i = 0; i < 300; ++i) prompt += " cache";
  const ClientResponse response =
      HttpClient(server_->port()).post(kCompletions, json{{"prompt", prompt}});
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json()["error"]["code"], "context_length_exceeded");
  EXPECT_THAT(response.body, HasSubstr("256"));
}

TEST_F(CompletionsTest, EveryStrategyThatTheModelOffersAnswersAndIsNamedInTheTimings) {
  const json model = HttpClient(server_->port()).get("/v1/models/tiny").json();
  ASSERT_GE(model["prefill"]["available"].size(), 4U);
  for (const std::string spec : model["prefill"]["available"]) {
    const json answer =
        complete({{"prompt", kPrompt}, {"max_tokens", 4}, {"prefill", spec}, {"ignore_eos", true}});
    EXPECT_EQ(answer["timings"]["prefill"], spec);
    EXPECT_EQ(answer["usage"]["completion_tokens"], 4) << spec;
    const json scored = complete({{"prompt", kPrompt},
                                  {"max_tokens", 1},
                                  {"echo", true},
                                  {"logprobs", 1},
                                  {"context_length", 5},
                                  {"prefill", spec}});
    const json& logprobs = scored["choices"][0]["logprobs"]["token_logprobs"];
    const size_t tokens = scored["usage"]["prompt_tokens"];
    ASSERT_EQ(logprobs.size(), tokens + 1) << spec;
    EXPECT_TRUE(logprobs[4].is_null() && logprobs[5].is_number()) << spec << logprobs;
  }
}

TEST_F(CompletionsTest, MetricsCountFromTheFirstTokenOn) {
  RunningServer server;
  HttpClient client(server.port());
  client.send(HttpClient::post_text(kCompletions, json{{"prompt", kPrompt},
                                                       {"max_tokens", 200},
                                                       {"ignore_eos", true},
                                                       {"n", 8},
                                                       {"stream", true}}
                                                      .dump()));
  while (client.buffer().find("data: ") == std::string::npos) ASSERT_TRUE(client.read_some());
  EXPECT_EQ(server.metric("time_to_first_token_seconds_count"), 1);
  EXPECT_GT(server.metric("generation_tokens_total"), 0);
  client.read_response();
  EXPECT_EQ(server.metric("generation_tokens_total"), 8 * 200);
  EXPECT_EQ(server.metric("inter_token_latency_seconds_count"), 8 * 199);
  for (const auto* name :
       {"e2e_request_latency_seconds_count", "request_queue_time_seconds_count",
        "request_prefill_time_seconds_count", "request_decode_time_seconds_count"}) {
    EXPECT_EQ(server.metric(name), 1) << name;
  }
  for (const auto* name : {"num_requests_running", "num_requests_waiting",
                           "requests_cancelled_total", "predicted_tokens_total"}) {
    EXPECT_GE(server.metric(name), 0) << name;
  }
  EXPECT_GT(server.metric("prompt_tokens_total"), 0);
}

TEST_F(CompletionsTest, MetricsCountAnswersThatWereExactFromTheirFirstToken) {
  RunningServer server;
  json body = {{"prompt", kPrompt}, {"max_tokens", 2}, {"ignore_eos", true}};
  for (const char* prefill : {"exact", "kv-prediction:refine=8"}) {
    body["prefill"] = prefill;
    EXPECT_EQ(HttpClient(server.port()).post(kCompletions, body).status, 200);
  }
  EXPECT_EQ(server.metric("exact_after_tokens_count"), 1);
  EXPECT_EQ(server.metric("exact_after_tokens_sum"), 0);
}

TEST_F(CompletionsTest, TokenizerRoutesRoundTrip) {
  HttpClient client(server_->port());
  const json tokens =
      client.post("/tokenize", json{{"prompt", kPrompt}, {"add_special_tokens", false}}).json();
  EXPECT_EQ(tokens["count"], tokens["tokens"].size());
  EXPECT_EQ(client.post("/detokenize", json{{"tokens", tokens["tokens"]}}).json()["prompt"],
            kPrompt);
  const json info = client.get("/tokenizer_info").json();
  EXPECT_EQ(info["eos_token"], "</s>");
  const json eos = client.post("/tokenize", json{{"prompt", "</s>"}}).json();
  EXPECT_EQ(eos["tokens"], json::array({2}));
  EXPECT_EQ(client.get("/v1/models").json()["data"][0]["id"], "tiny");
  EXPECT_EQ(client.get("/v1/models/tiny").status, 200);
  EXPECT_EQ(client.get("/v1/models/other").status, 404);
}

}  // namespace
}  // namespace kvcast
