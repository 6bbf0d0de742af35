// Token ids of a text file, for comparison with another implementation's, and how fast they come:
//   kvcast_tokenizer_ids TOKENIZER TEXT [--out FILE] [--parse-special]
// The file gets one int32 an id. Prints megabytes a second of one thread, the best of five.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string_view>

#include "base/mapped_file.h"
#include "tokenizer/tokenizer.h"

namespace {

int refuse(std::string_view message) {
  fmt::print(stderr, "kvcast_tokenizer_ids: {}\n", message);
  return 1;
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace kvcast;
  if (argc < 3) return refuse("expected TOKENIZER TEXT [--out FILE] [--parse-special]");
  EncodeOptions options;
  std::string_view out;
  for (int i = 3; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--parse-special") options.parse_special = true;
    if (argument == "--out" && i + 1 < argc) out = argv[++i];
  }
  const double before = seconds_now();
  const auto tokenizer = Tokenizer::load(argv[1]);
  if (!tokenizer) return refuse(tokenizer.error().message);
  const double loaded = seconds_now();
  const auto text = read_text_file(argv[2]);
  if (!text) return refuse(text.error().message);
  std::vector<int32_t> tokens;
  double best = 1e9;
  for (int round = 0; round < 5; ++round) {
    const double start = seconds_now();
    tokens = (*tokenizer)->encode(*text, options);
    best = std::min(best, seconds_now() - start);
  }
  const auto megabytes = static_cast<double>(text->size()) / 1e6;
  fmt::print("{:.1f} MB, {} tokens, {:.1f} MB/s on one thread; loaded in {:.0f} ms\n", megabytes,
             tokens.size(), megabytes / best, (loaded - before) * 1e3);
  if (out.empty()) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(tokens.data()),
                               tokens.size() * sizeof(int32_t));
  const auto written = write_file_atomically(std::string(out), bytes);
  return written ? 0 : refuse(written.error().message);
}
