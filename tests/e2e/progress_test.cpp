// What shows how far a long command is.
#include <gmock/gmock.h>

#include "support/terminal.h"

namespace kvcast {
namespace {

TEST(Progress, StaysOnOneLineOfANarrowTerminal) {
  constexpr unsigned short kColumns = 40;
  Terminal terminal(
      {std::string(KVCAST_BINARY_DIR) + "/kvcast", "eval",
       std::string(KVCAST_SOURCE_DIR) + "/models/kvcast-65m", "--task", "passkey", "--limit", "4",
       "--lengths", "64", "--prefill", "kv-prediction:tail=16", "--timing-repetitions", "0"},
      kColumns);
  const std::string& shown = terminal.all_shown();
  const std::string over = "\r\x1b[K";
  size_t lines = 0;
  for (size_t at = shown.find(over); at != std::string::npos;) {
    const size_t begin = at + over.size();
    at = shown.find(over, begin);
    if (at == std::string::npos) break;
    EXPECT_LT(at - begin, kColumns) << shown.substr(begin, at - begin);
    lines += at > begin ? 1 : 0;
  }
  EXPECT_GE(lines, 1U) << shown;
  EXPECT_THAT(shown, testing::HasSubstr("4 of 4"));
}

}  // namespace
}  // namespace kvcast
