// Packed weights (docs/FORMAT.md) that are not those of their config, and conversions that cannot
// be.
#include <algorithm>

#include "base/mapped_file.h"
#include "io/safetensors.h"
#include "malformed/malformed.h"
#include "model/weight_reader.h"
#include "runtime/convert.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kPackedFile = "model.safetensors";
constexpr std::string_view kQuery = "transformer.layers.1.attn.q_proj.packed";

/// A model as convert() writes it, whose file a test changes.
class Packed : public MalformedTest {
 protected:
  void SetUp() override {
    model_.write(root_, "plain");
    ASSERT_TRUE(convert({.source = plain_, .output = packed_, .type = WeightType::kInt8}));
    const auto file = Safetensors::open(packed_ / kPackedFile);
    ASSERT_TRUE(file);
    for (const auto& [name, tensor] : (*file)->tensors()) {
      const auto* bytes = reinterpret_cast<const char*>(tensor.bytes.data());
      tensors_[name] = {std::string(dtype_name(tensor.dtype)), tensor.shape,
                        std::string(bytes, tensor.bytes.size())};
    }
    metadata_ = (*file)->metadata();
  }
  void write(const StoredTensors& tensors, size_t padding = 0) {
    Json header = Json::object();
    header["__metadata__"] = metadata_;
    size_t at = padding;
    std::string data(padding, '\0');
    for (const auto& [name, tensor] : tensors) {
      header[name] = {{"dtype", tensor.dtype},
                      {"shape", tensor.shape},
                      {"data_offsets", {at, at + tensor.bytes.size()}}};
      at += tensor.bytes.size();
      data += tensor.bytes;
    }
    root_.write(fs::path("packed") / kPackedFile, safetensors_bytes(header.dump(), data));
  }
  void expect_error(std::initializer_list<std::string_view> parts) {
    for (const Dtype dtype : {Dtype::kInt8, Dtype::kF32, Dtype::kBf16}) {
      expect_load_error(packed_, parts, {.dtype = dtype, .threads = 1});
    }
  }
  std::vector<int32_t> answer() const {
    const auto model = Model::load(packed_, {.threads = 1});
    EXPECT_TRUE(model) << model.error().message;
    if (!model) return {};
    Session session(*model);
    const auto answer = session.generate(std::vector<int32_t>{1, 5, 17}, {.max_tokens = 8});
    EXPECT_TRUE(answer);
    return session.tokens();
  }

  const fs::path plain_ = root_.path() / "plain", packed_ = root_.path() / "packed";
  StoredTensors tensors_;
  std::map<std::string, std::string> metadata_;
};

TEST_F(Packed, EachMissingTensorIsNamed) {
  for (const auto& [name, tensor] : tensors_) {
    StoredTensors fewer = tensors_;
    fewer.erase(name);
    write(fewer);
    expect_error({kPackedFile, "tensor " + name, "missing"});
  }
}

TEST_F(Packed, EachWrongShapeIsNamedWithTheExpectedOne) {
  for (const auto& [name, tensor] : tensors_) {
    for (int wrong = 0; wrong < 4; ++wrong) {
      StoredTensors changed = tensors_;
      StoredTensor& bad = changed[name];
      const size_t unit = bad.bytes.size() / static_cast<size_t>(bad.shape[0]);
      if (wrong == 0) {  // one panel, or element, too many
        bad.shape[0] += 1;
        bad.bytes += std::string(unit, '\0');
      } else if (wrong == 1) {  // one too few; of one, none
        bad.shape[0] -= 1;
        bad.bytes.resize(bad.bytes.size() - unit);
      } else if (wrong == 2) {
        bad.shape.push_back(1);
      } else {
        bad.shape = {1, 1, 1, 1, static_cast<int64_t>(bad.bytes.size())};
        bad.dtype = "I8";
      }
      write(changed);
      expect_error({kPackedFile, "tensor " + name, "shape", "expected ["});
    }
  }
}

TEST_F(Packed, TypesThatNoMatrixIsPackedInAreRefused) {
  for (const auto& [dtype, size] :
       {std::pair{"F16", 2}, {"I16", 2}, {"I32", 4}, {"U8", 1}, {"I64", 8}, {"F64", 8}}) {
    StoredTensors changed = tensors_;
    StoredTensor& bad = changed[std::string(kQuery)];
    bad.dtype = dtype;
    bad.bytes.resize(bad.bytes.size() * static_cast<size_t>(size));
    write(changed);
    expect_error({kPackedFile, kQuery, dtype,
                  "expected F32, BF16, I8, or U8 in blocks of 1280 or 2176 bytes"});
  }
}

TEST_F(Packed, AnotherTypeNeedsItsOwnShape) {
  StoredTensors changed = tensors_;
  StoredTensor& bad = changed[std::string(kQuery)];
  bad.dtype = "BF16";
  bad.bytes.resize(bad.bytes.size() * 2);
  write(changed);
  expect_error({kPackedFile, kQuery, "shape", "expected ["});
}

TEST_F(Packed, BlocksNeedTheirOwnShape) {
  for (const int64_t block_bytes : {1280, 2176}) {
    StoredTensors changed = tensors_;
    changed[std::string(kQuery)] = {
        "U8", {1, 1, block_bytes}, std::string(static_cast<size_t>(block_bytes), '\0')};
    write(changed);
    expect_error({kPackedFile, kQuery, "shape [1, 1, " + std::to_string(block_bytes) + "]",
                  "expected [1, 2, " + std::to_string(block_bytes) + "]"});
  }
}

TEST_F(Packed, AnUnknownLayoutIsRefused) {
  for (const char* version : {"2", "0", "", "1 ", "one"}) {
    metadata_[kPackedKey] = version;
    write(tensors_);
    expect_error({kPackedFile, kPackedKey, "expected \"1\""});
  }
}

TEST_F(Packed, WithoutItsMarkItIsAPlainCheckpointThatLacksWeights) {
  metadata_.clear();
  write(tensors_);
  expect_error({kPackedFile, "tensor transformer.", "missing"});
}

TEST_F(Packed, TensorsAtAnyOffsetAreRead) {
  const auto expected = answer();
  for (const size_t padding : {1, 4, 63, 64}) {
    write(tensors_, padding);
    EXPECT_EQ(answer(), expected) << padding;
  }
}

TEST_F(Packed, NumbersThatConvertNeverWritesDoNoHarm) {
  for (const char byte : {'\xff', '\x80', '\x7f'}) {
    StoredTensors changed = tensors_;
    for (auto& [name, tensor] : changed) std::ranges::fill(tensor.bytes, byte);
    write(changed);
    for (const Dtype dtype : {Dtype::kInt8, Dtype::kF32, Dtype::kBf16}) {
      const auto model = Model::load(packed_, {.dtype = dtype, .threads = 1});
      ASSERT_TRUE(model) << model.error().message;
      Session session(*model);
      const auto result = session.generate(std::vector<int32_t>{1, 5, 17}, {.max_tokens = 2});
      if (!result) expect_one_line(result.error().message);
    }
  }
}

TEST_F(Packed, ATruncatedFileIsRefused) {
  const std::string whole = *read_text_file(packed_ / kPackedFile);
  root_.write(fs::path("packed") / kPackedFile,
              std::string_view(whole).substr(0, whole.size() - 1));
  expect_error({kPackedFile, "data_offsets", "outside"});
}

class Conversion : public MalformedTest {
 protected:
  void expect_error(const ConvertOptions& options, std::initializer_list<std::string_view> parts) {
    const Status status = convert(options);
    ASSERT_FALSE(status);
    expect_one_line(status.error().message);
    for (const auto part : parts) {
      EXPECT_THAT(status.error().message, testing::HasSubstr(std::string(part)));
    }
  }
  /// Names in the test's directory, staging directories included.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(root_.path())) {
      names.push_back(entry.path().filename());
    }
    std::ranges::sort(names);
    return names;
  }
  const fs::path in_ = root_.path() / "in", out_ = root_.path() / "out";
};

TEST_F(Conversion, WhatIsThereAlreadyStays) {
  model_.write(root_, "in");
  root_.write("out/mine.txt", "mine");
  expect_error({.source = in_, .output = out_}, {out_.string(), "exists already"});
  expect_error({.source = in_, .output = in_}, {in_.string(), "exists already"});
  fs::create_symlink("nowhere", root_.path() / "link");
  expect_error({.source = in_, .output = root_.path() / "link"}, {"link", "exists already"});
  EXPECT_EQ(*read_text_file(out_ / "mine.txt"), "mine");
  EXPECT_EQ(names(), (std::vector<std::string>{"in", "link", "out"}));
}

TEST_F(Conversion, AFailureLeavesNothingBehind) {
  expect_error({.source = in_, .output = out_}, {"in", "config.json"});
  bundle_.predictor.erase("key_transforms.1.bias");
  bundle_.base.write(root_, "in/base");
  bundle_.auxiliary.write(root_, "in/auxiliary");
  root_.write("in/predictor.safetensors", safetensors_bytes(bundle_.predictor));
  root_.write("in/kvcast.json", bundle_.manifest.dump());
  expect_error({.source = in_, .output = out_}, {"predictor.safetensors", "key_transforms.1.bias"});
  expect_error({.source = in_ / "base", .output = out_, .shard_bytes = 1000},
               {"token_embeddings.packed", "more than a shard's 1000"});
  std::stop_source stopped;
  stopped.request_stop();
  expect_error({.source = in_ / "base", .output = out_, .stop = stopped.get_token()},
               {"interrupted"});
  EXPECT_EQ(names(), std::vector<std::string>{"in"});
}

TEST_F(Conversion, AnOutputThatCannotBeMadeIsNamed) {
  model_.write(root_, "in");
  root_.write("file", "");
  expect_error({.source = in_, .output = root_.path() / "file" / "out"}, {"file/out", "cannot"});
}

}  // namespace
}  // namespace kvcast
