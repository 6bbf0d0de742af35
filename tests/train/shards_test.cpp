#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <thread>

#include "train/data/documents.h"
#include "train/data/error.h"
#include "train/data/ordered_work.h"
#include "train/data/random.h"
#include "train/data/shard_index.h"
#include "train/data/window_sampler.h"
#include "train_test_support.h"

namespace kvcast::train {
namespace {

std::vector<std::string> documents_of(const std::filesystem::path& path,
                                      TextEncoding encoding = TextEncoding::kUtf8) {
  DocumentReader reader(path, encoding);
  std::vector<std::string> documents;
  while (auto document = reader.next()) documents.push_back(*document);
  return documents;
}

std::vector<int64_t> all_tokens(const std::filesystem::path& directory, const SplitIndex& split) {
  const TokenStream stream(directory, split, 2, 96);
  std::vector<int64_t> tokens(static_cast<size_t>(stream.size()));
  stream.copy(0, stream.size(), tokens.data());
  return tokens;
}

TEST(Documents, TextIsCutAtTheMarkerAndBlankOnesAreDropped) {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "a.txt";
  write_file(file, "One.\n\nTwo  spaces.\n<|endoftext|>\n\n<|endoftext|>\nlast, without a marker");
  EXPECT_EQ(documents_of(file),
            (std::vector<std::string>{"One.\n\nTwo  spaces.", "last, without a marker"}));
}

TEST(Documents, JsonLinesGiveTextOrQuestionAndAnswer) {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "a.jsonl";
  write_file(file,
             "{\"text\": \"Hello\\nthere\"}\n{\"question\": \"Why?\", \"answer\": \"So.\"}\n");
  EXPECT_EQ(documents_of(file),
            (std::vector<std::string>{"Hello\nthere", "Question: Why?\nAnswer: So."}));
  write_file(file, "{\"text\": \"fine\"}\n{\"title\": 3}\n");
  EXPECT_THROW(documents_of(file), TrainError);
}

TEST(Documents, BytesThatAreNotUtf8AreAnErrorWithTheirOffsetOrReplaced) {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "a.txt";
  // Behind more than one chunk of the reader; the bad byte is the third of its line.
  const std::string before(std::string(3 << 20, 'x') + "\r\n\xC3\xA9\n");
  write_file(file, before + "ab\xE9 c\n");
  try {
    documents_of(file);
    FAIL() << "no error";
  } catch (const TrainError& error) {
    const std::string offset = "byte " + std::to_string(before.size() + 2) + ":";
    EXPECT_THAT(error.what(), testing::HasSubstr(file.string()));
    EXPECT_THAT(error.what(), testing::HasSubstr(offset));
  }
  const auto replaced = documents_of(file, TextEncoding::kReplace);
  ASSERT_EQ(replaced.size(), 1U);
  EXPECT_TRUE(replaced[0].ends_with("ab\xEF\xBF\xBD c"));
}

TEST(Documents, PackedFilesAreTheSameAndBrokenOnesAreErrors) {
  const TemporaryDirectory directory;
  const auto plain = directory.path() / "a.txt", packed = directory.path() / "a.txt.zst";
  write_file(plain, tiny_corpus(3000));
  if (std::system(("zstd -q -19 --long=27 " + plain.string()).c_str()) != 0) {
    GTEST_SKIP() << "no zstd program";
  }
  EXPECT_EQ(documents_of(packed), documents_of(plain));
  const std::string bytes = read_file(packed);
  write_file(packed, bytes.substr(0, bytes.size() / 2));
  EXPECT_THROW(documents_of(packed), TrainError);
  write_file(packed, "not zstd at all");
  EXPECT_THROW(documents_of(packed), TrainError);
}

TEST(Documents, GzipIsTheSameAndBrokenFilesAreErrors) {
  const TemporaryDirectory directory;
  const auto plain = directory.path() / "a.txt", packed = directory.path() / "a.txt.gz";
  write_file(plain, tiny_corpus(3000));
  ASSERT_EQ(std::system(("gzip -kn " + plain.string()).c_str()), 0);
  EXPECT_EQ(documents_of(packed), documents_of(plain));
  const std::string bytes = read_file(packed);
  write_file(packed, bytes.substr(0, bytes.size() / 2));
  EXPECT_THROW(documents_of(packed), TrainError);
  write_file(packed, "not gzip at all");
  EXPECT_THROW(documents_of(packed), TrainError);
  write_file(packed, "");
  EXPECT_THROW(documents_of(packed), TrainError);
}

TEST(Shards, HoldEveryDocumentOnceBetweenBosAndEos) {
  const TemporaryDirectory directory;
  const auto recipe = write_tiny_shards(directory.path(), 100);
  const ShardIndex index = read_shard_index(recipe.output);
  ASSERT_EQ(index.sources.size(), 1U);
  const auto& source = index.sources[0];
  EXPECT_EQ(source.train.documents + source.held_out.documents, 100);
  EXPECT_GT(source.held_out.documents, 0);
  EXPECT_LT(source.held_out.documents, 30);

  std::multiset<std::vector<int64_t>> found, expected;
  for (const auto* split : {&source.train, &source.held_out}) {
    std::vector<int64_t> document;
    for (const int64_t token : all_tokens(recipe.output, *split)) {
      EXPECT_EQ(token == index.bos_token, document.empty());
      document.push_back(token);
      if (token == index.eos_token) found.insert(std::exchange(document, {}));
    }
    EXPECT_TRUE(document.empty());
  }
  for (const auto& text : documents_of(directory.path() / "tiny.txt")) {
    std::vector<int32_t> ids = {1};
    byte_encoder().for_thread()(text, ids);
    ids.push_back(2);
    expected.insert(std::vector<int64_t>(ids.begin(), ids.end()));
  }
  EXPECT_EQ(found, expected);
}

TEST(Shards, DoNotDependOnThreadsOrShardSize) {
  const TemporaryDirectory directory;
  ShardsRecipe recipe = write_tiny_shards(directory.path());
  const ShardIndex whole = read_shard_index(recipe.output);
  const auto tokens = all_tokens(recipe.output, whole.sources[0].train);
  recipe.output = directory.path() / "again";
  recipe.threads = 3;
  recipe.shard_tokens = 1024;
  const ShardIndex cut = write_shards(recipe, byte_encoder());
  EXPECT_GT(cut.sources[0].train.shards.size(), 2U);
  EXPECT_EQ(all_tokens(recipe.output, cut.sources[0].train), tokens);

  recipe.seed = 2;
  recipe.output = directory.path() / "other-seed";
  const ShardIndex other = write_shards(recipe, byte_encoder());
  EXPECT_NE(all_tokens(recipe.output, other.sources[0].train), tokens);
}

TEST(Shards, ManyBlocksOnManyThreadsStayInOrder) {
  const TemporaryDirectory directory;
  const int documents = 40000;  // about five blocks
  ShardsRecipe recipe = write_tiny_shards(directory.path(), documents);
  const auto tokens = all_tokens(recipe.output, read_shard_index(recipe.output).sources[0].train);
  recipe.output = directory.path() / "again";
  recipe.threads = 8;
  const ShardIndex again = write_shards(recipe, byte_encoder());
  EXPECT_EQ(all_tokens(recipe.output, again.sources[0].train), tokens);
  EXPECT_EQ(again.sources[0].train.documents + again.sources[0].held_out.documents, documents);
}

TEST(Shards, AFailureOnAThreadStopsTheRunAndLeavesNoIndex) {
  const TemporaryDirectory directory;
  ShardsRecipe recipe = write_tiny_shards(directory.path(), 40000);
  recipe.threads = 4;
  TextEncoder encoder = byte_encoder();
  encoder.for_thread = [] {
    return [](std::string_view text, std::vector<int32_t>&) {
      if (text.find("number 30000") != std::string_view::npos) throw TrainError("cannot encode");
    };
  };
  EXPECT_THROW(write_shards(recipe, encoder), TrainError);
  EXPECT_FALSE(std::filesystem::exists(recipe.output / kShardIndexName));
}

TEST(InOrder, ResultsComeInOrderAndFewItemsAreUnderWay) {
  for (const int64_t threads : {1, 3}) {
    std::atomic<int64_t> under_way{0}, most{0};
    int64_t made = 0;
    std::vector<int64_t> results;
    in_order<int64_t, int64_t>(
        threads,
        [&]() -> std::optional<int64_t> {
          if (made == 500) return std::nullopt;
          most = std::max<int64_t>(most, ++under_way);
          return made++;
        },
        [] {
          return [](int64_t&& item) {
            if (item % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
            return item * item;
          };
        },
        [&](int64_t&& result) {
          --under_way;
          results.push_back(result);
        });
    ASSERT_EQ(results.size(), 500U);
    for (int64_t i = 0; i < 500; ++i) EXPECT_EQ(results[static_cast<size_t>(i)], i * i);
    EXPECT_LE(most, 4 * threads);
  }
}

TEST(Shards, DamageIsAnErrorThatNamesTheFile) {
  const TemporaryDirectory directory;
  const auto recipe = write_tiny_shards(directory.path());
  const ShardIndex index = read_shard_index(recipe.output);
  const auto file = recipe.output / index.sources[0].train.shards[0].file;
  const std::string bytes = read_file(file);
  write_file(file, bytes.substr(0, bytes.size() - 2));
  try {
    all_tokens(recipe.output, index.sources[0].train);
    FAIL() << "a truncated shard was accepted";
  } catch (const TrainError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("tiny-00000.tok"));
  }
  std::string hostile = bytes;
  hostile[32] = static_cast<char>(200);  // a token id beyond the vocabulary
  write_file(file, hostile);
  EXPECT_THROW(all_tokens(recipe.output, index.sources[0].train), TrainError);
  write_file(recipe.output / "shards.json", "{\"format\": 1}");
  EXPECT_THROW(read_shard_index(recipe.output), TrainError);
}

TEST(Permutation, IsABijection) {
  for (const uint64_t n : {1U, 2U, 3U, 17U, 64U, 1000U}) {
    std::set<uint64_t> images;
    for (uint64_t i = 0; i < n; ++i) images.insert(permute(i, n, 7));
    EXPECT_EQ(images.size(), n);
    EXPECT_LT(*images.rbegin(), n);
  }
}

TEST(Windows, CoverTheDataOnceAPassAndDependOnSeedAndNumberAlone) {
  const TemporaryDirectory directory;
  const auto recipe = write_tiny_shards(directory.path());
  DataRecipe data;
  data.shards = recipe.output;
  data.sequence_tokens = 16;
  data.begin_with_bos = false;
  const WindowSampler sampler(data, 5), same(data, 5), other(data, 6);
  const auto tokens = all_tokens(recipe.output, sampler.index().sources[0].train);
  EXPECT_NEAR(static_cast<double>(sampler.samples_per_pass()),
              static_cast<double>(tokens.size()) / 16.0, 3.0);

  std::vector<int64_t> window(17), again(17);
  std::map<int64_t, int> counts, pass_counts;
  int differences = 0;
  for (int64_t i = 0; i < sampler.samples_per_pass(); ++i) {
    sampler.read(i, window.data());
    same.read(i, again.data());
    EXPECT_EQ(window, again);
    other.read(i, again.data());
    differences += window == again ? 0 : 1;
    for (int k = 0; k < 16; ++k) ++pass_counts[window[static_cast<size_t>(k)]];
  }
  EXPECT_GT(differences, sampler.samples_per_pass() / 2);
  // All tokens but at most two windows' worth at the edges.
  for (const int64_t token : tokens) ++counts[token];
  int missing = 0;
  for (const auto& [token, count] : counts) missing += std::abs(count - pass_counts[token]);
  EXPECT_LE(missing, 2 * 17);

  data.begin_with_bos = true;
  WindowSampler(data, 5).read(3, window.data());
  EXPECT_EQ(window[0], 1);
}

TEST(Windows, SourcesAreMixedByTokensTimesEpochsAndPartOfAnEpochDrawsFromTheWholeSource) {
  const TemporaryDirectory directory;
  ShardsRecipe recipe = write_tiny_shards(directory.path(), 400);
  recipe.sources = {{directory.path() / "tiny.txt", "half", 0.5},
                    {directory.path() / "tiny.txt", "thrice", 3.0}};
  write_shards(recipe, byte_encoder());
  DataRecipe data;
  data.shards = recipe.output;
  data.sequence_tokens = 16;
  data.begin_with_bos = false;
  const WindowSampler sampler(data, 5);
  std::vector<double> windows;
  for (const auto& source : sampler.index().sources) {
    windows.push_back(static_cast<double>(source.train.tokens) / 16.0);
  }
  EXPECT_NEAR(static_cast<double>(sampler.samples_per_pass()), 0.5 * windows[0] + 3 * windows[1],
              10.0);

  // With one source alone, windows can be told by where they are: half of them, from both halves.
  recipe.sources = {{directory.path() / "tiny.txt", "half", 0.5}};
  write_shards(recipe, byte_encoder());
  const WindowSampler half(data, 5);
  const auto tokens = all_tokens(recipe.output, half.index().sources[0].train);
  std::map<std::vector<int64_t>, size_t> places;
  for (size_t at = 0; at + 17 <= tokens.size(); ++at) {
    places.emplace(std::vector<int64_t>(tokens.begin() + static_cast<std::ptrdiff_t>(at),
                                        tokens.begin() + static_cast<std::ptrdiff_t>(at + 17)),
                   at);
  }
  std::vector<int64_t> window(17);
  int64_t in_second_half = 0;
  for (int64_t i = 0; i < half.samples_per_pass(); ++i) {
    half.read(i, window.data());
    in_second_half += places.at(window) > tokens.size() / 2 ? 1 : 0;
  }
  EXPECT_GT(in_second_half, half.samples_per_pass() / 4);
}

TEST(TextCommands, TokenizerAndShardsWorkTogether) {
  const std::string program = std::string(KVCAST_BINARY_DIR) + "/kvcast-train";
  if (!std::filesystem::exists(program)) GTEST_SKIP() << program << " is not built";
  const TemporaryDirectory directory;
  write_file(directory.path() / "tiny.txt", tiny_corpus(300));
  write_file(directory.path() / "data.toml", R"(
[tokenizer]
output = "${out}/tokenizer.model"
vocab_size = 320
sample_fraction = 1.0
[shards]
output = "${out}/shards"
tokenizer = "${out}/tokenizer.model"
[[source]]
path = "${out}/tiny.txt"
)");
  const std::string out = directory.path().string();
  const auto run = [&](const std::string& command) {
    return std::system(
        (program + " " + command + " " + out + "/data.toml --set out=" + out + " >/dev/null 2>&1")
            .c_str());
  };
  ASSERT_EQ(run("tokenizer"), 0);
  ASSERT_EQ(run("shards"), 0);
  const ShardIndex index = read_shard_index(directory.path() / "shards");
  EXPECT_EQ(index.vocab_size, 320);
  EXPECT_EQ(index.bos_token, 1);
  EXPECT_EQ(index.eos_token, 2);
  EXPECT_LT(index.sources[0].train.tokens, index.sources[0].train.text_bytes);
  EXPECT_TRUE(std::filesystem::exists(directory.path() / "shards" / "tokenizer.model"));
  EXPECT_NE(run("shards --set shards.tokenizer=/nowhere"), 0);
  EXPECT_NE(run("shards --set shards.surprise=1"), 0);
}

}  // namespace
}  // namespace kvcast::train
