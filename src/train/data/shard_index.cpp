#include "train/data/shard_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "io/json.h"
#include "train/data/error.h"

namespace kvcast::train {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr char kMagic[8] = {'K', 'V', 'C', 'T', 'O', 'K', 'E', 'N'};

struct Header {
  char magic[8];
  uint32_t format;
  uint32_t bytes_per_token;
  uint64_t tokens;
  uint64_t zero;
};
static_assert(sizeof(Header) == 32);

std::span<const std::byte> bytes_of(const void* data, size_t size) {
  return {static_cast<const std::byte*>(data), size};
}

Json to_json(const SplitIndex& split) {
  Json shards = Json::array();
  for (const auto& shard : split.shards) {
    shards.push_back({{"file", shard.file}, {"tokens", shard.tokens}});
  }
  return {{"documents", split.documents},
          {"tokens", split.tokens},
          {"text_bytes", split.text_bytes},
          {"shards", shards}};
}

SplitIndex split_from_json(const Json& json) {
  SplitIndex split;
  split.documents = json.at("documents").get<int64_t>();
  split.tokens = json.at("tokens").get<int64_t>();
  split.text_bytes = json.at("text_bytes").get<int64_t>();
  int64_t tokens = 0;
  for (const auto& shard : json.at("shards")) {
    split.shards.push_back(
        {shard.at("file").get<std::string>(), shard.at("tokens").get<int64_t>()});
    if (split.shards.back().file.find('/') != std::string::npos) {
      throw TrainError("a shard's file must be a name inside the directory");
    }
    if (split.shards.back().tokens < 0) throw TrainError("a negative number of tokens");
    tokens += split.shards.back().tokens;
  }
  if (tokens != split.tokens) throw TrainError("the shards' tokens do not sum to the split's");
  return split;
}

template <typename Stored>
void copy_tokens(const std::byte* from, int64_t n, int64_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    Stored token;
    std::memcpy(&token, from + i * sizeof(Stored), sizeof(Stored));
    out[i] = static_cast<int64_t>(token);
  }
}

}  // namespace

ShardIndex read_shard_index(const std::filesystem::path& directory) {
  const auto path = directory / kShardIndexName;
  const Json json = unwrap(read_json_object(path));
  try {
    if (json.at("format").get<int>() != 1) throw TrainError("expected format 1");
    ShardIndex index;
    index.vocab_size = json.at("vocab_size").get<int64_t>();
    index.bos_token = json.at("bos_token").get<int64_t>();
    index.eos_token = json.at("eos_token").get<int64_t>();
    index.seed = json.at("seed").get<uint64_t>();
    index.held_out_fraction = json.at("held_out_fraction").get<double>();
    for (const auto& source : json.at("sources")) {
      index.sources.push_back(
          {source.at("name").get<std::string>(), source.at("epochs").get<double>(),
           source.value("block_tokens", int64_t{0}), split_from_json(source.at("train")),
           split_from_json(source.at("held_out"))});
    }
    if (index.vocab_size < 1 || index.sources.empty()) throw TrainError("no vocabulary or source");
    return index;
  } catch (const std::exception& error) {
    throw TrainError(
        fmt::format("{}: not an index of token shards: {}", path.string(), error.what()));
  }
}

void write_shard_index(const std::filesystem::path& directory, const ShardIndex& index) {
  Json sources = Json::array();
  for (const auto& source : index.sources) {
    Json entry = {{"name", source.name},
                  {"epochs", source.epochs},
                  {"train", to_json(source.train)},
                  {"held_out", to_json(source.held_out)}};
    if (source.block_tokens > 0) entry["block_tokens"] = source.block_tokens;
    sources.push_back(std::move(entry));
  }
  const Json json = {{"format", 1},
                     {"vocab_size", index.vocab_size},
                     {"bos_token", index.bos_token},
                     {"eos_token", index.eos_token},
                     {"seed", index.seed},
                     {"held_out_fraction", index.held_out_fraction},
                     {"sources", sources}};
  unwrap(write_file_atomically(directory / kShardIndexName, json.dump(1) + "\n"));
}

ShardFileWriter::ShardFileWriter(const std::filesystem::path& file, int64_t bytes_per_token)
    : file_(unwrap(AtomicFile::create(file))), bytes_per_token_(bytes_per_token) {
  const Header unfinished{};
  unwrap(file_->write(bytes_of(&unfinished, sizeof(unfinished))));
}

void ShardFileWriter::append(std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    // Little-endian, as the machines are that kvcast runs on: the low bytes come first.
    const auto* bytes = reinterpret_cast<const std::byte*>(&token);
    buffer_.insert(buffer_.end(), bytes, bytes + bytes_per_token_);
  }
  tokens_ += static_cast<int64_t>(tokens.size());
  if (buffer_.size() >= kBufferBytes) flush();
}

void ShardFileWriter::flush() {
  unwrap(file_->write(buffer_));
  buffer_.clear();
}

void ShardFileWriter::commit() {
  flush();
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.format = 1;
  header.bytes_per_token = static_cast<uint32_t>(bytes_per_token_);
  header.tokens = static_cast<uint64_t>(tokens_);
  unwrap(file_->rewrite_start(bytes_of(&header, sizeof(header))));
  unwrap(file_->commit());
}

TokenStream::TokenStream(const std::filesystem::path& directory, const SplitIndex& split,
                         int64_t bytes_per_token, int64_t vocab_size)
    : bytes_per_token_(bytes_per_token), vocab_size_(vocab_size) {
  for (const auto& shard : split.shards) {
    std::shared_ptr<const MappedFile> file = unwrap(MappedFile::open(directory / shard.file));
    const auto bytes = file->bytes();
    Header header{};
    if (bytes.size() >= sizeof(header)) std::memcpy(&header, bytes.data(), sizeof(header));
    if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0 || header.format != 1 ||
        header.bytes_per_token != bytes_per_token ||
        header.tokens != static_cast<uint64_t>(shard.tokens) ||
        bytes.size() - sizeof(header) != header.tokens * header.bytes_per_token) {
      throw TrainError(fmt::format("{}: not the shard of {} tokens of {} bytes that {} names",
                                   file->path().string(), shard.tokens, bytes_per_token,
                                   kShardIndexName));
    }
    parts_.push_back({std::move(file), size_, shard.tokens});
    size_ += shard.tokens;
  }
}

void TokenStream::copy(int64_t first, int64_t n, int64_t* out) const {
  if (first < 0 || n < 0 || first > size_ - n) throw TrainError("tokens outside the shards");
  auto part = std::upper_bound(parts_.begin(), parts_.end(), first,
                               [](int64_t at, const Part& p) { return at < p.first + p.size; });
  for (int64_t done = 0; done < n; ++part) {
    const int64_t offset = first + done - part->first;
    const int64_t count = std::min(n - done, part->size - offset);
    const std::byte* from = part->file->bytes().data() + sizeof(Header) + offset * bytes_per_token_;
    if (bytes_per_token_ == 2) {
      copy_tokens<uint16_t>(from, count, out + done);
    } else {
      copy_tokens<uint32_t>(from, count, out + done);
    }
    const auto* worst = std::max_element(out + done, out + done + count);
    if (count > 0 && *worst >= vocab_size_) {
      throw TrainError(fmt::format("{}: token {} is outside the vocabulary of {}",
                                   part->file->path().string(), *worst, vocab_size_));
    }
    done += count;
  }
}

}  // namespace kvcast::train
