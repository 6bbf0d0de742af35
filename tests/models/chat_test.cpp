// What models that `make models` fetches are asked for by clients with tools and by editors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/mapped_file.h"
#include "models/hub.h"
#include "runtime/chat_template.h"
#include "runtime/model_impl.h"
#include "server/requests.h"
#include "server/server_fixture.h"

namespace kvcast {
namespace {

using nlohmann::json;
using OrderedJson = nlohmann::ordered_json;
using ::testing::HasSubstr;

/// tests/golden/jinja/make.py made the cases from the same file, with PyPI's jinja2.
TEST(QwenCoder, ConversationsWithToolsAreRenderedAsJinjaRendersThem) {
  const auto model = Model::load(hub_model("qwen2.5-coder-0.5b-instruct"));
  ASSERT_TRUE(model) << model.error().message;
  const auto chat = ChatTemplate::load((*model)->impl().path, *(*model)->impl().tokenizer);
  ASSERT_TRUE(chat) << chat.error().message;
  EXPECT_EQ((*chat)->tool_calls(), ToolCallForm::kTagged);
  const auto file = std::filesystem::path(KVCAST_GOLDEN_DIR) / "jinja/qwen2.5-coder.json";
  const auto cases = OrderedJson::parse(*read_text_file(file));
  ASSERT_GE(cases.size(), 4U);
  for (const auto& one : cases) {
    const OrderedJson body = {{"messages", one["messages"]}, {"tools", one["tools"]}};
    const auto asked = parse_chat_request(body.dump(), {});
    ASSERT_TRUE(asked) << asked.error().message;
    const auto prompt =
        (*chat)->render(asked->messages, {.tools = asked->tools.json, .opening = {}});
    ASSERT_TRUE(prompt) << prompt.error().message;
    EXPECT_EQ(prompt->text, one["output"].get<std::string>());
  }
}

class ServedQwenCoder : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ServerOptions options;
    options.model_directory = hub_model("qwen2.5-coder-0.5b-instruct");
    server_ = std::make_unique<RunningServer>(std::move(options));
  }
  static void TearDownTestSuite() { server_.reset(); }
  static json answer(const char* path, const json& body) {
    const ClientResponse response = HttpClient(server_->port()).post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    return response.json()["choices"][0];
  }
  static inline std::unique_ptr<RunningServer> server_;
};

TEST_F(ServedQwenCoder, FillsInTheMiddle) {
  json body = {{"prompt", "def add(first, second):\n    return first"},
               {"suffix", "\n\nprint(add(1, 2))  # 3\n"},
               {"max_tokens", 16},
               {"temperature", 0},
               {"stop", "\n"}};
  EXPECT_EQ(answer("/v1/completions", body)["text"], " + second");
  // The model says that the middle is over by <|endoftext|>, which does not end its chats.
  body["max_tokens"] = 64;
  body.erase("stop");
  const json whole = answer("/v1/completions", body);
  EXPECT_EQ(whole["finish_reason"], "stop") << whole;
  EXPECT_THAT(whole["text"].get<std::string>(), testing::StartsWith(" + second\n"));
}

TEST_F(ServedQwenCoder, CallsATool) {
  const json weather = {
      {"type", "function"},
      {"function",
       {{"name", "get_weather"},
        {"description", "The weather of a city"},
        {"parameters", {{"type", "object"}, {"properties", {{"city", {{"type", "string"}}}}}}}}}};
  const json body = {
      {"messages", {{{"role", "user"}, {"content", "How is the weather in Paris?"}}}},
      {"tools", {weather}},
      {"tool_choice", "required"},
      {"parallel_tool_calls", false},
      {"max_tokens", 48},
      {"temperature", 0}};
  const json choice = answer("/v1/chat/completions", body);
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  const json call = choice["message"]["tool_calls"][0]["function"];
  EXPECT_EQ(call["name"], "get_weather");
  EXPECT_EQ(json::parse(call["arguments"].get<std::string>())["city"], "Paris");
}

}  // namespace
}  // namespace kvcast
