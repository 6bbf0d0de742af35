// Who may ask what: every combination of hosts, origins, keys, methods and routes against the
// policy of docs/SERVER.md, whose answers are written beside each case, and hosts that differ from
// fine ones by a few bytes against a pattern of what is fine.
#include <gmock/gmock.h>

#include <random>
#include <regex>

#include "server/access.h"

namespace kvcast {
namespace {

struct Case {
  const char* text;
  bool is_fine;
};

constexpr Case kHosts[] = {
    {"", true},  // HTTP/1.0
    {"localhost", true},
    {"LocalHost:8080", true},
    {"localhost.", true},
    {"127.0.0.1", true},
    {"127.255.3.4:8080", true},
    {"[::1]", true},
    {"[::1]:8080", true},
    {"bound.example", true},  // what --host says
    {"BOUND.example:80", true},
    {"evil.example", false},
    {"127.evil.example", false},  // a name that its owner lets resolve to 127.0.0.1
    {"127.0.0.1.evil.example:8080", false},
    {"127.0.0.1evil", false},
    {"127.0.0", false},
    {"localhost.evil.example", false},
    {"evil.example:127.0.0.1", false},
    {"[::1].evil.example", false},
    {"[::2]", false},
    {"10.0.0.1", false},
    {"notlocalhost", false},
    {" localhost", false},
};

/// Beside the host "localhost" and the allowed origin "https://page.example".
constexpr Case kOrigins[] = {
    {"", true},
    {"http://localhost", true},
    {"https://LOCALHOST", true},
    {"https://page.example", true},
    {"https://PAGE.example", true},
    {"http://page.example", false},
    {"https://page.example:444", false},
    {"https://page.example.evil", false},
    {"https://evil.page.example", false},
    {"http://localhost.evil", false},
    {"localhost", false},
    {"null", false},
    {"*", false},
};

/// Keys "first key" and "second".
constexpr Case kAuthorizations[] = {
    {"Bearer first key", true},
    {"bearer second", true},
    {"Basic OnNlY29uZA==", true},    // ":second"
    {"basic YW55OnNlY29uZA", true},  // "any:second"
    {"", false},
    {"Bearer", false},
    {"Bearer ", false},
    {"Bearer first", false},
    {"Bearer first keys", false},
    {"Bearer Second", false},
    {"Bearer  second", false},
    {"second", false},
    {"Basic second", false},
    {"Basic c2Vjb25k", false},  // no colon
    {"Basic OnNlY29uZA=x", false},
    {"Digest second", false},
};

AccessOptions options(bool loopback_only, bool keys, std::vector<std::string> origins) {
  AccessOptions made;
  if (keys) made.api_keys = {"first key", "second"};
  made.cors_origins = std::move(origins);
  made.loopback_only = loopback_only;
  made.host = "bound.example";
  return made;
}

int status(const Access& access, const HttpRequest& request) {
  const auto caller = access.check(request);
  return caller ? 200 : caller.error().status;
}

TEST(AccessTable, HostsAreThisMachinesWhereTheServerIs) {
  const Access local(options(true, false, {})), wide(options(false, false, {}));
  for (const Case& host : kHosts) {
    for (const char* method : {"GET", "POST", "HEAD"}) {
      for (const char* path : {"/", "/health", "/v1/chat/completions", "//metrics/"}) {
        HttpRequest request;
        request.method = method;
        request.path = path;
        request.host = host.text;
        EXPECT_EQ(status(local, request), host.is_fine ? 200 : 403) << host.text;
        EXPECT_EQ(status(wide, request), 200) << host.text;
      }
    }
  }
}

TEST(AccessTable, OriginsAreTheServersOwnOrNamed) {
  const Access named(options(true, false, {"https://page.example"}));
  const Access none(options(true, false, {})), all(options(true, false, {"*"}));
  for (const Case& origin : kOrigins) {
    HttpRequest request;
    request.method = "POST";
    request.path = "/v1/completions";
    request.host = "localhost";
    request.origin = origin.text;
    const bool is_own = origin.is_fine && !std::string_view(origin.text).ends_with("example");
    EXPECT_EQ(status(named, request), origin.is_fine ? 200 : 403) << origin.text;
    EXPECT_EQ(status(none, request), is_own ? 200 : 403) << origin.text;
    EXPECT_EQ(status(all, request), 200) << origin.text;
    const auto may_read = [&](const Access& access) {
      return testing::Matches(testing::Contains(std::pair<std::string, std::string>(
          "Access-Control-Allow-Origin", origin.text)))(access.cors_headers(request));
    };
    const bool is_page = !request.origin.empty();
    EXPECT_EQ(may_read(named), is_page && origin.is_fine) << origin.text;
    EXPECT_FALSE(may_read(none)) << origin.text;
    EXPECT_EQ(may_read(all), is_page) << origin.text;
    EXPECT_EQ(named.preflight(request).status, origin.is_fine ? 204 : 403) << origin.text;
  }
}

TEST(AccessTable, KeysOpenEveryRouteAndNothingElseDoes) {
  const Access access(options(true, true, {}));
  for (const Case& authorization : kAuthorizations) {
    for (const char* method : {"GET", "POST", "HEAD"}) {
      for (const char* path : {"/", "/health", "/health/", "/v1/models", "/metrics", "/props"}) {
        for (const Case& host : kHosts) {
          HttpRequest request;
          request.method = method;
          request.path = path;
          request.host = host.text;
          request.authorization = authorization.text;
          const bool needs_key = std::string_view(path) != "/health";
          const int expected = !host.is_fine                         ? 403
                               : needs_key && !authorization.is_fine ? 401
                                                                     : 200;
          EXPECT_EQ(status(access, request), expected) << authorization.text << " " << path;
        }
      }
    }
  }
}

TEST(AccessTable, HostsAFewBytesFromFineOnesAreJudgedByWhatTheyAre) {
  const Access access(options(true, false, {}));
  const std::regex fine(R"(((localhost|bound\.example|\[::1\])|)"
                        R"((127(\.(0|[1-9]\d?|1\d\d|2[0-4]\d|25[0-5])){3}))\.?(:([^:]*[^:\]])?)?)",
                        std::regex::icase);
  std::mt19937 random(19);
  const auto below = [&](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(random);
  };
  constexpr std::string_view kBytes = "0123456789.:[]abcdefghlostxLOE-@/ ";
  int fine_ones = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string host = kHosts[1 + below(std::size(kHosts) - 1)].text;
    for (size_t edits = below(3); edits > 0; --edits) {
      const size_t at = below(host.size() + 1);
      switch (below(3)) {
        case 0:
          host.insert(at, 1, kBytes[below(kBytes.size())]);
          break;
        case 1:
          host.erase(at, 1);
          break;
        default:
          host.insert(at, kHosts[below(std::size(kHosts))].text);
          break;
      }
    }
    const bool expected = host.empty() || std::regex_match(host, fine);
    fine_ones += expected ? 1 : 0;
    HttpRequest request;
    request.host = host;
    ASSERT_EQ(status(access, request), expected ? 200 : 403) << host;
  }
  EXPECT_GT(fine_ones, 2'000);
}

}  // namespace
}  // namespace kvcast
