#include "train/data/shard_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <mutex>
#include <thread>

#include "train/data/documents.h"
#include "train/data/error.h"
#include "train/data/random.h"

namespace kvcast::train {
namespace {

constexpr size_t kBlockBytes = size_t{32} << 20;

using Block = std::vector<std::string>;

Block read_block(DocumentReader& reader) {
  Block block;
  size_t bytes = 0;
  while (bytes < kBlockBytes) {
    auto document = reader.next();
    if (!document) break;
    bytes += document->size();
    block.push_back(std::move(*document));
  }
  return block;
}

/// Calls work(i) for i in [0, n) on several threads; rethrows the first exception.
void parallel_for(size_t n, int64_t threads, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto worker = [&] {
    try {
      for (size_t i = next++; i < n; i = next++) work(i);
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
      next = n;
    }
  };
  {
    std::vector<std::jthread> pool;
    for (int64_t t = 1; t < threads; ++t) pool.emplace_back(worker);
    worker();
  }
  if (failure) std::rethrow_exception(failure);
}

/// Collects one split's tokens and writes a shard whenever one is full.
class SplitWriter {
 public:
  SplitWriter(const ShardsRecipe& recipe, int64_t bytes_per_token, std::string stem,
              SplitIndex& index)
      : recipe_(recipe), bytes_per_token_(bytes_per_token), stem_(std::move(stem)), index_(index) {}

  void add(const std::vector<int32_t>& document, size_t text_bytes) {
    ++index_.documents;
    index_.text_bytes += static_cast<int64_t>(text_bytes);
    for (size_t done = 0; done < document.size();) {
      const size_t room = static_cast<size_t>(recipe_.shard_tokens) - pending_.size();
      const size_t count = std::min(room, document.size() - done);
      const auto from = document.begin() + static_cast<std::ptrdiff_t>(done);
      pending_.insert(pending_.end(), from, from + static_cast<std::ptrdiff_t>(count));
      done += count;
      if (static_cast<int64_t>(pending_.size()) == recipe_.shard_tokens) flush();
    }
  }

  void flush() {
    if (pending_.empty()) return;
    const std::string name = fmt::format("{}-{:05}.tok", stem_, index_.shards.size());
    write_shard(recipe_.output / name, pending_, bytes_per_token_);
    index_.shards.push_back({name, static_cast<int64_t>(pending_.size())});
    index_.tokens += static_cast<int64_t>(pending_.size());
    pending_.clear();
  }

 private:
  const ShardsRecipe& recipe_;
  int64_t bytes_per_token_;
  std::string stem_;
  SplitIndex& index_;
  std::vector<int32_t> pending_;
};

int64_t thread_count(int64_t asked) {
  return asked > 0 ? asked : std::max<int64_t>(1, std::thread::hardware_concurrency());
}

void write_source(const ShardsRecipe& recipe, const TextEncoder& encoder, SourceIndex& index,
                  const std::filesystem::path& path, ShardProgress& done,
                  const std::function<void(const ShardProgress&)>& progress) {
  const int64_t bytes_per_token = encoder.vocab_size <= 65536 ? 2 : 4;
  SplitWriter train(recipe, bytes_per_token, index.name, index.train);
  SplitWriter held_out(recipe, bytes_per_token, index.name + "-held-out", index.held_out);
  const uint64_t split_seed = mix(recipe.seed, hash_text(index.name));
  const int64_t threads = thread_count(recipe.threads);

  DocumentReader reader(path);
  uint64_t document_number = 0;
  done.source = index.name;
  Block block = read_block(reader);
  while (!block.empty()) {
    auto next_block = std::async(std::launch::async, [&reader] { return read_block(reader); });
    std::vector<std::vector<int32_t>> ids(block.size());
    parallel_for(block.size(), threads, [&](size_t i) {
      ids[i].push_back(static_cast<int32_t>(encoder.bos_token));
      encoder.encode(block[i], ids[i]);
      ids[i].push_back(static_cast<int32_t>(encoder.eos_token));
    });
    for (size_t i = 0; i < block.size(); ++i) {
      const bool is_held_out =
          falls_in_fraction(mix(split_seed, document_number++), recipe.held_out_fraction);
      (is_held_out ? held_out : train).add(ids[i], block[i].size());
      ++done.documents;
      done.tokens += static_cast<int64_t>(ids[i].size());
      done.text_bytes += static_cast<int64_t>(block[i].size());
    }
    if (progress) progress(done);
    block = next_block.get();
  }
  train.flush();
  held_out.flush();
}

}  // namespace

ShardIndex write_shards(const ShardsRecipe& recipe, const TextEncoder& encoder,
                        const std::function<void(const ShardProgress&)>& progress) {
  std::filesystem::create_directories(recipe.output);
  // The index is written last: without it a directory is not one of shards.
  std::filesystem::remove(recipe.output / kShardIndexName);
  ShardIndex index{.vocab_size = encoder.vocab_size,
                   .bos_token = encoder.bos_token,
                   .eos_token = encoder.eos_token,
                   .seed = recipe.seed,
                   .held_out_fraction = recipe.held_out_fraction,
                   .sources = {}};
  ShardProgress done;
  for (const auto& source : recipe.sources) {
    SourceIndex& source_index =
        index.sources.emplace_back(SourceIndex{source.name, source.epochs, {}, {}});
    write_source(recipe, encoder, source_index, source.path, done, progress);
    if (source_index.train.tokens == 0) {
      throw TrainError(source.path.string() + ": no training documents in it");
    }
  }
  write_shard_index(recipe.output, index);
  return index;
}

}  // namespace kvcast::train
