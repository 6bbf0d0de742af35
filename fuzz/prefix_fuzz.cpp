// Files in the folder of a prefix store: those that are whole come back as they were written,
// others never, and over whatever comes back the model goes on. What it computed is kept in turn,
// and comes back from the files of a store that is opened anew.
#include <chrono>
#include <cstring>
#include <memory>
#include <span>

#include "base/hash.h"
#include "fuzz.h"
#include "prefill/strategy.h"
#include "runtime/prefix_pool.h"

namespace kvcast {
namespace {

constexpr uint64_t kKey = 0x1234;
constexpr int32_t kVocab = 40;
constexpr int64_t kContext = 48;

const Models& models() {
  static const Models made = random_models(make_openelm_config({.n_layers = 2,
                                                                .model_dim = 32,
                                                                .head_dim = 16,
                                                                .gqa_groups = 2,
                                                                .ffn_dim_divisor = 16,
                                                                .vocab_size = kVocab,
                                                                .max_context_tokens = kContext}),
                                           nullptr, {}, WeightType::kF32, 1);
  return made;
}

std::vector<int32_t> prompt(uint8_t salt, size_t count) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) {
    tokens[i] = static_cast<int32_t>((i * 7 + salt % 4U) % static_cast<uint32_t>(kVocab));
  }
  return tokens;
}

/// docs/FORMAT.md, "Prefix stores", with what the input chooses to be wrong.
struct Entry {
  std::vector<int32_t> tokens;
  std::string bytes;
  bool whole = true;
};

Entry entry(Input& input) {
  Entry made;
  const uint8_t salt = input.byte();
  made.tokens = prompt(salt, input.byte() % (kContext + 3));
  const auto rows = static_cast<int64_t>(made.tokens.size());
  std::array<uint64_t, 3> fields = {
      kKey, made.tokens.size(), static_cast<uint64_t>(Sequence(models()).base.held_bytes(rows))};
  std::string rest(made.tokens.size() * 4 + fields[2], '\0');
  if (!made.tokens.empty()) std::memcpy(rest.data(), made.tokens.data(), made.tokens.size() * 4);
  const std::string_view pattern = input.text(24);
  for (size_t i = made.tokens.size() * 4; i < rest.size() && !pattern.empty(); ++i) {
    rest[i] = pattern[i % pattern.size()];
  }
  const auto damage = [&](uint8_t chance) {
    const bool damaged = input.byte() >= 256 - chance;
    made.whole = made.whole && !damaged;
    return damaged;
  };
  for (uint64_t& field : fields) {
    if (damage(24)) field += input.byte() % 2 == 0 ? 1 + input.byte() : uint64_t{1} << 62;
  }
  if (damage(24)) rest.resize(rest.size() * input.byte() / 256);
  if (damage(24)) rest += 'x';
  // A hash over whatever it is now, so that what is wrong is found by its own check.
  uint64_t hash =
      hash64(std::as_bytes(std::span(rest)), hash64_of(std::span<const uint64_t>(fields)));
  if (damage(24)) ++hash;
  made.bytes = "kvprefx1";
  made.bytes.append(reinterpret_cast<const char*>(fields.data()), sizeof fields);
  made.bytes.append(reinterpret_cast<const char*>(&hash), sizeof hash);
  made.bytes += rest;
  if (damage(24) && !made.bytes.empty()) made.bytes.resize(input.byte() % 48);
  return made;
}

/// Rows of any bits are served and run over: they may be no numbers, but never a crash.
void go_on(Sequence& sequence) {
  Sequence* const one[] = {&sequence};
  std::vector<float> logits(kVocab);
  PrefillWorkspace workspace;
  make_exact_strategy()->prefill(models(), one, logits.data(), workspace, {});
}

/// Of a process that was killed: it goes, unless it may still be written.
void check_half_written(const ScratchDirectory& folder, bool old) {
  constexpr const char* kName = "entry.kvprefix.tmp.1";
  folder.write(kName, "kvprefx1");
  const std::filesystem::path path = folder.path() / kName;
  const auto now = std::filesystem::file_time_type::clock::now();
  if (old) std::filesystem::last_write_time(path, now - std::chrono::hours(1));
  FUZZ_CHECK(PrefixStore::open(folder.path(), kKey, models(), 1 << 20).has_value());
  FUZZ_CHECK(std::filesystem::exists(path) != old);
}

/// Some hold a prompt or two only.
std::unique_ptr<PrefixPool> open_pool(const ScratchDirectory& folder, uint8_t bounds) {
  auto pool = std::make_unique<PrefixPool>(models(), bounds % 4 == 0 ? 4000 : 1 << 20);
  auto store = PrefixStore::open(folder.path(), kKey, models(), bounds % 8 >= 4 ? 30000 : 1 << 20);
  FUZZ_CHECK(store.has_value());
  pool->keep_in(std::move(*store));
  return pool;
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  static const ScratchDirectory folder;
  Input input(data, size);
  for (const auto& old : std::filesystem::directory_iterator(folder.path())) {
    std::filesystem::remove(old.path());
  }
  std::vector<Entry> entries(input.byte() % 3);
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i] = entry(input);
    folder.write("entry" + std::to_string(i) + ".kvprefix", entries[i].bytes);
  }
  const uint8_t raw = input.byte();
  folder.write("raw.kvprefix", raw % 2 == 0 ? "" : input.text(200));
  check_half_written(folder, raw % 4 >= 2);

  const uint8_t bounds = input.byte();
  auto pool = open_pool(folder, bounds);
  while (!input.empty()) {
    const uint8_t choices = input.byte();  // of which the lowest bits are the prompt's
    if ((choices & 0x40) != 0) {
      pool.reset();  // writes what is waiting
      pool = open_pool(folder, bounds);
    }
    Sequence sequence(models());
    sequence.tokens = prompt(choices, 1 + input.byte() % kContext);
    const int64_t limit = std::ssize(sequence.tokens) - 1;
    const int64_t taken = pool->take(CacheFamily::kExact, limit, sequence);
    FUZZ_CHECK(taken >= 0 && taken <= limit && sequence.base.exact_rows() == taken);
    const auto serves = [&](const Entry& each) {
      return each.whole && std::ssize(each.tokens) >= taken &&
             std::equal(sequence.tokens.begin(), sequence.tokens.begin() + taken,
                        each.tokens.begin());
    };
    FUZZ_CHECK(taken == 0 || std::ranges::any_of(entries, serves));
    go_on(sequence);
    const int64_t rows = sequence.base.next_position();
    FUZZ_CHECK(rows == std::ssize(sequence.tokens));
    if ((choices & 0x10) == 0) continue;
    entries.push_back({.tokens = sequence.tokens, .bytes = {}});
    pool->put(CacheFamily::kExact, rows, std::move(sequence), (choices & 0x20) != 0);
  }
  return 0;
}
