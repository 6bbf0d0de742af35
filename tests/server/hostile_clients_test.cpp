// What a hostile or broken client can send beyond bad JSON: sizes and numbers at the edges, HTTP
// that two readers could understand differently, connections that never read or close half-way.
#include <gmock/gmock.h>

#include "server/server_fixture.h"

namespace kvcast {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json repeated(int count, const json& item) {
  json list = json::array();
  for (int i = 0; i < count; ++i) list.push_back(item);
  return list;
}

struct BadBody {
  const char* path;
  std::string body;
  const char* expected_in_message;
};

void expect_refused(uint16_t port, const std::vector<BadBody>& cases) {
  for (const BadBody& bad : cases) {
    const ClientResponse response = HttpClient(port).post(bad.path, bad.body);
    EXPECT_EQ(response.status, 400) << bad.path << " " << bad.body.substr(0, 200);
    EXPECT_THAT(response.json()["error"]["message"].dump(), HasSubstr(bad.expected_in_message))
        << bad.body.substr(0, 200);
  }
}

TEST(HostileClients, SizesBeyondTheLimitsAreRefused) {
  RunningServer server;
  const auto with = [](const char* field, const json& value) {
    return json{{"prompt", "a"}, {field, value}}.dump();
  };
  const json message = {{"role", "user"}, {"content", "a"}};
  expect_refused(
      server.port(),
      {
          {kCompletions, json{{"prompt", repeated(65, "a")}}.dump(), "prompt"},
          {kCompletions, json{{"prompt", repeated(65, json::array({1}))}}.dump(), "prompt"},
          {kCompletions, with("stop", repeated(17, "a")), "stop"},
          {kCompletions, with("stop", std::string(1025, 'a')), "stop"},
          {kCompletions, with("n", 65), "n:"},
          {kCompletions, with("logprobs", 21), "logprobs"},
          {kChat, json{{"messages", repeated(1025, message)}}.dump(), "messages"},
          {kChat, json{{"messages", {message}}, {"logprobs", true}, {"top_logprobs", 21}}.dump(),
           "top_logprobs"},
          {kChat, json{{"messages", {message}}, {"top_logprobs", 2}}.dump(), "logprobs"},
          {kChat, json{{"messages", {{{"role", std::string(65, 'r')}, {"content", "a"}}}}}.dump(),
           "role"},
      });
  EXPECT_TRUE(server.becomes_idle());
}

TEST(HostileClients, NumbersOutOfRangeAreRefused) {
  RunningServer server;
  const auto with = [](const std::string& field, const std::string& number) {
    return R"({"prompt":"a",")" + field + "\":" + number + "}";
  };
  expect_refused(server.port(),
                 {
                     {kCompletions, with("max_tokens", "-9223372036854775808"), "max_tokens"},
                     {kCompletions, with("max_tokens", "-1e300"), "max_tokens"},
                     {kCompletions, with("max_tokens", "0.5"), "max_tokens"},
                     {kCompletions, with("n", "-1"), "n:"},
                     {kCompletions, with("n", "1e19"), "n:"},
                     {kCompletions, with("seed", "1e30"), "seed"},
                     {kCompletions, with("seed", "0.1"), "seed"},
                     {kCompletions, with("top_k", "-9223372036854775809"), "top_k"},
                     {kCompletions, with("top_p", "-0.0001"), "top_p"},
                     {kCompletions, with("min_p", "1.0001"), "min_p"},
                     {kCompletions, with("repetition_penalty", "0"), "repetition_penalty"},
                     {kCompletions, with("temperature", "1e39"), "temperature"},
                     {kCompletions, with("temperature", "-1e999"), "JSON"},
                     {kCompletions, with("logprobs", "-1"), "logprobs"},
                     {kCompletions, R"({"prompt":[2147483648]})", "prompt"},
                     {kCompletions, R"({"prompt":[-9223372036854775808]})", "prompt"},
                     {kCompletions, R"({"prompt":[18446744073709551616]})", "prompt"},
                     {"/detokenize", R"({"tokens":[4294967296]})", "tokens"},
                     {"/detokenize", R"({"tokens":"a"})", "tokens"},
                     {"/detokenize", R"({"tokens":[[1]]})", "tokens"},
                     {"/detokenize", "{}", "tokens"},
                     {"/tokenize", R"({"prompt":7})", "prompt"},
                     {"/tokenize", R"({"messages":"a"})", "messages"},
                     {"/tokenize", "[", "JSON"},
                 });
  // The ends of the ranges are fine.
  for (const auto& [field, number] :
       std::vector<std::pair<std::string, std::string>>{{"seed", "-9223372036854775808"},
                                                        {"seed", "9223372036854775807"},
                                                        {"top_k", "1e18"},
                                                        {"top_k", "-1"},
                                                        {"max_tokens", "9223372036854775807"},
                                                        {"temperature", "1e6"},
                                                        {"temperature", "1e-45"},
                                                        {"top_p", "1e-37"},
                                                        {"repetition_penalty", "1e6"}}) {
    EXPECT_EQ(HttpClient(server.port()).post(kCompletions, with(field, number)).status, 200)
        << field << " " << number;
  }
}

TEST(HostileClients, KeysGivenTwiceAreRefusedAtEveryDepth) {
  RunningServer server;
  expect_refused(
      server.port(),
      {{kChat, R"({"messages":[{"role":"user","role":"system","content":"a"}]})", "twice"},
       {kChat,
        R"({"messages":[{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}]})",
        "twice"},
       {kCompletions, R"({"prompt":"a","\u0070rompt":"b"})", "twice"},
       {"/tokenize", R"({"prompt":"a","prompt":"b"})", "twice"}});
}

TEST(HostileClients, EveryCharacterThatUnicodeHasIsFine) {
  RunningServer server;
  for (const char* prompt :
       {R"("\u0000")", R"("a\u0000b")", R"("\ufffe\uffff")", R"("\ud83d\ude00")", R"("\u202e")",
        R"("\u0301\u0301\u0301")", "\"\xf4\x8f\xbf\xbf\"", R"("<s></s><unk>")", R"("\r\n\t\b")"}) {
    const ClientResponse response =
        HttpClient(server.port())
            .post(kCompletions,
                  std::string(
                      R"({"max_tokens":2,"echo":true,"logprobs":1,"prefill":"exact","prompt":)") +
                      prompt + "}");
    EXPECT_EQ(response.status, 200) << prompt << " " << response.body;
    EXPECT_FALSE(response.json().is_discarded()) << prompt;
  }
}

TEST(HostileClients, HttpThatCouldBeReadInTwoWaysIsRefused) {
  RunningServer server;
  const std::string post =
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  const std::string body = R"({"prompt":"a","max_tokens":1})";
  const std::vector<std::string> cases = {
      post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
      post + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}",
      post + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
      post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
      post + "Content-Length: +2\r\n\r\n{}",
      post + "Content-Length: 0x2\r\n\r\n{}",
      post + "Content-Length: 2, 3\r\n\r\n{}",
      post + "Content-Length : 2\r\n\r\n{}",
      post + "Content-Length:\r\n\r\n{}",
      post + "X: a\r\n folded: b\r\nContent-Length 2\r\n\r\n{}",
      post + std::string("X: a\0b\r\n", 8) + "Content-Length: 2\r\n\r\n{}",
      "POST /v1/completions HTTP/1.1\nHost: localhost\nContent-Length: 2\n\n{}",
      "POST\t/v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      "GET /health HTTP/1.1\r\nHost: localhost\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
  };
  for (const std::string& bytes : cases) {
    HttpClient client(server.port(), 5);
    client.send(bytes);
    EXPECT_EQ(client.read_response().status, 400) << bytes;
    EXPECT_FALSE(client.read_some()) << "goes on after " << bytes;
  }
  HttpClient tunnel(server.port(), 5);
  tunnel.send("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(tunnel.read_response().status, 404);
  EXPECT_EQ(HttpClient(server.port()).post(kCompletions, body).status, 200);
}

TEST(HostileClients, AnUpgradeIsNotTaken) {
  RunningServer server;
  HttpClient client(server.port());
  const ClientResponse response =
      client.get("/health", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n");
  EXPECT_EQ(response.status, 200);
}

TEST(HostileClients, ConnectionsThatCloseHalfWayLeaveNothing) {
  RunningServer server;
  const std::string request =
      HttpClient::post_text(kCompletions, R"({"prompt":"The cache","max_tokens":200,"n":8})");
  for (size_t cut = 1; cut <= request.size(); cut += 7) {
    HttpClient client(server.port());
    client.send(std::string_view(request).substr(0, cut));
    client.shut_down_sending();
    client.read_some();
  }
  EXPECT_TRUE(server.becomes_idle());
  EXPECT_LE(server.metric("num_connections"), 2);
  EXPECT_EQ(server.metric("cache_bytes"), 0);
}

TEST(HostileClients, AClientThatNeverReadsIsGivenUp) {
  ServerOptions options;
  options.http.max_unsent_bytes = 64 << 10;
  RunningServer server(options);
  HttpClient client(server.port());
  // Several MiB, more than the sockets' own buffers take.
  client.send(HttpClient::post_text(kCompletions, json{{"prompt", "The cache"},
                                                       {"max_tokens", 240},
                                                       {"ignore_eos", true},
                                                       {"stream", true},
                                                       {"logprobs", 20},
                                                       {"n", 32}}
                                                      .dump()));
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (server.metric("dropped_connections_total") == 0 &&
         std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(server.metric("dropped_connections_total"), 1);
  EXPECT_TRUE(server.becomes_idle());
}

TEST(HostileClients, MoreConnectionsThanAllowedAreClosed) {
  ServerOptions options;
  options.http.max_connections = 4;
  RunningServer server(options);
  std::vector<std::unique_ptr<HttpClient>> clients;
  int answered = 0;
  for (int i = 0; i < 12; ++i) {
    clients.push_back(std::make_unique<HttpClient>(server.port()));
    if (clients.back()->get("/health").status == 200) ++answered;
  }
  EXPECT_GE(answered, 3);  // the fixture's own last connection may still be there
  EXPECT_LE(answered, 4);
  clients.clear();
  // Soon there is room again.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (HttpClient(server.port()).get("/health").status != 200) {
    ASSERT_LT(std::chrono::steady_clock::now(), end);
  }
}

TEST(HostileClients, ALongTextHoldsNobodyUp) {
  RunningServer server;
  std::string text;
  while (text.size() < 900'000) text += "the old keeper of the lighthouse ";
  HttpClient slow(server.port());
  slow.send(HttpClient::post_text("/tokenize", json{{"prompt", text}}.dump()));
  HttpClient quick(server.port());
  EXPECT_EQ(quick.get("/health").status, 200);
  EXPECT_FALSE(slow.has_answer()) << "the other request was waited for";
  EXPECT_EQ(slow.read_response().status, 200);
}

TEST(HostileClients, AMegabyteOfPromptIsRefusedWithoutReadingItToItsEnd) {
  RunningServer server;
  std::string text;
  while (text.size() < 900'000) text += "\xe2\x82\xac is a sign; ";
  const json message = {{"role", "user"}, {"content", text}};
  for (const ClientResponse& response :
       {HttpClient(server.port()).post(kCompletions, json{{"prompt", text}}),
        HttpClient(server.port()).post(kChat, json{{"messages", {message}}})}) {
    EXPECT_EQ(response.status, 400);
    EXPECT_EQ(response.json()["error"]["code"], "context_length_exceeded");
    EXPECT_THAT(response.body, HasSubstr("more than"));
    EXPECT_THAT(response.body, HasSubstr("256"));
  }
}

}  // namespace
}  // namespace kvcast
