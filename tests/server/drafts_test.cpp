// Drafts through the Session and the server: the same answers in fewer steps.
#include <gmock/gmock.h>

#include "kvcast/batch.h"
#include "kvcast/kvcast.h"
#include "server/server_fixture.h"

namespace kvcast {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const std::string kRepeating = "the old keeper of the old lighthouse, the old keeper of the old";

class ServerDrafts : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = std::make_unique<RunningServer>(); }
  static void TearDownTestSuite() { server_.reset(); }

  static json complete(json body, const json& drafts) {
    body.update({{"prompt", kRepeating}, {"drafts", drafts}, {"cache_prompt", false}});
    const ClientResponse response = HttpClient(server_->port()).post(kCompletions, body);
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

TEST_F(ServerDrafts, ChangeNothingOfAnAnswer) {
  const json greedy = {{"temperature", 0}, {"max_tokens", 80}, {"ignore_eos", true}};
  const auto with = [&](const json& more) {
    json body = greedy;
    body.update(more);
    return body;
  };
  const std::string text = complete(greedy, "off")["choices"][0]["text"];
  const std::vector<json> requests = {
      greedy,
      with({{"logprobs", 5}, {"echo", true}}),
      with({{"stop", text.substr(text.size() / 2, 3)}}),
      with({{"n", 3}, {"temperature", 0.8}, {"seed", 7}, {"logprobs", 2}}),
      with({{"frequency_penalty", 0.3}, {"presence_penalty", 0.2}, {"repetition_penalty", 1.1}}),
      with({{"logit_bias", {{"17", 3}, {"30", -4}}}, {"bad_words", {"a"}}}),
      with({{"prefill", "auxiliary"}}),
      with({{"prefill", "kv-prediction:tail=4"}}),
      with({{"prefill", "kv-prediction:mix=0.5"}, {"logprobs", 3}}),
      with({{"prefill", "kv-prediction:tail=4,mix=0.75"},
            {"n", 3},
            {"temperature", 0.8},
            {"seed", 7}}),
      with({{"prefill", "kv-prediction:mix=0.75"}, {"stop", "e"}}),
      with({{"prefill", "kv-prediction:refine=4"}, {"revise", true}}),
  };
  double drafted = 0;
  for (const json& request : requests) {
    const json plain = complete(request, "off");
    EXPECT_EQ(plain["timings"]["drafted_tokens"], 0);
    for (const json& drafts : {json(1), json(7), json("16"), json("auto")}) {
      const json answer = complete(request, drafts);
      EXPECT_EQ(answer["choices"], plain["choices"]) << request << ", drafts " << drafts;
      EXPECT_EQ(answer["usage"], plain["usage"]) << request << ", drafts " << drafts;
      EXPECT_GE(answer["timings"]["drafted_tokens"], answer["timings"]["accepted_tokens"]);
      drafted += answer["timings"]["drafted_tokens"].get<double>();
    }
  }
  EXPECT_GT(drafted, 0);
}

TEST_F(ServerDrafts, AStreamGetsEveryTokenAndMetricsCountThem) {
  RunningServer server;
  const json body = {{"prompt", kRepeating},
                     {"temperature", 0},
                     {"max_tokens", 60},
                     {"ignore_eos", true},
                     {"drafts", 8}};
  const json whole = HttpClient(server.port()).post(kCompletions, body).json();
  const json& timings = whole["timings"];
  ASSERT_GT(timings["accepted_tokens"], 0);
  EXPECT_EQ(timings["drafted_tokens"], server.metric("spec_decode_num_draft_tokens_total"));
  EXPECT_EQ(timings["accepted_tokens"], server.metric("spec_decode_num_accepted_tokens_total"));
  json streamed = body;
  streamed["stream"] = true;
  const Events events(HttpClient(server.port()).post(kCompletions, streamed).body);
  std::string text;
  for (const json& event : events.data) {
    for (const json& choice : event["choices"]) text += choice["text"];
  }
  EXPECT_EQ(whole["choices"][0]["text"], text);
  EXPECT_EQ(server.metric("generation_tokens_total"), 120);
}

TEST_F(ServerDrafts, APrefixThatADraftedAnswerLeavesIsExact) {
  // The first answer ends in the middle of a step; what it leaves serves the next prompt.
  RunningServer server;
  HttpClient client(server.port());
  for (const int64_t first : {31, 32, 33, 34, 35}) {
    const auto ask = [&](const std::string& prompt, int64_t tokens) {
      return client
          .post(kCompletions, json{{"prompt", prompt},
                                   {"temperature", 0},
                                   {"max_tokens", tokens},
                                   {"ignore_eos", true},
                                   {"prefill", "exact"},
                                   {"drafts", 12}})
          .json();
    };
    const std::string begun =
        kRepeating + ask(kRepeating, first)["choices"][0]["text"].get<std::string>();
    json plain = {{"prompt", begun},      {"temperature", 0},   {"max_tokens", 40},
                  {"ignore_eos", true},   {"prefill", "exact"}, {"drafts", "off"},
                  {"cache_prompt", false}};
    EXPECT_EQ(ask(begun, 40)["choices"], client.post(kCompletions, plain).json()["choices"])
        << first;
  }
}

TEST_F(ServerDrafts, AWrongFieldIsRefusedByName) {
  for (const json& wrong : {json(0), json(65), json(-1), json("on"), json(true), json(2.5)}) {
    const ClientResponse response =
        HttpClient(server_->port())
            .post(kCompletions, json{{"prompt", kRepeating}, {"drafts", wrong}});
    EXPECT_EQ(response.status, 400) << wrong;
    EXPECT_THAT(response.body, HasSubstr("drafts: expected"));
  }
}

TEST_F(ServerDrafts, TheServersDefaultIsForRequestsThatSayNothing) {
  ServerOptions options;
  options.scheduler.default_drafts = 0;
  RunningServer server(std::move(options));
  json body = {
      {"prompt", kRepeating}, {"temperature", 0}, {"max_tokens", 60}, {"ignore_eos", true}};
  const auto drafted = [&] {
    return HttpClient(server.port()).post(kCompletions, body).json()["timings"]["drafted_tokens"];
  };
  EXPECT_EQ(drafted(), 0);
  body["drafts"] = 4;
  EXPECT_GT(drafted(), 0);
}

GenerateOptions options_with(int64_t drafts) {
  GenerateOptions options;
  options.prefill = "exact";
  options.max_tokens = 60;
  options.ignore_end_of_text = true;
  options.drafts = drafts;
  return options;
}

TEST_F(ServerDrafts, ASessionsTurnsAreThoseWithoutDrafts) {
  Session plain(model()), drafted(model());
  int64_t accepted = 0;
  for (const std::string& turn :
       {kRepeating, std::string(" and the old keeper"), std::string(" of")}) {
    const auto expected = plain.generate(turn, options_with(0));
    std::string streamed;
    const auto answer = drafted.generate(turn, options_with(9), [&](std::string_view piece) {
      streamed += piece;
      return true;
    });
    ASSERT_TRUE(expected && answer);
    EXPECT_EQ(answer->tokens, expected->tokens);
    EXPECT_EQ(answer->text, expected->text);
    EXPECT_EQ(streamed, expected->text);
    EXPECT_EQ(answer->timings.decode_tokens, expected->timings.decode_tokens);
    EXPECT_EQ(drafted.tokens(), plain.tokens());
    EXPECT_EQ(expected->timings.drafted_tokens, 0);
    accepted += answer->timings.accepted_tokens;
  }
  EXPECT_GT(accepted, 0);
}

TEST_F(ServerDrafts, AnAnswerThatIsStoppedGoesOnAsOneWithoutDrafts) {
  for (const size_t pieces : {1, 2, 3, 5, 8}) {
    Session session(model());
    auto stream = *session.start(kRepeating, options_with(16));
    for (size_t i = 0; i < pieces; ++i) ASSERT_TRUE(stream.next());
    stream.end();
    const std::vector<int32_t> so_far = session.tokens();
    const auto goes_on = session.generate(" the", options_with(0));
    Session fresh(model());
    std::vector<int32_t> all = so_far;
    const auto next = *model()->tokenize(" the", false);
    all.insert(all.end(), next.begin(), next.end());
    const auto expected = fresh.generate(all, options_with(0));
    ASSERT_TRUE(goes_on && expected);
    EXPECT_EQ(goes_on->tokens, expected->tokens) << "after " << pieces << " pieces";
  }
}

TEST_F(ServerDrafts, ACancelledAnswerKeepsWhatWasWritten) {
  Session session(model());
  std::stop_source stop;
  GenerateOptions options = options_with(16);
  options.cancel = stop.get_token();
  size_t pieces = 0;
  const auto answer = session.generate(kRepeating, options, [&](std::string_view) {
    if (++pieces == 3) stop.request_stop();
    return true;
  });
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->finish_reason, FinishReason::kCancelled);
  const auto whole = Session(model()).generate(kRepeating, options_with(0));
  ASSERT_TRUE(whole);
  ASSERT_LT(answer->tokens.size(), whole->tokens.size());
  EXPECT_TRUE(std::equal(answer->tokens.begin(), answer->tokens.end(), whole->tokens.begin()));
}

TEST_F(ServerDrafts, ABatchIsTheSame) {
  const auto batch = *Batch::create(model(), {});
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& text :
       {kRepeating, kRepeating + " keeper", std::string("the the the the")}) {
    prompts.push_back(*model()->tokenize(text, true));
  }
  const auto expected = batch->generate(prompts, options_with(0));
  const auto answers = batch->generate(prompts, options_with(6));
  ASSERT_TRUE(expected && answers);
  int64_t accepted = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ((*answers)[i].tokens, (*expected)[i].tokens);
    accepted += (*answers)[i].timings.accepted_tokens;
  }
  EXPECT_GT(accepted, 0);
}

TEST_F(ServerDrafts, ANumberThatIsNoneIsAnError) {
  Session session(model());
  const auto answer = session.generate(kRepeating, options_with(kMostDrafts + 1));
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().message, HasSubstr("drafts: 65"));
  EXPECT_TRUE(session.tokens().empty());
}

}  // namespace
}  // namespace kvcast
