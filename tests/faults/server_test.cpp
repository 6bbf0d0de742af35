// Memory runs out at every n-th allocation that the server makes for a request: the client gets an
// answer, an error or a closed connection, and the next request is served.
#include <gtest/gtest.h>

#include "faults/failing_allocations.h"
#include "server/server_fixture.h"

namespace kvcast {
namespace {

using nlohmann::json;

TEST(ServerAllocations, OfARequest) {
  const WorkingAllocations on_this_thread;
  RunningServer server;
  const json body = {{"prompt", {1, 17, 30, 41, 57, 60, 71, 80}},
                     {"max_tokens", 6},
                     {"stream", true},
                     {"logprobs", 2},
                     {"prefill", "kv-prediction:tail=3,refine=4"}};
  const bool every = std::getenv("KVCAST_EVERY_ALLOCATION") != nullptr;
  int64_t tried = 0, answered = 0, refused = 0, closed = 0;
  for (int64_t n = 1; !HasFailure(); n += every || n < 100 ? 1 : 1 + n / 20) {
    SCOPED_TRACE("allocation " + std::to_string(n));
    const FailingAllocation failing(n);
    {
      constexpr int kPatience = 10;
      HttpClient client(server.port(), kPatience);
      const auto start = std::chrono::steady_clock::now();
      const ClientResponse response = client.post("/v1/completions", body);
      EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(kPatience))
          << "nobody answered, nobody hung up";
      closed += response.status == 0 ? 1 : 0;
      refused += response.status >= 400 ? 1 : 0;
      answered += response.status == 200 ? 1 : 0;
    }
    EXPECT_TRUE(server.becomes_idle(10));
    if (!FailingAllocation::failed()) break;
    ++tried;
  }
  std::cout << tried << " allocations failed: " << answered << " answered, " << refused
            << " refused, " << closed << " closed\n";
  EXPECT_GT(tried, 100);
  const ClientResponse response = HttpClient(server.port()).post("/v1/completions", body);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(server.metric("cache_bytes"), 0);
}

}  // namespace
}  // namespace kvcast
