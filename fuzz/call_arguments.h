// What calls of the C API are given: the right, the wrong and the odd, by the input's choice.
#pragma once

#include <array>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "fuzz.h"
#include "kvcast.h"

namespace kvcast {

constexpr int64_t kVocab = 400, kContext = 256;  // of the tiny bundle

/// A copy in memory of exactly its size, so that whoever reads or writes past its end is found out.
template <typename T>
std::unique_ptr<char[]> cut(T filled, Input& input) {
  constexpr std::array<size_t, 4> kSizes = {sizeof(T), sizeof(size_t), 0, sizeof(T) + 64};
  const uint8_t choice = input.byte();
  size_t size = choice < 160 ? sizeof(T) : kSizes[choice % kSizes.size()];
  if (choice > 240) size = input.byte() % (sizeof(T) + 1);
  filled.struct_size = size;
  auto memory = std::make_unique<char[]>(std::max(size, sizeof(size_t)));
  std::memcpy(memory.get(), &filled, std::min(std::max(size, sizeof(size_t)), sizeof(T)));
  return memory;
}

/// What it gives lives as long as it does.
class CallArguments {
 public:
  explicit CallArguments(Input& input) : input_(input) {}

  std::string text() {
    constexpr std::array<std::string_view, 4> kTexts = {"The cat sat. The cat sat. ", "\xff\xc3",
                                                        "<|im_start|><s></s>\n\n",
                                                        "\u2581 \U0001F600e\u0301"};
    const uint8_t choice = input_.byte();
    return std::string(choice < 64 ? kTexts[choice % kTexts.size()] : input_.text(48));
  }
  /// Sometimes none; ends at its first 0, as C's do.
  const char* c_text(std::initializer_list<const char*> known) {
    const uint8_t choice = input_.byte();
    if (choice < 64) return nullptr;
    if (choice < 200 && known.size() > 0) return known.begin()[choice % known.size()];
    return texts_.emplace_back(input_.text(40)).c_str();
  }
  std::vector<int32_t> tokens() {
    constexpr std::array<int32_t, 6> kEdges = {-1,     kVocab, std::numeric_limits<int32_t>::min(),
                                               0x7FFF, 0,      std::numeric_limits<int32_t>::max()};
    std::vector<int32_t> ids(input_.byte() % 40);
    for (int32_t& id : ids) {
      const uint8_t choice = input_.byte();
      id = choice < 250 ? choice + 100 * (choice % 2) : kEdges[choice % kEdges.size()];
    }
    if (input_.byte() > 250) ids.resize(kContext + input_.byte() % 3, 7);
    return ids;
  }
  int64_t integer() {
    constexpr std::array<int64_t, 6> kEdges = {-1,
                                               std::numeric_limits<int64_t>::max(),
                                               std::numeric_limits<int64_t>::min(),
                                               int64_t{1} << 32,
                                               1000,
                                               std::numeric_limits<int32_t>::max()};
    const uint8_t choice = input_.byte();
    return choice < 240 ? choice % 20 : kEdges[choice % kEdges.size()];
  }
  float real() {
    constexpr std::array<float, 7> kEdges = {-1,
                                             1e30F,
                                             1e-40F,
                                             std::numeric_limits<float>::infinity(),
                                             std::numeric_limits<float>::quiet_NaN(),
                                             -0.0F,
                                             2};
    const uint8_t choice = input_.byte();
    return choice < 224 ? static_cast<float>(choice % 11) / 10 : kEdges[choice % kEdges.size()];
  }
  const char* strategy() {
    return c_text({"exact", "kv-prediction", "kv-prediction:tail=3",
                   "kv-prediction:tail=3,refine=4", "auxiliary", "random:0.5", "static:0.5",
                   "lazy:0.75-0.25", "zero-cache", "kv-prediction:gate=auto", "auto:ttft=5",
                   "kv-prediction:refine=auto"});
  }
  kvcast_generate_options asked() {
    kvcast_generate_options options = {};
    options.struct_size = sizeof options;
    options.prefill = strategy();
    options.max_tokens = integer();
    options.temperature = real();
    options.top_p = real();
    options.min_p = real();
    options.repetition_penalty = real();
    options.top_k = integer();
    options.seed = static_cast<uint64_t>(integer());
    auto& stops = stops_.emplace_back(input_.byte() % 3);
    for (const char*& stop : stops) {
      stop = c_text({"a", "the", "\n", ""});
      if (stop == nullptr) stop = "e";
    }
    options.stop = stops.data();
    options.stop_count = stops.size();
    options.ignore_end_of_text = input_.byte() % 2;
    options.suffix = input_.byte() < 240 ? nullptr : c_text({"", "end"});
    options.drafts = c_text({"auto", "off", "1", "8", "64", "65"});
    return options;
  }
  kvcast_chat_options chat_options() {
    return {
        sizeof(kvcast_chat_options),
        c_text({R"([{"type":"function","function":{"name":"look","parameters":{}}}])", "[]", "{"}),
        c_text({"auto", "required", "look", "none"})};
  }

  std::vector<kvcast_tokens> prompts(size_t count) {
    std::vector<kvcast_tokens> made;
    for (size_t i = 0; i < count; ++i) {
      const auto& ids = ids_.emplace_back(tokens());
      made.push_back({ids.data(), ids.size()});
    }
    return made;
  }

 private:
  Input& input_;
  std::deque<std::string> texts_;  // whose addresses stay
  std::deque<std::vector<const char*>> stops_;
  std::deque<std::vector<int32_t>> ids_;
};

}  // namespace kvcast
