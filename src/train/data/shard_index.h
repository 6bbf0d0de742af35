// Token shards on disk.
//
// A shard directory holds
//   shards.json       the index: ShardIndex below, as JSON with the same names
//   tokenizer.model   the tokenizer that made the ids
//   NAME-00000.tok    shards of source NAME, training documents
//   NAME-held-out-00000.tok
//
// A .tok file, little-endian throughout:
//   offset  bytes  what
//   0       8      the ASCII letters KVCTOKEN
//   8       4      format, 1
//   12      4      bytes per token: 2 (vocabularies up to 65,536) or 4
//   16      8      number of tokens n
//   24      8      zero
//   32      n * bytes per token   unsigned token ids
// A document is BOS, its tokens, EOS; documents follow one another without padding, and one that
// does not fit goes on in the source's next shard.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/mapped_file.h"

namespace kvcast::train {

struct ShardFile {
  std::string file;  ///< name inside the directory
  int64_t tokens = 0;
};

/// One split of one source.
struct SplitIndex {
  int64_t documents = 0;
  int64_t tokens = 0;
  int64_t text_bytes = 0;  ///< before tokenizing
  std::vector<ShardFile> shards;
};

struct SourceIndex {
  std::string name;
  double epochs = 1.0;
  /// Above 0: the source is in blocks of so many tokens, each with a beginning of its own; windows
  /// of that length are these blocks.
  int64_t block_tokens = 0;
  SplitIndex train = {}, held_out = {};
};

struct ShardIndex {
  int64_t vocab_size = 0;
  int64_t bos_token = 1, eos_token = 2;
  uint64_t seed = 1;
  double held_out_fraction = 0.0;
  std::vector<SourceIndex> sources;

  [[nodiscard]] int64_t bytes_per_token() const { return vocab_size <= 65536 ? 2 : 4; }
};

inline constexpr const char* kShardIndexName = "shards.json";

ShardIndex read_shard_index(const std::filesystem::path& directory);
void write_shard_index(const std::filesystem::path& directory, const ShardIndex& index);

/// Writes one .tok file as tokens come; it appears under its name with commit(). Memory: a buffer.
class ShardFileWriter {
 public:
  ShardFileWriter(const std::filesystem::path& file, int64_t bytes_per_token);
  void append(std::span<const int32_t> tokens);
  [[nodiscard]] int64_t tokens() const { return tokens_; }
  void commit();

 private:
  void flush();

  std::unique_ptr<AtomicFile> file_;
  int64_t bytes_per_token_, tokens_ = 0;
  std::vector<std::byte> buffer_;
};

/// A split's shards, mapped, as one sequence of tokens. Immutable; share freely between threads.
class TokenStream {
 public:
  TokenStream() = default;
  /// Checks every file's header and size against the index; throws TrainError.
  TokenStream(const std::filesystem::path& directory, const SplitIndex& split,
              int64_t bytes_per_token, int64_t vocab_size);

  [[nodiscard]] int64_t size() const { return size_; }
  /// Tokens [first, first + n) to `out`. Throws on a token outside the vocabulary.
  void copy(int64_t first, int64_t n, int64_t* out) const;

 private:
  struct Part {
    std::shared_ptr<const MappedFile> file;
    int64_t first, size;
  };
  int64_t size_ = 0, bytes_per_token_ = 2, vocab_size_ = 0;
  std::vector<Part> parts_;
};

}  // namespace kvcast::train
