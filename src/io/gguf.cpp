#include "io/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>

#include "base/checked.h"
#include "base/macros.h"

namespace kvcast {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxDimensions = 4;
/// Real models have some hundreds. A bound keeps what parsing allocates in proportion.
constexpr uint64_t kMaxTensors = 1 << 20;

/// A tensor type by the number that files give it.
struct StoredType {
  uint32_t number;
  DType dtype;
};
constexpr std::array kStoredTypes = {
    StoredType{0, DType::kF32},  StoredType{1, DType::kF16},    StoredType{2, DType::kQ4_0},
    StoredType{3, DType::kQ4_1}, StoredType{6, DType::kQ5_0},   StoredType{7, DType::kQ5_1},
    StoredType{8, DType::kQ8_0}, StoredType{12, DType::kQ4K},   StoredType{13, DType::kQ5K},
    StoredType{14, DType::kQ6K}, StoredType{20, DType::kIq4Nl}, StoredType{24, DType::kI8},
    StoredType{25, DType::kI16}, StoredType{26, DType::kI32},   StoredType{27, DType::kI64},
    StoredType{28, DType::kF64}, StoredType{30, DType::kBF16}};

constexpr std::string_view kReadable =
    "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K or IQ4_NL";

/// What follows NAME in the name of one of several parts.
std::string part_suffix(int64_t part, int64_t parts) {
  return fmt::format("-{:05}-of-{:05}.gguf", part, parts);
}

}  // namespace

bool is_gguf_file(const std::filesystem::path& file) {
  const auto head = read_file_head(file, kMagic.size());
  return head && *head == kMagic;
}

/// Adds one file's tensors to a Gguf, checking everything that it can claim.
class GgufParser {
 public:
  /// `part` counts from 0. The first file's metadata become the Gguf's.
  static Status add_file(Gguf& out, const std::filesystem::path& path, int64_t part) {
    KVCAST_TRY(auto file, MappedFile::open(path));
    GgufParser parser(out, path.string(), file->bytes());
    KVCAST_TRY(auto metadata, parser.parse());
    if (part == 0) {
      out.values_ = std::move(metadata);
    } else {
      KVCAST_CHECK(parser.check_part(metadata, part));
    }
    out.files_.push_back(std::move(file));
    return {};
  }

 private:
  GgufParser(Gguf& out, const std::string& where, std::span<const std::byte> bytes)
      : out_(out), where_(where), bytes_(bytes), cursor_(where, bytes) {}

  struct Entry {
    std::string name;
    TensorView tensor;
    uint64_t offset = 0, bytes = 0;
  };

  Result<GgufMetadata> parse() {
    KVCAST_TRY(const uint64_t tensor_count, parse_head());
    KVCAST_TRY(const auto key_count, cursor_.read<uint64_t>("the number of metadata keys"));
    KVCAST_TRY(auto metadata, GgufMetadata::parse(cursor_, key_count));
    KVCAST_TRY(const uint64_t alignment, data_alignment(metadata));
    std::vector<Entry> entries;
    for (uint64_t i = 0; i < tensor_count; ++i) {
      KVCAST_TRY(Entry entry, parse_tensor(i));
      if (entry.offset % alignment != 0) {
        return wrong(entry.name, fmt::format("offset {} is not a multiple of the alignment {}",
                                             entry.offset, alignment));
      }
      entries.push_back(std::move(entry));
    }
    const uint64_t begin = (cursor_.position() + alignment - 1) / alignment * alignment;
    data_ = bytes_.subspan(std::min<uint64_t>(begin, bytes_.size()));
    KVCAST_CHECK(check_ranges(entries));
    for (Entry& entry : entries) KVCAST_CHECK(add(std::move(entry)));
    return metadata;
  }

  /// Magic and version; the number of tensors.
  Result<uint64_t> parse_head() {
    KVCAST_TRY(const auto magic, cursor_.take(kMagic.size(), "the first four bytes"));
    if (std::string_view(reinterpret_cast<const char*>(magic.data()), magic.size()) != kMagic) {
      return fail(fmt::format("{}: not a GGUF file: expected it to begin with GGUF", where_));
    }
    KVCAST_TRY(const auto version, cursor_.read<uint32_t>("the version"));
    if (version != 2 && version != 3) {
      const bool swapped = version != 0 && (version & 0xFFFFU) == 0;
      return fail(fmt::format("{}: GGUF version {}{}, expected 2 or 3", where_, version,
                              swapped ? " (a big-endian file?)" : ""));
    }
    KVCAST_TRY(const auto count, cursor_.read<uint64_t>("the number of tensors"));
    if (count > kMaxTensors) {
      return fail(fmt::format("{}: {} tensors, expected at most {}", where_, count, kMaxTensors));
    }
    return count;
  }

  Result<uint64_t> data_alignment(const GgufMetadata& metadata) const {
    constexpr std::string_view kKey = "general.alignment";
    if (!metadata.contains(kKey)) return kDefaultAlignment;
    KVCAST_TRY(const int64_t alignment, metadata.integer(kKey));
    if (alignment < 8 || alignment > (int64_t{1} << 30) || (alignment & (alignment - 1)) != 0) {
      return fail(fmt::format("{}: metadata {}: {}, expected a power of two from 8 to 2^30", where_,
                              kKey, alignment));
    }
    return static_cast<uint64_t>(alignment);
  }

  Result<Entry> parse_tensor(uint64_t index) {
    Entry entry;
    KVCAST_TRY(entry.name, cursor_.read_string(fmt::format("the name of tensor {}", index)));
    const std::string what = fmt::format("tensor {}", entry.name);
    KVCAST_TRY(const auto dimensions, cursor_.read<uint32_t>(what));
    if (dimensions < 1 || dimensions > kMaxDimensions) {
      return wrong(entry.name, fmt::format("{} dimensions, expected 1 to 4", dimensions));
    }
    for (uint32_t d = 0; d < dimensions; ++d) {
      KVCAST_TRY(const auto dimension, cursor_.read<int64_t>(what));
      if (dimension <= 0) {
        return wrong(entry.name,
                     fmt::format("dimension {}, expected a positive number", dimension));
      }
      entry.tensor.shape.insert(entry.tensor.shape.begin(), dimension);
    }
    KVCAST_TRY(const auto type, cursor_.read<uint32_t>(what));
    const auto* const known = std::ranges::find(kStoredTypes, type, &StoredType::number);
    if (known == kStoredTypes.end()) {
      return wrong(entry.name, fmt::format("type {}, expected {}", type, kReadable));
    }
    entry.tensor.dtype = known->dtype;
    KVCAST_TRY(entry.bytes, stored_bytes(entry));
    KVCAST_TRY(entry.offset, cursor_.read<uint64_t>(what));
    return entry;
  }

  Result<uint64_t> stored_bytes(const Entry& entry) const {
    const DTypeLayout& layout = dtype_layout(entry.tensor.dtype);
    const auto& shape = entry.tensor.shape;
    if (shape.back() % layout.elements != 0) {
      return wrong(entry.name, fmt::format("rows of {} elements, expected a multiple of {} as {}",
                                           shape.back(), layout.elements, layout.name));
    }
    const auto elements = checked_product(std::span<const int64_t>(shape));
    const auto bytes =
        elements ? checked_multiply(*elements / layout.elements, layout.bytes) : std::nullopt;
    if (!bytes) {
      return wrong(entry.name, fmt::format("shape {} has more elements than can be counted",
                                           shape_text(shape)));
    }
    return static_cast<uint64_t>(*bytes);
  }

  /// That each tensor's bytes lie in the file, and none in another's.
  Status check_ranges(const std::vector<Entry>& entries) const {
    for (const Entry& entry : entries) {
      const auto end = checked_add(entry.offset, entry.bytes);
      if (!end || *end > data_.size()) {
        return wrong(entry.name,
                     fmt::format("{} bytes at offset {} lie outside the {} bytes of data",
                                 entry.bytes, entry.offset, data_.size()));
      }
    }
    std::vector<const Entry*> sorted;
    sorted.reserve(entries.size());
    for (const Entry& entry : entries) sorted.push_back(&entry);
    std::ranges::sort(sorted, {}, &Entry::offset);
    for (size_t i = 1; i < sorted.size(); ++i) {
      if (sorted[i]->offset < sorted[i - 1]->offset + sorted[i - 1]->bytes) {
        return wrong(sorted[i]->name,
                     fmt::format("its bytes overlap those of {}", sorted[i - 1]->name));
      }
    }
    return {};
  }

  Status add(Entry entry) {
    entry.tensor.bytes = data_.subspan(entry.offset, entry.bytes);
    if (out_.tensors_.contains(entry.name)) return wrong(entry.name, "appears twice");
    out_.tensors_.emplace(std::move(entry.name), std::move(entry.tensor));
    return {};
  }

  /// That this file says itself that it is the part its name says.
  Status check_part(const GgufMetadata& metadata, int64_t part) const {
    KVCAST_TRY(const int64_t parts, out_.values_.integer("split.count"));
    KVCAST_TRY(const int64_t found_part, metadata.integer("split.no"));
    KVCAST_TRY(const int64_t found_parts, metadata.integer("split.count"));
    if (found_part == part && found_parts == parts) return {};
    return fail(fmt::format("{}: split.no {} of split.count {}, expected {} of {}", where_,
                            found_part, found_parts, part, parts));
  }

  tl::unexpected<Error> wrong(std::string_view tensor, std::string_view what) const {
    return fail(fmt::format("{}: tensor {}: {}", where_, tensor, what));
  }

  Gguf& out_;
  std::string where_;
  std::span<const std::byte> bytes_, data_;
  GgufCursor cursor_;
};

Result<std::unique_ptr<Gguf>> Gguf::open(const std::filesystem::path& file) {
  std::unique_ptr<Gguf> out(new Gguf);
  out->path_ = file;
  KVCAST_CHECK(GgufParser::add_file(*out, file, 0));
  if (!out->values_.contains("split.count")) return out;
  KVCAST_TRY(const int64_t parts, out->values_.integer("split.count"));
  if (parts > 1) KVCAST_CHECK(out->add_parts(parts));
  return out;
}

/// The parts after the first, found by its name.
Status Gguf::add_parts(int64_t parts) {
  constexpr int64_t kMaxParts = 99'999;  // five digits in a name
  const std::string first = path_.filename().string();
  const std::string suffix = part_suffix(1, parts);
  KVCAST_TRY(const int64_t part, values_.integer("split.no"));
  if (parts > kMaxParts || part != 0 || !first.ends_with(suffix)) {
    return fail(fmt::format("{}: part {} of {}: expected the first, named NAME{}", path_.string(),
                            part, parts, suffix));
  }
  const std::string name = first.substr(0, first.size() - suffix.size());
  for (int64_t i = 1; i < parts; ++i) {
    const auto next = path_.parent_path() / (name + part_suffix(i + 1, parts));
    KVCAST_CHECK(GgufParser::add_file(*this, next, i));
  }
  if (!values_.contains("split.tensors.count")) return {};
  KVCAST_TRY(const int64_t expected, values_.integer("split.tensors.count"));
  if (std::ssize(tensors_) == expected) return {};
  return fail(fmt::format("{}: {} tensors in {} parts, expected {} as split.tensors.count says",
                          path_.string(), tensors_.size(), parts, expected));
}

}  // namespace kvcast
