// Token ids of texts, for comparison with another implementation's, and how fast they come:
//   kvcast_tokenizer_ids MODEL TEXT [--out FILE] [--parse-special] [--many]
// MODEL is a tokenizer.json or tokenizer.model, a GGUF file, or a directory that holds one. The
// file gets one int32 an id. Prints megabytes a second of one thread, the best of five.
// --many: TEXT holds texts, each behind its length as int32. For each one the file gets three
// lists, each behind its length: ids as plain text; ids with control tokens parsed and what the
// model wants around a text; the bytes of what the first list decodes to.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "base/mapped_file.h"
#include "model/model_text.h"

namespace kvcast {
namespace {

int refuse(std::string_view message) {
  fmt::print(stderr, "kvcast_tokenizer_ids: {}\n", message);
  return 1;
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string_view bytes_of(const std::vector<int32_t>& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)};
}

void append_number(std::string& out, size_t number) {
  const auto value = static_cast<int32_t>(number);
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// Empty if `texts` is no list of texts behind their lengths.
std::string encode_many(const Tokenizer& tokenizer, std::string_view texts) {
  std::string out;
  while (!texts.empty()) {
    int32_t length = -1;
    if (texts.size() >= sizeof length) std::memcpy(&length, texts.data(), sizeof length);
    if (length < 0 || texts.size() - sizeof length < static_cast<size_t>(length)) return {};
    const auto text = texts.substr(sizeof length, static_cast<size_t>(length));
    texts.remove_prefix(sizeof length + text.size());
    const auto plain = tokenizer.encode(text, false);
    const auto parsed =
        tokenizer.encode(text, {.add_special = true, .parse_special = true, .breaks = {}});
    for (const auto& ids : {plain, parsed}) {
      append_number(out, ids.size());
      out += bytes_of(ids);
    }
    const std::string decoded = tokenizer.decode(plain);
    append_number(out, decoded.size());
    out += decoded;
  }
  return out;
}

int run(int argc, char** argv) {
  if (argc < 3) return refuse("expected MODEL TEXT [--out FILE] [--parse-special] [--many]");
  EncodeOptions options;
  std::string out;
  bool many = false;
  for (int i = 3; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--parse-special") options.parse_special = true;
    if (argument == "--many") many = true;
    if (argument == "--out" && i + 1 < argc) out = argv[++i];
  }
  const double before = seconds_now();
  const auto tokenizer = open_tokenizer(argv[1], argv[1]);
  if (!tokenizer) return refuse(tokenizer.error().message);
  if (!*tokenizer) return refuse(fmt::format("{}: no tokenizer", argv[1]));
  const double loaded = seconds_now();
  const auto text = read_text_file(argv[2]);
  if (!text) return refuse(text.error().message);
  if (many) {
    const auto written = write_file_atomically(out, encode_many(**tokenizer, *text));
    return written ? 0 : refuse(written.error().message);
  }
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
  const auto written = write_file_atomically(out, bytes_of(tokens));
  return written ? 0 : refuse(written.error().message);
}

}  // namespace
}  // namespace kvcast

int main(int argc, char** argv) { return kvcast::run(argc, argv); }
