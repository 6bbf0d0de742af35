// The public API beyond Session::generate: answers that are pulled, batches, scores, chat.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kvcast/kvcast.h"
#include "server/tiny_bundle.h"
#include "server/tool_templates.h"

namespace kvcast {
namespace {

using testing::HasSubstr;

class Api : public testing::Test {
 protected:
  void SetUp() override {
    auto loaded = Model::load(bundle_.path(), {.dtype = Dtype::kF32, .threads = 2});
    ASSERT_TRUE(loaded) << loaded.error().message;
    model_ = *loaded;
  }

  std::vector<int32_t> tokens(const std::string& text) const { return *model_->tokenize(text); }
  static GenerateOptions options(int64_t max_tokens = 12) {
    return {.max_tokens = max_tokens, .ignore_end_of_text = true};
  }

  TinyBundle bundle_;
  std::shared_ptr<const Model> model_;
};

TEST_F(Api, CachesOf8BitsAnswerAlikeWholeInTurnsAndInBatches) {
  const auto model = Model::load(bundle_.path(), {.dtype = Dtype::kF32, .kv_dtype = Dtype::kInt8});
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ((*model)->kv_dtype(), Dtype::kInt8);
  for (const char* prefill : {"exact", "kv-prediction:tail=2"}) {
    GenerateOptions asked = options();
    asked.prefill = prefill;
    Session alone(*model), pulled(*model);
    const auto answer = alone.generate("a river and", asked);
    ASSERT_TRUE(answer) << answer.error().message;
    auto stream = pulled.start("a river and", asked);
    ASSERT_TRUE(stream) << stream.error().message;
    std::string text;
    for (auto piece = stream->next(); *piece; piece = stream->next()) text += **piece;
    EXPECT_EQ(text, answer->text) << prefill;
  }
  EXPECT_EQ(model_->kv_dtype(), Dtype::kF32);
}

TEST(KvDtype, IsOneOfThoseThatCachesCanHold) {
  for (const char* name : {"auto", "f32", "bf16", "int8"}) {
    EXPECT_EQ(dtype_text(*parse_kv_dtype(name)), name);
  }
  for (const char* name : {"int4", "int8-blocks", "INT8", ""}) {
    const auto parsed = parse_kv_dtype(name);
    ASSERT_FALSE(parsed) << name;
    EXPECT_THAT(parsed.error().message, HasSubstr("expected auto, f32, bf16 or int8"));
  }
}

TEST_F(Api, AnAnswersCacheIsThereBeforeItsFirstToken) {
  for (const char* prefill : {"exact", "kv-prediction:tail=2"}) {
    Session session(model_);
    GenerateOptions asked = options(200);
    asked.prefill = prefill;
    auto stream = session.start("a river and", asked);
    ASSERT_TRUE(stream) << stream.error().message;
    ASSERT_TRUE(stream->next());
    const int64_t bytes = session.cache_bytes();
    while (*stream->next()) EXPECT_EQ(session.cache_bytes(), bytes) << prefill;
    EXPECT_EQ(stream->completion().tokens.size(), 200);
  }
}

TEST_F(Api, PulledPiecesAreTheAnswerThatIsPushed) {
  Session pushed(model_), pulled(model_);
  const auto answer = pushed.generate("a river and", options());
  ASSERT_TRUE(answer) << answer.error().message;
  auto one_by_one = options();
  one_by_one.drafts = 0;
  auto stream = pulled.start("a river and", one_by_one);
  ASSERT_TRUE(stream) << stream.error().message;
  std::string text;
  int64_t steps = 0;
  for (auto piece = stream->next(); *piece; piece = stream->next(), ++steps) text += **piece;
  EXPECT_EQ(steps, 12);
  EXPECT_EQ(text, answer->text);
  EXPECT_EQ(stream->completion().tokens, answer->tokens);
  EXPECT_EQ(stream->completion().timings.decode_tokens, 11);
  EXPECT_EQ(pulled.tokens(), pushed.tokens());
  EXPECT_FALSE(*stream->next()) << "over stays over";
}

TEST_F(Api, AnAnswerThatIsEndedStaysInTheConversation) {
  Session session(model_);
  auto one_by_one = options();
  one_by_one.drafts = 0;
  auto stream = session.start("a river and", one_by_one);
  ASSERT_TRUE(*stream->next());
  ASSERT_TRUE(*stream->next());
  stream->end();
  EXPECT_EQ(stream->completion().finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(session.tokens().size(), tokens("a river and").size() + 2);
  const auto next = session.generate(tokens("so"), options());
  ASSERT_TRUE(next) << next.error().message;
}

TEST_F(Api, AnAnswerThatNeverBeganLeavesNothing) {
  Session session(model_);
  { const auto stream = session.start("a river", options()); }
  EXPECT_TRUE(session.tokens().empty());
  std::stop_source stop;
  auto asked = options();
  asked.cancel = stop.get_token();
  stop.request_stop();
  auto stream = session.start("a river", asked);
  EXPECT_FALSE(*stream->next());
  EXPECT_EQ(stream->completion().finish_reason, FinishReason::kCancelled);
  EXPECT_TRUE(session.tokens().empty());
}

TEST_F(Api, AStreamEndsWithTheNextOneAndOutlivesItsSession) {
  auto session = std::make_unique<Session>(model_);
  auto first = session->start("a river", options());
  ASSERT_TRUE(*first->next());
  auto second = session->start(tokens("and"), options());
  EXPECT_FALSE(*first->next());
  EXPECT_EQ(first->completion().finish_reason, FinishReason::kCancelled);
  session.reset();
  EXPECT_TRUE(*second->next());
}

TEST_F(Api, BatchesAnswerAsSessionsDo) {
  const auto batch = Batch::create(model_);
  ASSERT_TRUE(batch) << batch.error().message;
  const std::vector<std::vector<int32_t>> prompts = {tokens("a river and"), tokens("the city"),
                                                     tokens("one, two, three, four")};
  for (const std::string prefill : {"exact", "kv-prediction", "kv-prediction:tail=2",
                                    "kv-prediction:tail=2,mix=0.5", "auxiliary"}) {
    auto asked = options(6);
    asked.prefill = prefill;
    const auto answers = (*batch)->generate(prompts, asked);
    ASSERT_TRUE(answers) << answers.error().message;
    for (size_t i = 0; i < prompts.size(); ++i) {
      Session session(model_);
      const auto alone = session.generate(prompts[i], asked);
      EXPECT_EQ((*answers)[i].tokens, alone->tokens) << prefill << " " << i;
      EXPECT_EQ((*answers)[i].text, alone->text) << prefill << " " << i;
      EXPECT_EQ((*answers)[i].finish_reason, alone->finish_reason);
    }
  }
  EXPECT_TRUE((*batch)->generate({}, options())->empty());
}

TEST_F(Api, BatchesHoldMorePromptsThanAreDecodedTogether) {
  const auto batch = Batch::create(model_, {.max_batch = 2});
  const std::vector<std::vector<int32_t>> prompts(9, tokens("a river"));
  size_t heard = 0;
  const auto answers = (*batch)->generate(prompts, options(20), [&](size_t done) {
    EXPECT_GE(done, heard);
    heard = done;
    return true;
  });
  ASSERT_TRUE(answers) << answers.error().message;
  EXPECT_EQ(answers->size(), 9);
  for (const Completion& answer : *answers) EXPECT_EQ(answer.tokens, answers->front().tokens);
}

TEST_F(Api, BatchesStopWhereTheCallerWants) {
  const auto batch = Batch::create(model_, {.max_batch = 2});
  const std::vector<std::vector<int32_t>> prompts(500, tokens("a river"));
  const auto stopped = (*batch)->generate(prompts, options(200), [](size_t) { return false; });
  ASSERT_TRUE(stopped) << stopped.error().message;
  EXPECT_EQ(stopped->size(), 500);
  EXPECT_EQ(stopped->back().finish_reason, FinishReason::kCancelled);
  const auto wrong = (*batch)->generate(std::vector{tokens("a"), {}}, options());
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message, HasSubstr("prompt 1"));
}

TEST_F(Api, ScoresOfAllNextTokensSumToOne) {
  const auto batch = Batch::create(model_);
  std::vector<ScoreRequest> requests;
  for (int32_t token = 0; token < model_->vocab_size(); ++token) {
    requests.push_back({tokens("a river and the city"), {token}});
  }
  for (const char* prefill : {"exact", "kv-prediction"}) {
    const auto scores = (*batch)->score(requests, prefill);
    ASSERT_TRUE(scores) << scores.error().message;
    double sum = 0;
    int chosen = 0;
    for (const auto& score : *scores) {
      ASSERT_EQ(score.size(), 1);
      sum += std::exp(double{score[0].logprob});
      if (score[0].top.front().first == score[0].token) ++chosen;
    }
    EXPECT_NEAR(sum, 1, 1e-4) << prefill;
    EXPECT_EQ(chosen, 1) << prefill;
  }
  EXPECT_THAT((*batch)->score(std::vector<ScoreRequest>{{{}, {1}}}).error().message,
              HasSubstr("prompt 0"));
}

TEST_F(Api, AGreedyAnswerIsWhatScoringFindsMostProbable) {
  const auto batch = Batch::create(model_);
  const auto prompt = tokens("one, two,");
  for (const char* prefill : {"exact", "kv-prediction:tail=2", "kv-prediction:tail=2,mix=0.5"}) {
    auto asked = options(8);
    asked.prefill = prefill;
    Session session(model_);
    const auto answer = session.generate(prompt, asked);
    const auto scores =
        (*batch)->score(std::vector<ScoreRequest>{{prompt, answer->tokens}}, prefill);
    ASSERT_TRUE(scores) << scores.error().message;
    ASSERT_EQ(scores->front().size(), answer->tokens.size());
    for (size_t i = 0; i < answer->tokens.size(); ++i) {
      EXPECT_EQ(scores->front()[i].token, answer->tokens[i]);
      EXPECT_EQ(scores->front()[i].top.front().first, answer->tokens[i]) << prefill << " " << i;
    }
  }
}

TEST_F(Api, ChatWritesAConversationAsThePromptOfItsAnswer) {
  const auto format = ChatFormat::of(model_);
  ASSERT_TRUE(format) << format.error().message;
  const std::vector<ChatMessage> messages = {{"user", "one"}, {"assistant", "two"}, {"user", "a"}};
  const auto prompt = format->render(messages);
  ASSERT_TRUE(prompt) << prompt.error().message;
  EXPECT_THAT(prompt->text, HasSubstr("two"));
  EXPECT_GT(prompt->tokens.size(), 3);
  EXPECT_FALSE(format->stop_strings().empty());
  const auto without = Model::load(std::filesystem::path(bundle_.path()) / "auxiliary");
  ASSERT_TRUE(without) << without.error().message;
  EXPECT_FALSE(ChatFormat::of(*without));
}

/// The chat of a model with this template.
Result<ChatFormat> chat_with(const TinyBundle& bundle, const std::string& source) {
  std::ofstream(bundle.path() / "base/chat_template.jinja") << source;
  const auto model = Model::load(bundle.path(), {.dtype = Dtype::kF32});
  return ChatFormat::of(*model);
}

constexpr const char* kTools =
    R"([{"type": "function", "function": {"name": "look"}}, {"type": "function", "function": )"
    R"({"name": "go", "parameters": {"type": "object"}}}])";

TEST_F(Api, ChatOffersToolsAndReadsCallsThatItThenWritesInHistory) {
  for (const bool tagged : {true, false}) {
    const auto format = chat_with(bundle_, template_with_tools(tagged));
    ASSERT_TRUE(format) << format.error().message;
    const std::vector<ChatMessage> asked = {{"user", "Look."}};
    const ChatPromptOptions options = {.tools = kTools};
    EXPECT_THAT(format->render(asked, options)->text, HasSubstr("\"go\""));
    const std::string arguments = R"({"at": "the \"lamp\""})";
    const std::string written =
        tagged ? "<tool_call>\n{\"name\": \"go\", \"arguments\": " + arguments + "}\n</tool_call>"
               : "{\"name\": \"go\", \"parameters\": " + arguments + "}";
    const auto message = format->read_answer((tagged ? "I see. " : "") + written, options);
    ASSERT_TRUE(message) << message.error().message;
    EXPECT_EQ(message->content, tagged ? "I see." : "");
    const auto call = nlohmann::json::parse(message->more)["tool_calls"][0];
    EXPECT_EQ(call["function"]["name"], "go");
    EXPECT_EQ(call["function"]["arguments"], arguments) << "text, as OpenAI's API has it";
    // The template gets them as an object.
    const auto history = format->render(std::vector{asked[0], *message}, options);
    ASSERT_TRUE(history) << history.error().message;
    EXPECT_THAT(history->text, HasSubstr(R"(: {"at": "the \"lamp\""}})"));

    EXPECT_EQ(format->read_answer("Just text.", options)->content, "Just text.");
    EXPECT_TRUE(format->read_answer("Just text.", options)->more.empty());
    EXPECT_EQ(format->read_answer(written)->content, written) << "without tools it is text";
  }
}

TEST_F(Api, CallsHaveIdsOfNineLettersAndDigits) {
  const auto format = chat_with(bundle_, template_with_tools(true));
  ASSERT_TRUE(format) << format.error().message;
  for (int i = 0; i < 200; ++i) {
    const auto message =
        format->read_answer(R"(<tool_call>{"name": "go"}</tool_call>)", {.tools = kTools});
    ASSERT_TRUE(message) << message.error().message;
    const auto id = nlohmann::json::parse(message->more)["tool_calls"][0]["id"].get<std::string>();
    EXPECT_THAT(id, testing::MatchesRegex("[0-9A-Za-z]+"));
    EXPECT_EQ(id.size(), 9U);
  }
}

TEST_F(Api, AToolThatIsAskedForOpensTheAnswer) {
  const auto format = chat_with(bundle_, template_with_tools(true));
  ASSERT_TRUE(format) << format.error().message;
  const std::vector<ChatMessage> asked = {{"user", "Look."}};
  const ChatPromptOptions named = {.tools = kTools, .tool_choice = "go"};
  EXPECT_THAT(format->render(asked, named)->text,
              testing::EndsWith(R"({"name": "go", "arguments":)"));
  const auto message = format->read_answer(" {\"x\": 1}}\n</tool_call>", named);
  ASSERT_TRUE(message) << message.error().message;
  EXPECT_EQ(nlohmann::json::parse(message->more)["tool_calls"][0]["function"]["arguments"],
            R"({"x": 1})");
  const ChatPromptOptions any = {.tools = kTools, .tool_choice = "required"};
  EXPECT_THAT(format->render(asked, any)->text, testing::EndsWith(R"({"name": ")"));
  const ChatPromptOptions none = {.tools = kTools, .tool_choice = "none"};
  EXPECT_EQ(format->render(asked, none)->text, format->render(asked)->text);
}

TEST_F(Api, ToolsThatCannotBeOfferedAreRefusedWithALine) {
  const auto refusal = [](const ChatFormat& format, const ChatPromptOptions& options) {
    const auto rendered = format.render(std::vector<ChatMessage>{{"user", "Look."}}, options);
    const auto read = format.read_answer("Look.", options);
    EXPECT_FALSE(rendered);
    EXPECT_FALSE(read);
    return rendered ? "" : rendered.error().message;
  };
  const auto plain = ChatFormat::of(model_);
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_THAT(refusal(*plain, {.tools = kTools}), HasSubstr("no place for them"));
  const auto format = chat_with(bundle_, template_with_tools(true));
  ASSERT_TRUE(format) << format.error().message;
  EXPECT_THAT(refusal(*format, {.tools = "look"}), HasSubstr("tools"));
  EXPECT_THAT(refusal(*format, {.tools = R"({"type": "function"})"}), HasSubstr("a list"));
  for (const char* wrong :
       {R"([{"type": "function", "function": "look"}])", R"(["look"])", R"([{"type": "search"}])",
        R"([{"type": "function", "function": {"name": "no name"}}])",
        R"([{"type": "function", "function": {"name": "a", "parameters": []}}])",
        R"([{"type": "function", "function": {"name": "a", "strict": true}}])"}) {
    EXPECT_THAT(refusal(*format, {.tools = wrong}), HasSubstr("tools[0]: expected")) << wrong;
  }
  EXPECT_THAT(refusal(*format, {.tools = kTools, .tool_choice = "fly"}), HasSubstr("fly"));
  EXPECT_THAT(refusal(*format, {.tool_choice = "required"}), HasSubstr("no tools"));
}

}  // namespace
}  // namespace kvcast
