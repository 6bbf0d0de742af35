#include "train/data/shard_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "train/data/documents.h"
#include "train/data/error.h"
#include "train/data/ordered_work.h"
#include "train/data/random.h"

namespace kvcast::train {
namespace {

/// Large enough that taking and giving blocks costs nothing, small enough for many threads' blocks.
constexpr size_t kBlockBytes = size_t{1} << 20;

/// Neighbouring documents, at least kBlockBytes of them unless the source ends.
using Block = std::vector<std::string>;

struct Encoded {
  struct Document {
    size_t text_bytes;
    std::vector<int32_t> ids;
  };
  std::vector<Document> documents;
};

std::optional<Block> read_block(DocumentReader& reader) {
  Block block;
  size_t bytes = 0;
  while (bytes < kBlockBytes) {
    auto document = reader.next();
    if (!document) break;
    bytes += document->size();
    block.push_back(std::move(*document));
  }
  if (block.empty()) return std::nullopt;
  return block;
}

Encoded encode_block(const TextEncoder& encoder, const Encode& encode, Block&& block) {
  Encoded encoded;
  for (auto& text : block) {
    auto& document = encoded.documents.emplace_back(Encoded::Document{text.size(), {}});
    document.ids.push_back(static_cast<int32_t>(encoder.bos_token));
    encode(text, document.ids);
    document.ids.push_back(static_cast<int32_t>(encoder.eos_token));
    text = {};
  }
  return encoded;
}

/// Writes one split's tokens, a new shard whenever one is full.
class SplitWriter {
 public:
  SplitWriter(const ShardsRecipe& recipe, int64_t bytes_per_token, std::string stem,
              SplitIndex& index)
      : recipe_(recipe), bytes_per_token_(bytes_per_token), stem_(std::move(stem)), index_(index) {}

  void add(std::span<const int32_t> document, size_t text_bytes) {
    ++index_.documents;
    index_.text_bytes += static_cast<int64_t>(text_bytes);
    while (!document.empty()) {
      if (!shard_) {
        shard_name_ = fmt::format("{}-{:05}.tok", stem_, index_.shards.size());
        shard_.emplace(recipe_.output / shard_name_, bytes_per_token_);
      }
      const auto room = static_cast<size_t>(recipe_.shard_tokens - shard_->tokens());
      const size_t count = std::min(room, document.size());
      shard_->append(document.first(count));
      document = document.subspan(count);
      if (count == room) finish();
    }
  }

  void finish() {
    if (!shard_) return;
    shard_->commit();
    index_.shards.push_back({shard_name_, shard_->tokens()});
    index_.tokens += shard_->tokens();
    shard_.reset();
  }

 private:
  const ShardsRecipe& recipe_;
  int64_t bytes_per_token_;
  std::string stem_, shard_name_;
  SplitIndex& index_;
  std::optional<ShardFileWriter> shard_;
};

int64_t thread_count(int64_t asked) {
  return asked > 0 ? asked : std::max<int64_t>(1, std::thread::hardware_concurrency());
}

void write_source(const ShardsRecipe& recipe, const TextEncoder& encoder, SourceIndex& index,
                  const SourceRecipe& source, ShardProgress& done,
                  const std::function<void(const ShardProgress&)>& progress) {
  const int64_t bytes_per_token = encoder.vocab_size <= 65536 ? 2 : 4;
  SplitWriter train(recipe, bytes_per_token, index.name, index.train);
  SplitWriter held_out(recipe, bytes_per_token, index.name + "-held-out", index.held_out);
  const uint64_t split_seed = mix(recipe.seed, hash_text(index.name));
  DocumentReader reader(source.path, source.encoding);
  uint64_t document_number = 0;
  done.source = index.name;
  const auto write = [&](Encoded&& encoded) {
    for (const auto& document : encoded.documents) {
      const bool is_held_out =
          falls_in_fraction(mix(split_seed, document_number++), recipe.held_out_fraction);
      (is_held_out ? held_out : train).add(document.ids, document.text_bytes);
      ++done.documents;
      done.tokens += static_cast<int64_t>(document.ids.size());
      done.text_bytes += static_cast<int64_t>(document.text_bytes);
    }
    if (progress) progress(done);
  };
  in_order<Block, Encoded>(
      thread_count(recipe.threads), [&] { return read_block(reader); },
      [&] {
        return [&encoder, encode = encoder.for_thread()](Block&& block) {
          return encode_block(encoder, encode, std::move(block));
        };
      },
      write);
  train.finish();
  held_out.finish();
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
        index.sources.emplace_back(SourceIndex{source.name, source.epochs, 0, {}, {}});
    write_source(recipe, encoder, source_index, source, done, progress);
    if (source_index.train.tokens == 0) {
      throw TrainError(source.path.string() + ": no training documents in it");
    }
  }
  write_shard_index(recipe.output, index);
  return index;
}

}  // namespace kvcast::train
