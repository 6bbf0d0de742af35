// HTTP as browsers, proxies and client libraries speak it.
#include <gmock/gmock.h>

#include <regex>

#include "base/mapped_file.h"
#include "server/access_log.h"
#include "server/server_fixture.h"

namespace kvcast {
namespace {

using nlohmann::json;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kBody = R"({"prompt":"a","max_tokens":1})";
const std::string kPage = "Origin: http://app.example\r\n";
const std::string kAllowed = "Access-Control-Allow-Origin: http://app.example\r\n";

ServerOptions with_page() {
  ServerOptions options;
  options.cors_origins = {"http://app.example"};
  return options;
}

ClientResponse send(const RunningServer& server, const std::string& request) {
  HttpClient client(server.port());
  client.send(request);
  return client.read_response();
}

TEST(HttpEdges, APreflightAllowsTheHeadersThatItAsksFor) {
  RunningServer server(with_page());
  const std::string names = "authorization,content-type,x-stainless-os,x-stainless-lang";
  const ClientResponse response =
      send(server, "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + kPage +
                       "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: " +
                       names + "\r\n\r\n");
  EXPECT_EQ(response.status, 204);
  EXPECT_THAT(response.head, HasSubstr("Access-Control-Allow-Headers: " + names + "\r\n"));
  EXPECT_THAT(response.head, HasSubstr(kAllowed));
  EXPECT_THAT(response.head, Not(HasSubstr("Content-Length")));
  EXPECT_EQ(send(server,
                 "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n"
                 "Access-Control-Request-Method: POST\r\n\r\n")
                .status,
            403);
}

TEST(HttpEdges, APageMayReadEveryRefusal) {
  ServerOptions options = with_page();
  options.api_keys = {"key"};
  options.http.max_body_bytes = 1000;
  options.http.max_header_bytes = 2048;
  RunningServer server(options);
  const std::string head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + kPage;
  const std::pair<std::string, int> cases[] = {
      {head + "Content-Length: 2\r\n\r\n{}", 401},
      {head + "Content-Length: 2000\r\n\r\n", 413},
      {head + "X: " + std::string(4000, 'a') + "\r\n\r\n", 431},
      {head + "X: " + std::string(4000, 'a'), 431},  // and no end of the head
      {"NONSENSE\r\nHost: localhost\r\n" + kPage + "\r\n", 400},
      {head + "bad header\r\n\r\n", 400},
      {head + "Authorization: Bearer key\r\nContent-Length: 2\r\n\r\n{}", 400},
      {head +
           "Authorization: Bearer key\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
       415},
      {"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\n" + kPage + "\r\n",
       404},
      {"GET /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\n" + kPage +
           "\r\n",
       405},
      {"GET / HTTP/1.1\r\nHost: evil.example\r\n" + kPage + "\r\n", 403},
  };
  for (const auto& [request, status] : cases) {
    const ClientResponse response = send(server, request);
    EXPECT_EQ(response.status, status) << request.substr(0, 200);
    EXPECT_THAT(response.head, HasSubstr(kAllowed)) << status;
    EXPECT_THAT(response.head, HasSubstr("Vary: Origin\r\n")) << status;
    EXPECT_TRUE(response.json().contains("error")) << status;
  }
}

TEST(HttpEdges, MediaTypesAndHostsAreComparedAsTheirStandardsSay) {
  RunningServer server;
  for (const char* type : {"application/json", "Application/JSON", "application/json;charset=utf-8",
                           "application/json ; charset=\"utf-8\"", "  application/json"}) {
    const ClientResponse response = send(
        server,
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + std::string(type) +
            "\r\nContent-Length: " + std::to_string(kBody.size()) + "\r\n\r\n" + kBody);
    EXPECT_EQ(response.status, 200) << type << response.body;
  }
  for (const char* host :
       {"localhost", "LocalHost", "LOCALHOST:8080", "localhost.", "127.0.0.1:1", "[::1]:8080"}) {
    const std::string request = "GET /v1/models HTTP/1.1\r\nHost: " + std::string(host) + "\r\n";
    EXPECT_EQ(send(server, request + "\r\n").status, 200) << host;
  }
  EXPECT_EQ(send(server,
                 "GET /v1/models HTTP/1.1\r\nHost: LOCALHOST:1\r\n"
                 "Origin: http://localhost:1\r\n\r\n")
                .status,
            200);
}

TEST(HttpEdges, SlashesDoNotMatter) {
  RunningServer server;
  for (const char* path : {"/v1//completions", "//v1/completions", "/v1/completions/",
                           "//v1//completions//", "/v1/completions?a=b"}) {
    EXPECT_EQ(HttpClient(server.port()).post(path, kBody).status, 200) << path;
  }
  for (const char* path : {"/", "//", "/health/", "/v1/models/tiny/", "/v1/models/t%69ny"}) {
    EXPECT_EQ(HttpClient(server.port()).get(path).status, 200) << path;
  }
  EXPECT_EQ(send(server, "GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n").status,
            200);
}

TEST(HttpEdges, BlankLinesBeforeARequestAreSkipped) {
  RunningServer server;
  EXPECT_EQ(send(server, "\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
  HttpClient client(server.port());
  for (int i = 0; i < 3; ++i) {  // a line after the body, as old clients send it
    client.send(HttpClient::post_text(kCompletions, kBody) + "\r\n");
    EXPECT_EQ(client.read_response().status, 200);
  }
  client.send("\r\n");
  client.send(HttpClient::post_text(kCompletions, kBody) + "\r\n" +
              HttpClient::post_text(kCompletions, kBody) + "\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_EQ(client.read_response().status, 200);
}

TEST(HttpEdges, OptionsAndHeadWorkWithoutAnOrigin) {
  for (const ServerOptions& options : {ServerOptions{}, with_page()}) {
    RunningServer server(options);
    const ClientResponse response =
        send(server, "OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(response.status, 204);
    EXPECT_THAT(response.head, HasSubstr("Allow: GET, HEAD, POST, OPTIONS\r\n"));
    for (const char* path : {"/", "/health", "/v1/models", "/metrics"}) {
      HttpClient client(server.port());
      client.send("HEAD " + std::string(path) + " HTTP/1.1\r\nHost: localhost\r\n\r\n" +
                  "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
      while (client.buffer().find("{\"status\"") == std::string::npos) {
        ASSERT_TRUE(client.read_some()) << path;
      }
      EXPECT_THAT(client.buffer(), ContainsRegex("^HTTP/1.1 200 OK")) << path;
    }
  }
}

/// The HTTP layer alone, on a thread of its own.
class BareServer {
 public:
  explicit BareServer(HttpHandler handle, uint16_t port = 0) {
    HttpHooks hooks;
    hooks.handle = std::move(handle);
    server_ = std::move(HttpServer::listen("127.0.0.1", port, {}, std::move(hooks)).value());
    thread_ = std::thread([this] { server_->run(); });
  }
  ~BareServer() {
    server_->stop();
    thread_.join();
  }
  BareServer(const BareServer&) = delete;
  BareServer& operator=(const BareServer&) = delete;
  [[nodiscard]] uint16_t port() const { return server_->port(); }

 private:
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

void answer(const HttpRequest& /*request*/, const std::shared_ptr<HttpExchange>& exchange) {
  exchange->respond({.body = "{}"});
}

TEST(HttpEdges, ARequestThatNobodyWillAnswerIsHungUpOn) {
  const BareServer server([](const auto&, const auto&) {});
  HttpClient client(server.port());
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(client.get("/").status, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(HttpEdges, WhoGoesOnSendingAfterTheLastAnswerIsNotCutOff) {
  const BareServer server(answer);
  for (const char* more : {"G", "GET / HTTP/1.1\r\n"}) {
    HttpClient client(server.port());
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" +
                std::string(more));
    EXPECT_EQ(client.read_response().status, 200);
    EXPECT_FALSE(client.read_some());
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(client.send("more")) << more;
  }
}

TEST(HttpEdges, APortIsFreeAgainAsSoonAsItsServerIsGone) {
  uint16_t port = 0;
  {
    const BareServer server(answer);
    port = server.port();
    HttpClient client(port);
    // The server closes first: the system remembers the connection for a minute.
    EXPECT_EQ(client.get("/", "Connection: close\r\n").status, 200);
    EXPECT_FALSE(client.read_some());
  }
  const BareServer again(answer, port);
  EXPECT_EQ(HttpClient(port).get("/").status, 200);
}

TEST(HttpEdges, EveryAnswerHasADate) {
  RunningServer server;
  for (const ClientResponse& response :
       {HttpClient(server.port()).get("/health"), HttpClient(server.port()).get("/nowhere"),
        send(server, "GARBAGE\r\n\r\n")}) {
    EXPECT_THAT(response.head, ContainsRegex("\r\nDate: [A-Z][a-z]+, [0-9]+ [A-Z][a-z]+ 20[0-9]+ "
                                             "[0-9]+:[0-9]+:[0-9]+ GMT\r\n"));
  }
}

TEST(HttpEdges, AnyModelNameIsServedUnlessNamesAreStrict) {
  const json body = {{"prompt", "a"}, {"max_tokens", 1}, {"model", "gpt-4o"}};
  RunningServer lenient;
  const ClientResponse served = HttpClient(lenient.port()).post(kCompletions, body);
  EXPECT_EQ(served.status, 200);
  EXPECT_EQ(served.json()["model"], "tiny");
  ServerOptions options;
  options.strict_model_name = true;
  RunningServer strict(options);
  EXPECT_EQ(HttpClient(strict.port()).post(kCompletions, body).json()["error"]["code"],
            "model_not_found");
}

TEST(HttpEdges, TheAccessLogSaysWhatHappenedAndNothingOfTheText) {
  std::mutex mutex;
  std::vector<std::string> lines;
  ServerOptions options;
  options.on_access = [&](const HttpAccess& access) {
    const std::lock_guard lock(mutex);
    lines.push_back(access_json(access, 1.5e9));
    EXPECT_THAT(access_text(access, 1.5e9), Not(HasSubstr("\n")));
  };
  {
    RunningServer server(options);
    const json secret = {
        {"prompt", "The password is swordfish"}, {"max_tokens", 3}, {"ignore_eos", true}};
    EXPECT_EQ(HttpClient(server.port()).post(kCompletions, secret).status, 200);
    json streamed = secret;
    streamed["stream"] = true;
    EXPECT_EQ(HttpClient(server.port()).post("/v1/completions?x=swordfish", streamed).status, 200);
    EXPECT_EQ(HttpClient(server.port()).post(kCompletions, json{{"prompt", "a"}, {"n", 0}}).status,
              400);
    EXPECT_EQ(send(server, "GARBAGE\r\n\r\n").status, 400);
    HttpClient leaving(server.port());
    json endless = {{"prompt", "swordfish"},
                    {"max_tokens", 240},
                    {"n", 16},
                    {"ignore_eos", true},
                    {"stream", true}};
    leaving.send(HttpClient::post_text(kCompletions, endless.dump()));
    ASSERT_TRUE(leaving.read_some());
    leaving.close();
    EXPECT_TRUE(server.becomes_idle());
  }
  // What the fixture asks while it waits; a line may come after its answer.
  std::erase_if(lines, [](const std::string& line) {
    const json path = json::parse(line)["path"];
    return path == "/metrics" || path == "/health";
  });
  ASSERT_EQ(lines.size(), 5U);
  for (const std::string& line : lines) EXPECT_THAT(line, Not(HasSubstr("swordfish")));
  const json first = json::parse(lines[0]), stream = json::parse(lines[1]);
  for (const json& line : {first, stream}) {
    EXPECT_EQ(line["path"], kCompletions);
    EXPECT_EQ(line["status"], 200);
    EXPECT_EQ(line["complete"], true);
    EXPECT_EQ(line["generated_tokens"], 3);
    EXPECT_GT(line["prompt_tokens"], 3);
    EXPECT_GT(line["sent_bytes"], 100);
    EXPECT_GT(line["ms"], 0.0);
    EXPECT_EQ(line["prefill"], "kv-prediction");
  }
  EXPECT_EQ(json::parse(lines[2])["status"], 400);
  EXPECT_EQ(json::parse(lines[3])["method"], "");
  EXPECT_EQ(json::parse(lines[4])["complete"], false);
}

TEST(Dashboard, ShowsFiguresThatTheServerHas) {
  RunningServer server;
  const json answer = {{"prompt", "a"}, {"max_tokens", 2}};
  EXPECT_EQ(HttpClient(server.port()).post(kCompletions, answer).status, 200);
  EXPECT_EQ(HttpClient(server.port()).post(kCompletions, json::object()).status, 400);
  const std::string metrics = HttpClient(server.port()).get("/metrics").body;
  const std::string folder = std::string(KVCAST_SOURCE_DIR) + "/packaging/deploy/";
  for (const char* file : {"grafana-dashboard.json", "kvcast-alerts.yml"}) {
    const std::string text = *read_text_file(folder + file);
    const std::regex name("kvcast:[a-z0-9_]+");
    auto match = std::sregex_iterator(text.begin(), text.end(), name);
    EXPECT_NE(match, std::sregex_iterator());
    for (; match != std::sregex_iterator(); ++match) {
      EXPECT_THAT(metrics, HasSubstr("\n" + match->str() + "{")) << file;
    }
  }
  EXPECT_TRUE(json::accept(*read_text_file(folder + "grafana-dashboard.json")));
}

}  // namespace
}  // namespace kvcast
