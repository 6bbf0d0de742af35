#include "io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "base/checked.h"
#include "base/macros.h"
#include "io/json.h"

namespace kvcast {
namespace {

constexpr std::array kDTypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                                DType::kI16, DType::kI8,  DType::kU8,   DType::kF64, DType::kBool};

/// The reference implementation's own limit; real headers are far below it.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

}  // namespace

/// Fills a Safetensors from mapped files, checking everything that a header can claim.
class SafetensorsParser {
 public:
  static Status add_file(Safetensors& out, const std::filesystem::path& path) {
    KVCAST_TRY(auto file, MappedFile::open(path));
    SafetensorsParser parser(out, path, file->bytes());
    KVCAST_CHECK(parser.parse());
    out.files_.push_back(std::move(file));
    return {};
  }

  static std::unique_ptr<Safetensors> make(const std::filesystem::path& path) {
    std::unique_ptr<Safetensors> out(new Safetensors);
    out->path_ = path;
    return out;
  }

 private:
  SafetensorsParser(Safetensors& out, const std::filesystem::path& path,
                    std::span<const std::byte> bytes)
      : out_(out), where_(path.string()), bytes_(bytes) {}

  Status parse() {
    uint64_t header_bytes = 0;
    if (bytes_.size() < sizeof header_bytes) {
      return fail(fmt::format("{}: not a safetensors file: {} bytes, expected at least 8", where_,
                              bytes_.size()));
    }
    std::memcpy(&header_bytes, bytes_.data(), sizeof header_bytes);  // little-endian hosts only
    const uint64_t after_length = bytes_.size() - sizeof header_bytes;
    if (header_bytes > kMaxHeaderBytes || header_bytes > after_length) {
      return fail(fmt::format("{}: header length {} does not fit the file of {} bytes", where_,
                              header_bytes, bytes_.size()));
    }
    const std::string_view header(reinterpret_cast<const char*>(bytes_.data()) + 8, header_bytes);
    data_ = bytes_.subspan(8 + header_bytes);
    KVCAST_TRY(const Json json, parse_json(header, where_ + ": header"));
    if (!json.is_object()) return fail(fmt::format("{}: header is not a JSON object", where_));
    for (const auto& [name, entry] : json.items()) {
      if (name == "__metadata__") {
        KVCAST_CHECK(add_metadata(entry));
      } else {
        KVCAST_CHECK(add_tensor(name, entry));
      }
    }
    return check_overlaps();
  }

  Status add_metadata(const Json& entry) {
    if (!entry.is_object()) return fail(fmt::format("{}: __metadata__ is not an object", where_));
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) {
        return fail(fmt::format("{}: __metadata__ {} is not a string", where_, key));
      }
      out_.metadata_[key] = value.get<std::string>();
    }
    return {};
  }

  Status add_tensor(const std::string& name, const Json& entry) {
    const auto wrong = [&](std::string_view what) {
      return fail(fmt::format("{}: tensor {}: {}", where_, name, what));
    };
    if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
        !entry.contains("shape") || !entry["shape"].is_array() || !entry.contains("data_offsets") ||
        !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2) {
      return wrong("expected dtype, shape and data_offsets [begin, end]");
    }
    TensorView tensor;
    const auto& dtype = entry["dtype"].get_ref<const std::string&>();
    const auto known = std::ranges::find(kDTypes, dtype, dtype_name);
    if (known == kDTypes.end()) return wrong(fmt::format("unknown dtype {}", dtype));
    tensor.dtype = *known;
    for (const auto& dimension : entry["shape"]) {
      if (!dimension.is_number_unsigned() || dimension.get<uint64_t>() > INT64_MAX) {
        return wrong("shape must be a list of non-negative integers");
      }
      tensor.shape.push_back(dimension.get<int64_t>());
    }
    const auto& offsets = entry["data_offsets"];
    if (!offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) {
      return wrong("data_offsets must be two non-negative integers");
    }
    const auto begin = offsets[0].get<uint64_t>();
    const auto end = offsets[1].get<uint64_t>();
    if (begin > end || end > data_.size()) {
      return wrong(fmt::format("data_offsets [{}, {}] lie outside the {} bytes of data", begin, end,
                               data_.size()));
    }
    const auto elements = checked_product(std::span<const int64_t>(tensor.shape));
    const auto expected_bytes =
        elements ? checked_multiply<int64_t>(*elements, static_cast<int64_t>(dtype_size(*known)))
                 : std::nullopt;
    if (!expected_bytes || static_cast<uint64_t>(*expected_bytes) != end - begin) {
      return wrong(fmt::format("{} {} does not take the {} bytes that data_offsets give it", dtype,
                               shape_text(tensor.shape), end - begin));
    }
    tensor.bytes = data_.subspan(begin, end - begin);
    if (begin != end) ranges_.push_back({begin, end, name});
    if (!out_.tensors_.emplace(name, std::move(tensor)).second) {
      return wrong("appears in more than one shard");
    }
    return {};
  }

  Status check_overlaps() {
    std::ranges::sort(ranges_, {}, &Range::begin);
    for (size_t i = 1; i < ranges_.size(); ++i) {
      if (ranges_[i].begin < ranges_[i - 1].end) {
        return fail(fmt::format("{}: tensor {}: its bytes overlap those of {}", where_,
                                ranges_[i].name, ranges_[i - 1].name));
      }
    }
    return {};
  }

  struct Range {
    uint64_t begin, end;
    std::string name;
  };
  Safetensors& out_;
  std::string where_;
  std::span<const std::byte> bytes_, data_;
  std::vector<Range> ranges_;
};

Result<std::unique_ptr<Safetensors>> Safetensors::open(const std::filesystem::path& file) {
  auto out = SafetensorsParser::make(file);
  KVCAST_CHECK(SafetensorsParser::add_file(*out, file));
  return out;
}

namespace {

/// Shard file names from model.safetensors.index.json. Only plain names are accepted: a shard is a
/// file of the checkpoint directory itself.
Result<std::set<std::string>> read_shard_names(const std::filesystem::path& index) {
  KVCAST_TRY(const Json json, read_json_object(index));
  if (!json.contains("weight_map") || !json["weight_map"].is_object() ||
      json["weight_map"].empty()) {
    return fail(fmt::format("{}: weight_map: expected an object that names a shard per tensor",
                            index.string()));
  }
  std::set<std::string> names;
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    if (!shard.is_string()) {
      return fail(
          fmt::format("{}: weight_map: tensor {}: expected a file name", index.string(), tensor));
    }
    const auto name = shard.get<std::string>();
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return fail(
          fmt::format("{}: weight_map: tensor {}: shard \"{}\" is not a file name inside "
                      "the model directory",
                      index.string(), tensor, name));
    }
    names.insert(name);
  }
  return names;
}

}  // namespace

Result<std::unique_ptr<Safetensors>> Safetensors::open_checkpoint(
    const std::filesystem::path& directory) {
  const auto single = directory / "model.safetensors";
  const auto index = directory / "model.safetensors.index.json";
  std::error_code ignored;
  if (std::filesystem::exists(single, ignored)) return open(single);
  if (!std::filesystem::exists(index, ignored)) {
    return fail(fmt::format("{}: expected model.safetensors or model.safetensors.index.json",
                            directory.string()));
  }
  KVCAST_TRY(const auto shards, read_shard_names(index));
  auto out = SafetensorsParser::make(index);
  for (const auto& shard : shards) {
    KVCAST_CHECK(SafetensorsParser::add_file(*out, directory / shard));
  }
  return out;
}

}  // namespace kvcast
