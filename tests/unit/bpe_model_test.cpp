#include "tokenizer/bpe_model.h"

#include <gtest/gtest.h>

#include <random>

#include "support/slow_bpe.h"

namespace kvcast {
namespace {

/// Few letters and many merges, so that merges overlap and undo each other's chances.
struct RandomModel {
  BpeModel fast;
  SlowBpe slow;

  explicit RandomModel(std::mt19937_64& random) {
    fast.byte_level = true;
    const int32_t letters = 2 + static_cast<int32_t>(random() % 5);
    for (int32_t letter = 0; letter < letters; ++letter) {
      fast.bytes[static_cast<size_t>('a' + letter)] = letter;
    }
    int32_t tokens = letters;
    const size_t count = random() % 60;
    for (uint32_t rank = 0; rank < count; ++rank) {
      const auto left = static_cast<int32_t>(random() % static_cast<uint64_t>(tokens));
      const auto right = static_cast<int32_t>(random() % static_cast<uint64_t>(tokens));
      // Now and then a result that is there already, and a rank that another merge has.
      const int32_t result = random() % 4 == 0 ? static_cast<int32_t>(random()) % tokens : tokens;
      const uint32_t used = random() % 4 == 0 ? rank / 2 : rank;
      if (result < 0) continue;
      fast.add_merge(left, right, result, used);
      slow.merges.insert({{left, right}, {used, result}});
      tokens = std::max(tokens, result + 1);
    }
  }
};

TEST(BpeModel, IdsAreThoseOfTheDefinitionOnRandomModels) {
  std::mt19937_64 random(7);
  size_t merged = 0;
  for (int round = 0; round < 500; ++round) {
    const RandomModel model(random);
    BpeScratch scratch(1 << 20);
    std::vector<int32_t> all;
    for (int word = 0; word < 40; ++word) {
      std::string text;
      std::vector<int32_t> letters;
      for (size_t length = random() % 60; length > 0; --length) {
        text += static_cast<char>('a' + random() % 5);
        const int32_t letter = model.fast.bytes[static_cast<uint8_t>(text.back())];
        if (letter >= 0) letters.push_back(letter);  // what has no token is left out
      }
      const size_t before = all.size();
      model.fast.encode(text, scratch, all);
      model.fast.encode(text, scratch, all);  // remembered if it is short
      const auto expected = model.slow.encode(letters);
      merged += letters.size() - expected.size();
      const size_t half = (all.size() - before) / 2;
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(before);
      const auto second = first + static_cast<std::ptrdiff_t>(half);
      ASSERT_EQ(std::vector<int32_t>(first, second), expected) << text;
      ASSERT_EQ(std::vector<int32_t>(second, all.end()), expected) << text;
    }
  }
  EXPECT_GT(merged, 10'000U);
}

TEST(BpeModel, AWordOfAMegabyteTakesNoMoreThanALogarithm) {
  BpeModel model;
  model.byte_level = true;
  model.bytes['a'] = 0;
  for (int32_t level = 0; level < 12; ++level) {
    model.add_merge(level, level, level + 1, static_cast<uint32_t>(level));
  }
  BpeScratch scratch(0);
  std::vector<int32_t> tokens;
  model.encode(std::string(1 << 20, 'a'), scratch, tokens);
  EXPECT_EQ(tokens, std::vector<int32_t>(1 << 8, 12));
}

}  // namespace
}  // namespace kvcast
