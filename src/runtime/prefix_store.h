// Exact prefixes that outlive the process: one file each in a folder (docs/FORMAT.md).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "kvcast/model.h"
#include "prefill/sequence.h"

namespace kvcast {

/// What a stored row depends on beside its tokens: weights, tokenizer, how caches are held, the
/// instruction set and this build. Reads all of the base's weights.
uint64_t prefix_key(const Model& model);

/// Used by one thread; files are written by another, and so that a reader sees the whole file or
/// none. What does not fit its hash is removed and never served.
class PrefixStore {
 public:
  /// Lists what the folder, made if need be, holds for `key`. Errors name it.
  static Result<std::unique_ptr<PrefixStore>> open(const std::filesystem::path& folder,
                                                   uint64_t key, const Models& models,
                                                   int64_t max_bytes);
  /// Writes what is waiting.
  ~PrefixStore();
  PrefixStore(const PrefixStore&) = delete;
  PrefixStore& operator=(const PrefixStore&) = delete;

  /// The stored prefix that shares the most of `tokens`, if more than `more_than`; null: none, or
  /// it was damaged.
  std::shared_ptr<Sequence> load(std::span<const int32_t> tokens, int64_t more_than);

  /// Has all rows of an exact sequence written, unless a file holds them already. Files that it
  /// covers go, and of others those least recently used, beyond the limit.
  void save(const std::shared_ptr<const Sequence>& sequence);

  /// Until nothing is waiting to be written.
  void flush();

  /// Prefixes of fewer rows are sooner read again.
  static constexpr int64_t kFewestRows = 32;

 private:
  struct File {
    std::string name;
    std::vector<int32_t> tokens;
    int64_t bytes = 0;
  };
  PrefixStore(std::filesystem::path folder, uint64_t key, const Models& models, int64_t max_bytes);
  void list();
  /// Of an entry that can be one of this store's; nullopt: whatever else it may be.
  [[nodiscard]] std::optional<std::vector<int32_t>> tokens_of(
      const std::filesystem::path& file) const;
  void write(const Sequence& sequence);
  void writer();
  void remove(std::list<File>::iterator file);
  [[nodiscard]] std::string contents_of(const Sequence& sequence) const;
  [[nodiscard]] std::shared_ptr<Sequence> read(const File& file) const;

  std::filesystem::path folder_;
  uint64_t key_;
  const Models& models_;
  int64_t max_bytes_;

  mutable std::mutex mutex_;  // guards what follows
  std::list<File> files_;     // most recently used first
  int64_t bytes_ = 0;         // of the files of all keys
  std::list<std::shared_ptr<const Sequence>> waiting_;
  bool writing_ = false, ending_ = false;
  std::condition_variable changed_;

  std::thread thread_;
};

}  // namespace kvcast
