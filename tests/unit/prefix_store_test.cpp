// Prefixes that outlive the process: what comes back is what was saved, or nothing.
#include "runtime/prefix_store.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "prefill/strategy.h"
#include "runtime/prefix_pool.h"
#include "support/temporary_directory.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kVocab = 211, kMostBytes = int64_t{1} << 30;

Models small_models() {
  const ModelConfig config = make_openelm_config({.n_layers = 4,
                                                  .model_dim = 64,
                                                  .head_dim = 16,
                                                  .gqa_groups = 2,
                                                  .ffn_dim_divisor = 16,
                                                  .vocab_size = kVocab,
                                                  .max_context_tokens = 800});
  return random_models(config, nullptr, {}, WeightType::kF32, 1);
}

/// An exactly read prompt.
std::shared_ptr<Sequence> read(const Models& models, int32_t count, int32_t salt = 0) {
  auto sequence = std::make_shared<Sequence>(models);
  for (int32_t i = 0; i < count; ++i) sequence->tokens.push_back((i * 37 + 11 + salt) % kVocab);
  Sequence* const one[] = {sequence.get()};
  std::vector<float> logits(kVocab);
  PrefillWorkspace workspace;
  make_exact_strategy()->prefill(models, one, logits.data(), workspace, {});
  return sequence;
}

void expect_same_rows(const Sequence& found, const Sequence& saved) {
  EXPECT_EQ(found.tokens, saved.tokens);
  EXPECT_EQ(found.base.next_position(), std::ssize(saved.tokens));
  EXPECT_EQ(found.base.exact_rows(), std::ssize(saved.tokens));
  for (int64_t layer = 0; layer < saved.base.n_layers(); ++layer) {
    EXPECT_EQ(cached_values(found.base, layer), cached_values(saved.base, layer));
  }
}

class Store : public testing::Test {
 protected:
  std::unique_ptr<PrefixStore> open(uint64_t key = 7, int64_t most_bytes = kMostBytes) {
    auto store = PrefixStore::open(folder_.path() / "prefixes", key, models_, most_bytes);
    EXPECT_TRUE(store) << store.error().message;
    return std::move(*store);
  }
  std::vector<fs::path> files() {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder_.path() / "prefixes")) {
      found.push_back(entry.path());
    }
    return found;
  }
  Models models_ = small_models();
  TemporaryDirectory folder_;
};

TEST_F(Store, GivesBackWhatWasSavedAfterARestart) {
  for (const KvType type : {KvType::kF32, KvType::kBf16, KvType::kInt8}) {
    models_.kv_type = type;
    const auto key = static_cast<uint64_t>(type);
    const auto saved = read(models_, 100);
    { open(key)->save(saved); }
    const auto store = open(key);
    auto asked = saved->tokens;
    asked.resize(60);  // the end was cut and replaced: the longest common beginning counts
    asked.push_back(1);
    const auto found = store->load(asked, 0);
    ASSERT_TRUE(found);
    expect_same_rows(*found, *saved);
    EXPECT_EQ(store->load(asked, 60), nullptr);  // not more than there is in memory
  }
}

TEST_F(Store, ServesNothingOfAnotherModel) {
  const auto saved = read(models_, 100);
  { open(7)->save(saved); }
  EXPECT_EQ(open(8)->load(saved->tokens, 0), nullptr);
  EXPECT_TRUE(open(7)->load(saved->tokens, 0));  // whose files stay
}

TEST_F(Store, AFlippedBitAnywhereIsNeverServed) {
  const auto saved = read(models_, 40);
  { open()->save(saved); }
  const fs::path file = files().at(0);
  std::string contents;
  {
    std::ifstream in(file, std::ios::binary);
    contents.assign(std::istreambuf_iterator<char>(in), {});
  }
  const size_t stride = contents.size() / 200 + 1;
  for (size_t at = 0; at < contents.size(); at += at < 240 ? 1 : stride) {
    std::string damaged = contents;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    std::ofstream(file, std::ios::binary) << damaged;
    const auto found = open()->load(saved->tokens, 0);
    EXPECT_EQ(found, nullptr) << "byte " << at;
    std::ofstream(file, std::ios::binary) << contents;  // it was removed
  }
  for (const size_t length : {size_t{0}, size_t{20}, contents.size() - 1}) {
    std::ofstream(file, std::ios::binary) << contents.substr(0, length);
    EXPECT_EQ(open()->load(saved->tokens, 0), nullptr) << length << " bytes";
  }
}

TEST_F(Store, KeepsToItsLimitByLeastRecentUse) {
  const auto first = read(models_, 100, 1), second = read(models_, 100, 2),
             third = read(models_, 100, 3);
  { open()->save(first); }
  const auto one_file = static_cast<int64_t>(fs::file_size(files().at(0)));
  const auto store = open(7, one_file * 5 / 2);
  store->save(second);
  store->flush();
  EXPECT_TRUE(store->load(first->tokens, 50));
  store->save(third);
  store->flush();
  EXPECT_EQ(files().size(), 2);
  EXPECT_TRUE(store->load(first->tokens, 50));
  EXPECT_EQ(store->load(second->tokens, 50), nullptr);
}

TEST_F(Store, ALongerPrefixReplacesTheShorterOnesThatItCovers) {
  const auto store = open();
  store->save(read(models_, 50));
  store->save(read(models_, 90));
  store->flush();
  EXPECT_EQ(files().size(), 1);
  store->save(read(models_, 60));  // covered
  store->flush();
  EXPECT_EQ(files().size(), 1);
}

TEST_F(Store, KilledWhileWritingItLosesAtMostTheEntryBeingWritten) {
  const auto first = read(models_, 64, 1);
  { open()->save(first); }
  const auto whole = fs::file_size(files().at(0));
  for (int round = 0; round < 100; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      // No other thread lives on in the child; the store starts its own.
      auto store = PrefixStore::open(folder_.path() / "prefixes", 7, models_, kMostBytes);
      for (int32_t i = 0;; ++i) {
        auto copy = std::make_shared<Sequence>(models_);
        copy->tokens = first->tokens;
        copy->tokens[0] = (i + round) % kVocab;
        copy->base.copy_from(first->base, 64);
        (*store)->save(copy);
        (*store)->flush();
      }
    }
    usleep(static_cast<useconds_t>(500 + round * 150));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  const auto found = open()->load(first->tokens, 0);
  ASSERT_TRUE(found);
  expect_same_rows(*found, *first);
  for (const auto& file : files()) {  // whole files, or temporary ones that nobody reads
    EXPECT_TRUE(file.extension() != ".kvprefix" || fs::file_size(file) == whole) << file;
  }
}

TEST_F(Store, ADiskThatIsFullCostsTheEntryOnly) {
  const auto saved = read(models_, 100);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit small{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &small);
    auto store = PrefixStore::open(folder_.path() / "prefixes", 7, models_, kMostBytes);
    (*store)->save(saved);
    (*store)->flush();
    _exit((*store)->load(saved->tokens, 0) ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_TRUE(files().empty());
}

TEST_F(Store, WhatIsNoRegularFileIsPassedOverAndNotWaitedFor) {
  const auto saved = read(models_, 100);
  { open()->save(saved); }
  const fs::path folder = folder_.path() / "prefixes";
  ASSERT_EQ(mkfifo((folder / "pipe.kvprefix").c_str(), 0600), 0);
  ASSERT_EQ(mkfifo((folder / "pipe.kvprefix.tmp.x").c_str(), 0600), 0);
  fs::create_directory(folder / "directory.kvprefix");
  fs::create_symlink("/dev/zero", folder / "device.kvprefix");
  fs::create_symlink("nowhere", folder / "link.kvprefix");
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string path = (folder / "socket.kvprefix").string();
  ASSERT_LT(path.size(), sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const auto store = open();
  ASSERT_TRUE(store);
  EXPECT_TRUE(store->load(saved->tokens, 50));
  close(listener);
}

TEST_F(Store, APipeWhereAnEntryBelongsCostsTheEntryOnly) {
  const auto saved = read(models_, 100);
  { open()->save(saved); }
  const fs::path entry = files().at(0);
  fs::remove(entry);
  ASSERT_EQ(mkfifo(entry.c_str(), 0600), 0);
  const auto store = open();
  EXPECT_EQ(store->load(saved->tokens, 50), nullptr);
  store->save(saved);
  store->flush();
  EXPECT_TRUE(fs::is_fifo(entry));
}

TEST_F(Store, ThePoolAsksTheStoreAndKeepsWhatComes) {
  const auto saved = read(models_, 100);
  { open()->save(saved); }
  PrefixPool pool(models_, kMostBytes);
  pool.keep_in(open());
  for (int round = 0; round < 2; ++round) {
    Sequence sequence(models_);
    sequence.tokens = saved->tokens;
    EXPECT_EQ(pool.take(CacheFamily::kExact, 99, sequence), 99);
    EXPECT_EQ(sequence.base.exact_rows(), 99);
    EXPECT_EQ(pool.take(CacheFamily::kForecast, 99, sequence), 0);
  }
  EXPECT_GT(pool.bytes(), 0);
}

TEST(Pool, KeepsNoMemoryForRowsThatNeverCame) {
  const Models models = small_models();
  const auto answered = read(models, 100);
  answered->base.reserve(450);
  const int64_t reserved = answered->base.bytes();
  PrefixPool pool(models, kMostBytes);
  pool.put(CacheFamily::kExact, 100, std::move(*answered));
  EXPECT_GT(pool.bytes(), reserved / 5);  // 100 rows
  EXPECT_LT(pool.bytes(), reserved / 2);
}

}  // namespace
}  // namespace kvcast
