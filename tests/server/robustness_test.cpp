// Limits, bad requests, clients that vanish, slow connections, access, shutting down.
#include <gmock/gmock.h>

#include "server/server_fixture.h"

namespace kvcast {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;
using ::testing::HasSubstr;

/// Runs long enough to be interrupted: the tiny model's whole context.
json long_request() {
  return {{"prompt", "The cache"}, {"max_tokens", 240}, {"ignore_eos", true}, {"stream", true},
          {"temperature", 1.0},    {"n", 16},           {"seed", 1}};
}

TEST(ServerRobustness, BadRequestsGetClearAnswersAndHurtNobody) {
  RunningServer server;
  struct Case {
    const char* body;
    const char* expected_in_message;
  };
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  const std::string deep_prompt = "{\"prompt\":" + deep + "}";
  const Case cases[] = {
      {"", "JSON"},
      {"{", "JSON"},
      {"null", "object"},
      {"[]", "object"},
      {"\"text\"", "object"},
      {"{\"prompt\":\"a\"} trailing", "JSON"},
      {deep.c_str(), "nested"},
      {deep_prompt.c_str(), "nested"},
      {"{\"prompt\":\"a\",\"prompt\":\"b\"}", "twice"},
      {"{\"prompt\":\"a\",\"stream_options\":{\"x\":1,\"x\":2}}", "twice"},
      {"{}", "prompt"},
      {"{\"prompt\":null}", "prompt"},
      {"{\"prompt\":7}", "prompt"},
      {"{\"prompt\":[]}", "prompt"},
      {"{\"prompt\":[[]]}", "prompt"},
      {"{\"prompt\":[1,\"a\"]}", "prompt"},
      {"{\"prompt\":[-1]}", "prompt"},
      {"{\"prompt\":[1.5]}", "prompt"},
      {"{\"prompt\":[4294967296]}", "prompt"},
      {"{\"prompt\":[400]}", "out of range"},
      {"{\"prompt\":{\"a\":1}}", "prompt"},
      {"{\"prompt\":\"a\",\"max_tokens\":-2}", "max_tokens"},
      {"{\"prompt\":\"a\",\"max_tokens\":1.5}", "max_tokens"},
      {"{\"prompt\":\"a\",\"max_tokens\":\"7\"}", "max_tokens"},
      {"{\"prompt\":\"a\",\"max_tokens\":1e400}", "JSON"},
      {"{\"prompt\":\"a\",\"temperature\":-0.1}", "temperature"},
      {"{\"prompt\":\"a\",\"temperature\":NaN}", "JSON"},
      {"{\"prompt\":\"a\",\"temperature\":true}", "temperature"},
      {"{\"prompt\":\"a\",\"top_p\":-0.1}", "top_p"},
      {"{\"prompt\":\"a\",\"top_p\":1e300}", "top_p"},
      {"{\"prompt\":\"a\",\"top_k\":-2}", "top_k"},
      {"{\"prompt\":\"a\",\"n\":0}", "n:"},
      {"{\"prompt\":\"a\",\"n\":100000000000000000000}", "n:"},
      {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs"},
      {"{\"prompt\":\"a\",\"logprobs\":1000}", "logprobs"},
      {"{\"prompt\":\"a\",\"echo\":1}", "echo"},
      {"{\"prompt\":\"a\",\"stream\":\"yes\"}", "stream"},
      {"{\"prompt\":\"a\",\"stop\":[1]}", "stop"},
      {"{\"prompt\":\"a\",\"stop\":{}}", "stop"},
      {"{\"prompt\":\"a\",\"prefill\":\"guess\"}", "prefill"},
      {"{\"prompt\":\"a\",\"prefill\":\"kv-prediction:tail=0\"}", "tail"},
      {"{\"prompt\":\"a\",\"context_length\":1}", "context_length"},
      {"{\"prompt\":\"a\",\"logit_bias\":{\"5\":\"x\"}}", "logit_bias"},
      {"{\"prompt\":\"a\",\"stop_token_ids\":[\"x\"]}", "stop_token_ids"},
      {"{\"prompt\":\"a\",\"presence_penalty\":3}", "presence_penalty"},
      {"{\"prompt\":\"a\",\"bad_words\":\"x\"}", "bad_words"},
      {"{\"prompt\":\"a\",\"best_of\":5}", "not supported"},
      {"{\"prompt\":\"\xff\xfe\"}", "JSON"},
      {"{\"prompt\":\"\xc0\xaf\"}", "JSON"},
      {"{\"prompt\":\"\xed\xa0\x80\"}", "JSON"},
      {"{\"prompt\":\"\\ud800\"}", "JSON"},
      {"{\"prompt\":\"a\x01\"}", "JSON"},
  };
  for (const Case& bad : cases) {
    const ClientResponse response =
        HttpClient(server.port()).post(kCompletions, std::string(bad.body));
    EXPECT_EQ(response.status, 400) << bad.body;
    EXPECT_THAT(response.json()["error"]["message"].dump(), HasSubstr(bad.expected_in_message))
        << bad.body;
  }
  for (const char* body :
       {"{}", "{\"messages\":[]}", "{\"messages\":[1]}", "{\"messages\":[{}]}",
        "{\"messages\":[{\"role\":\"user\"}]}",
        "{\"messages\":[{\"role\":\"wizard\",\"content\":\"a\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":7}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{}]}"}) {
    EXPECT_EQ(HttpClient(server.port()).post("/v1/chat/completions", std::string(body)).status, 400)
        << body;
  }
  EXPECT_EQ(HttpClient(server.port()).get("/health").status, 200);
  EXPECT_TRUE(server.becomes_idle());
}

TEST(ServerRobustness, BadHttpGets4xxOrAClosedConnection) {
  ServerOptions options;
  options.http.max_body_bytes = 1000;
  options.http.max_header_bytes = 2048;
  RunningServer server(options);
  const std::string post =
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  const std::pair<std::string, int> cases[] = {
      {"GET\r\n\r\n", 400},
      {"GARBAGE GARBAGE GARBAGE\r\n\r\n", 400},
      {"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(4000, 'a') + "\r\n\r\n", 431},
      {"GET /" + std::string(4000, 'a') + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 431},
      {post + "Content-Length: 2000\r\n\r\n", 413},
      {post + "Content-Length: 99999999999999999999999\r\n\r\n", 400},
      {post + "Content-Length: -5\r\n\r\n", 400},
      {post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}", 400},
      {post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400},
      {post + "Transfer-Encoding: chunked\r\n\r\nZZZ\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + std::string(2000, 'a') +
           "\r\n0\r\n\r\n",
       413},
      {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + "\r\n\r\n", 400},
      {std::string(64, '\0') + "\r\n\r\n", 400},
  };
  for (const auto& [bytes, expected] : cases) {
    HttpClient client(server.port());
    client.send(bytes);
    const ClientResponse response = client.read_response();
    EXPECT_TRUE(response.status == expected || response.status == 0)
        << response.status << " for " << bytes.substr(0, 80);
  }
  EXPECT_EQ(HttpClient(server.port()).get("/../../etc/passwd").status, 404);
  EXPECT_EQ(HttpClient(server.port()).get("/%2e%2e/%2e%2e/etc/passwd").status, 404);
  EXPECT_EQ(HttpClient(server.port()).get(kCompletions).status, 405);
  EXPECT_EQ(HttpClient(server.port()).post("/health", std::string("{}")).status, 405);
  HttpClient form(server.port());
  form.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
      "text/plain\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"}");
  EXPECT_EQ(form.read_response().status, 415);
  EXPECT_EQ(HttpClient(server.port()).get("/health").status, 200);
}

TEST(ServerRobustness, PipelinedAndSplitRequestsAreAnsweredInOrder) {
  RunningServer server;
  HttpClient client(server.port());
  const std::string one =
      HttpClient::post_text(kCompletions, R"({"prompt":"The cache","max_tokens":3})");
  client.send(one + one + "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_THAT(client.read_response().body, HasSubstr("ok"));
  for (const char byte : one) ASSERT_TRUE(client.send(std::string_view(&byte, 1)));
  EXPECT_EQ(client.read_response().status, 200);
  client.send("GET /health HTTP/1.0\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_FALSE(client.read_some());  // HTTP/1.0: closed
}

TEST(ServerRobustness, SlowAndHalfOpenConnectionsAreGivenUp) {
  ServerOptions options;
  options.http.header_seconds = 0.3;
  options.http.body_seconds = 0.3;
  options.http.idle_seconds = 0.5;
  RunningServer server(options);
  // Below what the limits are by default, and what the client waits: many times what was asked for.
  constexpr int kSeconds = 8, kPatience = 20;
  const auto seconds_until_closed = [&](const std::string& bytes) {
    HttpClient client(server.port(), kPatience);
    client.send(bytes);
    const auto start = steady_clock::now();
    while (client.read_some()) {
    }
    return std::chrono::duration<double>(steady_clock::now() - start).count();
  };
  EXPECT_LT(seconds_until_closed(""), kSeconds);
  EXPECT_LT(seconds_until_closed("GET /health HT"), kSeconds);
  EXPECT_LT(seconds_until_closed(
                "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"),
            kSeconds);
  EXPECT_LT(seconds_until_closed("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), kSeconds);
  // A trickle of header bytes does not buy time.
  HttpClient slow(server.port());
  const auto start = steady_clock::now();
  slow.send("GET /health HTTP/1.1\r\n");
  while (slow.send("a") && steady_clock::now() - start < std::chrono::seconds(kPatience)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(kSeconds));
}

TEST(ServerRobustness, AClientThatVanishesFreesEverything) {
  RunningServer server;
  for (int i = 0; i < 40; ++i) {
    HttpClient client(server.port());
    client.send(HttpClient::post_text(kCompletions, long_request().dump()));
    if (i % 2 == 0) client.read_some();
    if (i % 3 == 0) client.reset();
  }
  EXPECT_TRUE(server.becomes_idle());
  EXPECT_GT(server.metric("requests_cancelled_total"), 0);
  EXPECT_EQ(server.metric("cache_bytes"), 0);
  EXPECT_LE(server.metric("num_connections"), 2);
}

TEST(ServerRobustness, MoreThanTheQueueHoldsIsRefused) {
  ServerOptions options;
  options.scheduler.max_batch = 16;  // one long request at a time
  options.scheduler.max_queue = 2;
  RunningServer server(options);
  std::vector<std::unique_ptr<HttpClient>> clients;
  int refused = 0;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<HttpClient>(server.port()));
    clients.back()->send(HttpClient::post_text(kCompletions, long_request().dump()));
    clients.back()->read_some();  // the head: accepted or not
    if (clients.back()->buffer().find(" 429 ") != std::string::npos) ++refused;
  }
  EXPECT_GE(refused, 3);
  clients.clear();
  EXPECT_TRUE(server.becomes_idle());
}

TEST(ServerRobustness, ARequestThatCanNeverFitIsRefused) {
  ServerOptions options;
  options.scheduler.max_cache_bytes = 200 << 10;
  RunningServer server(options);
  const ClientResponse response =
      HttpClient(server.port())
          .post(kCompletions, json{{"prompt", "a"}, {"max_tokens", 200}, {"n", 8}});
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json()["error"]["code"], "cache_memory_exceeded");
  EXPECT_EQ(
      HttpClient(server.port()).post(kCompletions, json{{"prompt", "a"}, {"max_tokens", 4}}).status,
      200);
}

TEST(ServerRobustness, TimeRunsOut) {
  ServerOptions options;
  options.request_seconds = 0.001;
  RunningServer server(options);
  json body = long_request();
  body["stream"] = false;
  const ClientResponse response = HttpClient(server.port()).post(kCompletions, body);
  EXPECT_EQ(response.status, 504);
  EXPECT_EQ(response.json()["error"]["code"], "request_timeout");
}

TEST(ServerRobustness, KeysOpenEveryRouteButHealth) {
  ServerOptions options;
  options.api_keys = {"first-key", "second-key"};
  RunningServer server(options);
  const auto status = [&](const std::string& path, const std::string& headers) {
    return HttpClient(server.port()).get(path, headers).status;
  };
  EXPECT_EQ(status("/health", ""), 200);
  for (const auto* path : {"/", "/v1/models", "/metrics", "/tokenizer_info", "/nowhere"}) {
    EXPECT_EQ(status(path, ""), 401) << path;
    EXPECT_EQ(status(path, "Authorization: Bearer wrong-key\r\n"), 401) << path;
    EXPECT_EQ(status(path, "Authorization: Bearer \r\n"), 401) << path;
  }
  EXPECT_EQ(status("/v1/models", "Authorization: Bearer second-key\r\n"), 200);
  EXPECT_EQ(status("/", "Authorization: Basic a2V5OmZpcnN0LWtleQ==\r\n"), 200);  // key:first-key
  EXPECT_EQ(HttpClient(server.port()).post(kCompletions, std::string("{}")).status, 401);
}

TEST(ServerRobustness, OtherOriginsAndHostsAreRefusedUnlessAllowed) {
  RunningServer closed;
  const std::string body = R"({"prompt":"a","max_tokens":1})";
  EXPECT_EQ(
      HttpClient(closed.port()).post(kCompletions, body, "Origin: http://evil.example\r\n").status,
      403);
  EXPECT_EQ(
      HttpClient(closed.port()).post(kCompletions, body, "Origin: http://localhost\r\n").status,
      200);
  HttpClient rebound(closed.port());
  rebound.send("GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n");
  EXPECT_EQ(rebound.read_response().status, 403);

  ServerOptions options;
  options.cors_origins = {"http://app.example"};
  RunningServer open(options);
  const ClientResponse allowed =
      HttpClient(open.port()).post(kCompletions, body, "Origin: http://app.example\r\n");
  EXPECT_EQ(allowed.status, 200);
  EXPECT_THAT(allowed.head, HasSubstr("Access-Control-Allow-Origin: http://app.example\r\n"));
  HttpClient preflight(open.port());
  preflight.send(
      "OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://app.example\r\n"
      "Access-Control-Request-Method: POST\r\n\r\n");
  EXPECT_EQ(preflight.read_response().status, 204);
  EXPECT_EQ(
      HttpClient(open.port()).post(kCompletions, body, "Origin: http://evil.example\r\n").status,
      403);
}

TEST(ServerRobustness, StoppingLetsRunningAnswersFinish) {
  RunningServer server;
  HttpClient client(server.port());
  client.send(HttpClient::post_text(kCompletions, long_request().dump()));
  ASSERT_TRUE(client.read_some());
  server.ask_to_stop();
  const ClientResponse response = client.read_response();
  EXPECT_THAT(response.body, HasSubstr("data: [DONE]"));
  EXPECT_THAT(response.body, ::testing::Not(HasSubstr("error")));
  server.stop();
  EXPECT_FALSE(HttpClient(server.port()).connected());
}

TEST(ServerRobustness, APortThatIsTakenIsSaidToBe) {
  RunningServer server;
  ServerOptions options;
  options.model_directory = tiny_bundle().path();
  options.port = server.port();
  const auto second = Server::listen(options);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("Address already in use"));
  EXPECT_THAT(second.error().message, HasSubstr("--port"));
}

TEST(ServerRobustness, AnAddressOfAnotherMachineIsSaidNotToBeOurs) {
  ServerOptions options;
  options.model_directory = tiny_bundle().path();
  options.host = "203.0.113.1";  // of no machine (RFC 5737)
  options.port = 0;
  const auto server = Server::listen(options);
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().message,
            "cannot listen on 203.0.113.1 port 0: Cannot assign requested address");
}

TEST(ServerRobustness, ALoadingFailureEndsTheServer) {
  ServerOptions options;
  options.model_directory = "/nowhere";
  options.port = 0;
  auto server = Server::listen(options);
  ASSERT_TRUE(server);
  const Status status = (*server)->run({});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("/nowhere"));
}

TEST(ServerRobustness, AWarmedSystemPromptIsReadOnceAndStays) {
  ServerOptions options;
  options.system_prompt = "The keeper of the lighthouse answers every question with a riddle.";
  // Little more than what it takes: other prompts' rows come and go.
  options.scheduler.max_cache_bytes = 4 << 20;
  options.scheduler.prefix_share = 0.05;
  RunningServer server(options);
  const auto cached_of = [&](const std::string& prompt) {
    const ClientResponse response =
        HttpClient(server.port())
            .post("/v1/completions",
                  json{{"prompt", prompt}, {"max_tokens", 2}, {"prefill", "exact"}}.dump());
    return response.json()["timings"]["cached_tokens"].get<int64_t>();
  };
  const int64_t first = cached_of(options.system_prompt + " Who");
  EXPECT_GT(first, 10);
  for (int i = 0; i < 20; ++i) {
    cached_of(std::to_string(i) +
              " other beginnings of other prompts that want to be kept as well");
  }
  EXPECT_EQ(cached_of(options.system_prompt + " Where"), first);
}

TEST(ServerRobustness, AWarmedSystemPromptThatCannotStayEndsTheServer) {
  ServerOptions options;
  options.model_directory = tiny_bundle().path();
  options.system_prompt = "The keeper of the lighthouse answers every question with a riddle.";
  options.scheduler.max_cache_bytes = 1 << 20;
  options.scheduler.prefix_share = 0.001;
  options.port = 0;
  auto server = Server::listen(options);
  ASSERT_TRUE(server);
  const Status status = (*server)->run({});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("--warm"));
  EXPECT_THAT(status.error().message, HasSubstr("prefixes may take"));
}

}  // namespace
}  // namespace kvcast
