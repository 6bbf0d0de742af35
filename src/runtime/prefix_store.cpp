#include "runtime/prefix_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <new>

#include "base/hash.h"
#include "base/macros.h"
#include "base/mapped_file.h"
#include "base/team.h"
#include "kernels/isa.h"
#include "kvcast/version.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".kvprefix";
constexpr std::chrono::minutes kAbandoned{10};
constexpr std::array<char, 8> kMagic = {'k', 'v', 'p', 'r', 'e', 'f', 'x', '1'};

/// At the beginning of a file; little-endian, as all of it. Then the tokens, then K/V.
struct Header {
  std::array<char, 8> magic = kMagic;
  uint64_t key = 0;
  uint64_t tokens = 0;
  uint64_t kv_bytes = 0;
  uint64_t hash = 0;  ///< of everything after the header, seeded with the fields before
};
static_assert(sizeof(Header) == 40);

uint64_t hash_of(const Header& header, std::span<const std::byte> rest) {
  const std::array<uint64_t, 3> fields = {header.key, header.tokens, header.kv_bytes};
  return hash64(rest, hash64_of(std::span<const uint64_t>(fields)));
}

int64_t shared_tokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

/// [layers] as KVCache::copy_held gives them.
void copy_rows_to(const KVCache& cache, int64_t rows, char* out) {
  auto* next = reinterpret_cast<std::byte*>(out);
  for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
    cache.copy_held(layer, rows, next);
    next += 2 * cache.kv_heads(layer) * rows * kv_row_bytes(cache.type(), cache.head_dim());
  }
}

/// Into an empty cache, as rows that the model itself computed.
void take_rows_from(const std::byte* in, int64_t rows, KVCache& cache) {
  cache.reserve(rows);
  for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
    cache.append_held(layer, rows, in);
    in += 2 * cache.kv_heads(layer) * rows * kv_row_bytes(cache.type(), cache.head_dim());
  }
  cache.advance(rows);
}

uint64_t hash_of(const ModelWeights& weights, int threads) {
  std::vector<std::span<const std::byte>> parts = {weights.embeddings.data(),
                                                   weights.lm_head.data(),
                                                   std::as_bytes(std::span(weights.final_norm))};
  for (const LayerWeights& layer : weights.layers) {
    for (const auto* norm : {&layer.attn_norm, &layer.ffn_norm, &layer.q_norm, &layer.k_norm}) {
      parts.push_back(std::as_bytes(std::span(*norm)));
    }
    for (const PackedMatrix* matrix : {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.out_proj,
                                       &layer.proj_1, &layer.proj_2}) {
      parts.push_back(matrix->data());
    }
  }
  std::vector<uint64_t> hashes(parts.size());
  parallel_for(std::ssize(parts), threads, [&](int64_t i, int) {
    hashes[static_cast<size_t>(i)] = hash64(parts[static_cast<size_t>(i)]);
  });
  return hash64_of(std::span<const uint64_t>(hashes));
}

}  // namespace

uint64_t prefix_key(const Model& model) {
  const Models& models = model.impl().models;
  const ModelConfig& config = models.base->config();
  std::string text =
      fmt::format("{} {} {} {} {}", version(), isa_name(active_isa()), dtype_text(model.dtype()),
                  dtype_text(model.kv_dtype()), config.rope.theta);
  const Tokenizer* tokenizer = model.impl().tokenizer.get();
  for (int32_t id = 0; tokenizer != nullptr && id < tokenizer->vocab_size(); ++id) {
    text += tokenizer->piece_bytes(id) + '\n';
  }
  return hash64(std::as_bytes(std::span(text)), hash_of(models.base->weights(), model.threads()));
}

Result<std::unique_ptr<PrefixStore>> PrefixStore::open(const fs::path& folder, uint64_t key,
                                                       const Models& models, int64_t max_bytes) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error || !fs::is_directory(folder, error)) {
    return fail(fmt::format("{}: cannot be used as a folder for prefixes: {}", folder.string(),
                            error ? error.message() : "not a directory"));
  }
  std::unique_ptr<PrefixStore> store(new PrefixStore(folder, key, models, max_bytes));
  store->list();
  store->thread_ = std::thread([raw = store.get()] { raw->writer(); });
  return store;
}

PrefixStore::PrefixStore(fs::path folder, uint64_t key, const Models& models, int64_t max_bytes)
    : folder_(std::move(folder)), key_(key), models_(models), max_bytes_(max_bytes) {}

PrefixStore::~PrefixStore() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::optional<std::vector<int32_t>> PrefixStore::tokens_of(const fs::path& file) const {
  const auto start = read_file_head(file, sizeof(Header));
  Header header;
  if (!start || start->size() < sizeof header) return std::nullopt;
  std::memcpy(&header, start->data(), sizeof header);
  const auto most = static_cast<uint64_t>(models_.base->config().max_context_tokens) + 1;
  if (header.magic != kMagic || header.key != key_ || header.tokens > most) return std::nullopt;
  std::vector<int32_t> tokens(header.tokens);
  const size_t head_bytes = sizeof header + tokens.size() * sizeof(int32_t);
  const auto head = read_file_head(file, head_bytes);
  if (!head || head->size() < head_bytes) return std::nullopt;
  if (!tokens.empty()) {
    std::memcpy(tokens.data(), head->data() + sizeof header, head_bytes - sizeof header);
  }
  return tokens;
}

/// Only heads are read: K/V are checked when they are wanted.
void PrefixStore::list() {
  struct Found {
    fs::file_time_type used;
    File file;
  };
  std::vector<Found> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.find(std::string(kSuffix) + ".tmp.") != std::string::npos &&
        fs::file_time_type::clock::now() - entry.last_write_time(ignored) > kAbandoned) {
      fs::remove(entry.path(), ignored);  // of a process that was killed
      continue;
    }
    if (!name.ends_with(kSuffix)) continue;
    std::optional<std::vector<int32_t>> tokens = tokens_of(entry.path());
    if (!tokens) continue;
    const auto size = static_cast<int64_t>(entry.file_size(ignored));
    if (ignored) continue;
    found.push_back({entry.last_write_time(ignored), {name, std::move(*tokens), size}});
    bytes_ += size;
  }
  std::ranges::sort(found, std::greater(), &Found::used);
  for (Found& one : found) files_.push_back(std::move(one.file));
}

std::shared_ptr<Sequence> PrefixStore::load(std::span<const int32_t> tokens, int64_t more_than) {
  File file;
  {
    const std::lock_guard lock(mutex_);
    auto best = files_.end();
    for (auto it = files_.begin(); it != files_.end(); ++it) {
      const int64_t shared = shared_tokens(it->tokens, tokens);
      if (shared <= more_than) continue;
      best = it;
      more_than = shared;
    }
    if (best == files_.end()) return nullptr;
    files_.splice(files_.begin(), files_, best);
    file = files_.front();
  }
  auto sequence = read(file);
  std::error_code ignored;
  if (sequence) {
    fs::last_write_time(folder_ / file.name, fs::file_time_type::clock::now(), ignored);
    return sequence;
  }
  const std::lock_guard lock(mutex_);
  const auto damaged = std::ranges::find(files_, file.name, &File::name);
  if (damaged != files_.end()) remove(damaged);
  return nullptr;
}

std::shared_ptr<Sequence> PrefixStore::read(const File& file) const {
  const auto mapped = MappedFile::open(folder_ / file.name);
  if (!mapped) return nullptr;
  const std::span<const std::byte> bytes = (*mapped)->bytes();
  Header header;
  if (bytes.size() < sizeof header) return nullptr;
  std::memcpy(&header, bytes.data(), sizeof header);
  auto sequence = std::make_shared<Sequence>(models_);
  const auto rows = static_cast<int64_t>(file.tokens.size());
  const auto token_bytes = file.tokens.size() * sizeof(int32_t);
  const auto kv_bytes = static_cast<size_t>(sequence->base.held_bytes(rows));
  const std::span<const std::byte> rest = bytes.subspan(sizeof header);
  if (header.magic != kMagic || header.key != key_ || header.tokens != file.tokens.size() ||
      header.kv_bytes != kv_bytes || rest.size() != token_bytes + kv_bytes ||
      std::memcmp(rest.data(), file.tokens.data(), token_bytes) != 0 ||
      header.hash != hash_of(header, rest)) {
    return nullptr;
  }
  sequence->tokens = file.tokens;
  take_rows_from(rest.data() + token_bytes, rows, sequence->base);
  return sequence;
}

void PrefixStore::save(const std::shared_ptr<const Sequence>& sequence) {
  if (std::ssize(sequence->tokens) < kFewestRows) return;
  {
    const std::lock_guard lock(mutex_);
    const auto covers = [&](std::span<const int32_t> tokens) {
      return shared_tokens(tokens, sequence->tokens) == std::ssize(sequence->tokens);
    };
    if (std::ranges::any_of(files_, covers, &File::tokens)) return;
    waiting_.push_back(sequence);
  }
  changed_.notify_all();
}

void PrefixStore::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return waiting_.empty() && !writing_; });
}

void PrefixStore::writer() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const std::shared_ptr<const Sequence> next = std::move(waiting_.front());
    waiting_.pop_front();
    writing_ = true;
    lock.unlock();
    write(*next);
    lock.lock();
    writing_ = false;
    changed_.notify_all();
  }
}

std::string PrefixStore::contents_of(const Sequence& sequence) const {
  const auto rows = static_cast<int64_t>(sequence.tokens.size());
  const size_t token_bytes = sequence.tokens.size() * sizeof(int32_t);
  Header header{.key = key_,
                .tokens = sequence.tokens.size(),
                .kv_bytes = static_cast<uint64_t>(sequence.base.held_bytes(rows))};
  std::string contents(sizeof header + token_bytes + header.kv_bytes, '\0');
  char* const rest = contents.data() + sizeof header;
  std::memcpy(rest, sequence.tokens.data(), token_bytes);
  copy_rows_to(sequence.base, rows, rest + token_bytes);
  header.hash = hash_of(header, std::as_bytes(std::span(contents)).subspan(sizeof header));
  std::memcpy(contents.data(), &header, sizeof header);
  return contents;
}

/// A full disk, or memory that runs out, costs this entry only.
void PrefixStore::write(const Sequence& sequence) {
  const std::span<const int32_t> tokens(sequence.tokens);
  File file{fmt::format("{:016x}{}", hash64_of(tokens, key_), kSuffix), sequence.tokens, 0};
  try {
    const std::string contents = contents_of(sequence);
    file.bytes = std::ssize(contents);
    if (file.bytes > max_bytes_ || !write_file_atomically(folder_ / file.name, contents)) return;
  } catch (const std::bad_alloc&) {
    return;
  }
  const std::lock_guard lock(mutex_);
  std::erase_if(files_, [&](const File& old) {  // the same, written twice
    if (old.name == file.name) bytes_ -= old.bytes;
    return old.name == file.name;
  });
  for (auto it = files_.begin(); it != files_.end();) {
    const auto next = std::next(it);
    if (shared_tokens(it->tokens, tokens) == std::ssize(it->tokens)) remove(it);
    it = next;
  }
  bytes_ += file.bytes;
  files_.push_front(std::move(file));
  while (bytes_ > max_bytes_ && files_.size() > 1) remove(std::prev(files_.end()));
}

void PrefixStore::remove(std::list<File>::iterator file) {
  std::error_code ignored;
  fs::remove(folder_ / file->name, ignored);
  bytes_ -= file->bytes;
  files_.erase(file);
}

}  // namespace kvcast
