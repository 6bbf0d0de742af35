// Reading GGUF: a file that another writer wrote, and split ones.
#include "io/gguf.h"

#include <gtest/gtest.h>

#include <bit>

#include "io/code_blocks.h"
#include "support/gguf_bytes.h"
#include "support/temporary_directory.h"

namespace kvcast {
namespace {

using testing::Test;

std::filesystem::path golden_file() {
  return std::filesystem::path(KVCAST_GOLDEN_DIR) / "gguf" / "blocks.gguf";
}

std::vector<float> floats(const Gguf& file, const std::string& name) {
  const auto tensor = file.find(name);
  EXPECT_TRUE(tensor) << tensor.error().message;
  std::vector<float> values(static_cast<size_t>(tensor->element_count()));
  to_float(*tensor, values);
  return values;
}

class GoldenBlocks : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto opened = Gguf::open(golden_file());
    ASSERT_TRUE(opened) << opened.error().message;
    file_ = std::move(*opened);
  }
  std::unique_ptr<Gguf> file_;
};

TEST_P(GoldenBlocks, DequantizeBitForBitAsTheReferenceDoes) {
  const std::string name = GetParam();
  ASSERT_EQ(dtype_name(file_->find(name)->dtype), name);
  EXPECT_EQ(file_->find(name)->shape, (std::vector<int64_t>{2, 256}));
  const auto values = floats(*file_, name), expected = floats(*file_, name + ".f32");
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected[i])) << i;
  }
}

TEST_P(GoldenBlocks, CodesScaleAndMinimumMeanTheSame) {
  const auto tensor = *file_->find(GetParam());
  if (tensor.dtype == DType::kQ6K) {
    EXPECT_FALSE(has_code_blocks(tensor.dtype));
    return;
  }
  ASSERT_TRUE(has_code_blocks(tensor.dtype));
  const auto expected = floats(*file_, GetParam());
  std::vector<CodeBlock> blocks(expected.size() / CodeBlock::kElements);
  decode_blocks(tensor.dtype, tensor.bytes, blocks);
  for (size_t i = 0; i < expected.size(); ++i) {
    const CodeBlock& block = blocks[i / CodeBlock::kElements];
    const uint8_t code = block.codes[i % CodeBlock::kElements];
    ASSERT_LT(code, 1 << code_bits(tensor.dtype));
    ASSERT_EQ(block.scale * static_cast<float>(code) + block.minimum, expected[i]) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Gguf, GoldenBlocks,
                         testing::Values("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K",
                                         "Q6_K", "IQ4_NL"),
                         [](const auto& type) { return std::string(type.param); });

TEST(Gguf, MetadataOfAnotherWriterAreReadByType) {
  const auto file = Gguf::open(golden_file());
  ASSERT_TRUE(file) << file.error().message;
  const GgufMetadata& values = (*file)->values();
  EXPECT_EQ(*values.text("general.architecture"), "llama");
  EXPECT_EQ(*values.texts("golden.texts"),
            (std::vector<std::string_view>{"a", "", "b\xE2\x98\x83"}));
  EXPECT_EQ(*values.integers("golden.integers"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(*values.numbers("golden.numbers"), (std::vector<double>{0.5, -1.5}));
  EXPECT_EQ(*values.boolean("golden.truth"), true);
  EXPECT_EQ(*values.number("golden.number"), 0.1);
  EXPECT_FALSE(values.contains("golden.nothing"));
}

TEST(Gguf, AskingForAnotherTypeSaysWhatIsExpected) {
  const auto file = Gguf::open(golden_file());
  ASSERT_TRUE(file) << file.error().message;
  const GgufMetadata& values = (*file)->values();
  const auto message = [](const auto& result) {
    return result ? std::string("no error") : result.error().message;
  };
  EXPECT_TRUE(message(values.text("golden.truth")).ends_with("golden.truth: expected a string"));
  EXPECT_TRUE(message(values.integer("golden.number")).ends_with("expected an integer"));
  EXPECT_TRUE(message(values.integer("golden.truth")).ends_with("expected an integer"));
  EXPECT_TRUE(message(values.number("golden.texts")).ends_with("a number, found an array"));
  EXPECT_TRUE(message(values.boolean("golden.number")).ends_with("expected true or false"));
  EXPECT_TRUE(message(values.integers("golden.numbers")).ends_with("an array of integers"));
  EXPECT_TRUE(message(values.texts("golden.integers")).ends_with("an array of strings"));
  EXPECT_TRUE(message(values.text("golden.nothing")).ends_with("golden.nothing: missing"));
}

TEST(Gguf, ASingleIntegerIsAListOfOne) {
  TemporaryDirectory root;
  GgufBytes bytes;
  bytes.pairs = {gguf_pair("n", GgufType::kU16, little_endian<uint16_t>(7))};
  root.write("x.gguf", bytes.str());
  const auto file = Gguf::open(root.path() / "x.gguf");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(*(*file)->values().integers("n"), std::vector<int64_t>{7});
}

TEST(Gguf, IsRecognizedByItsFirstBytes) {
  TemporaryDirectory root;
  root.write("yes", GgufBytes().str());
  root.write("no", "GGUX");
  root.write("short", "GG");
  EXPECT_TRUE(is_gguf_file(root.path() / "yes"));
  EXPECT_FALSE(is_gguf_file(root.path() / "no"));
  EXPECT_FALSE(is_gguf_file(root.path() / "short"));
  EXPECT_FALSE(is_gguf_file(root.path() / "missing"));
}

/// Three parts of one tensor each, whose value is the part's number.
class SplitGguf : public Test {
 protected:
  static std::string name(int part) { return fmt_name(part, 3); }
  static std::string fmt_name(int part, int parts) {
    return "m-0000" + std::to_string(part) + "-of-0000" + std::to_string(parts) + ".gguf";
  }
  static GgufBytes part(int number, int parts = 3) {
    GgufBytes bytes;
    bytes.pairs = {
        gguf_pair("split.no", GgufType::kU16, little_endian(static_cast<uint16_t>(number))),
        gguf_pair("split.count", GgufType::kU16, little_endian(static_cast<uint16_t>(parts))),
        gguf_pair("split.tensors.count", GgufType::kI32, little_endian<int32_t>(parts))};
    bytes.tensors = {gguf_tensor("t" + std::to_string(number), {1}, 0, 0)};
    bytes.data = little_endian(static_cast<float>(number));
    return bytes;
  }
  void write_all() const {
    for (int i = 0; i < 3; ++i) root_.write(name(i + 1), part(i).str());
  }
  void expect_error(int opened, std::string_view what) const {
    const auto file = Gguf::open(root_.path() / name(opened));
    ASSERT_FALSE(file);
    EXPECT_NE(file.error().message.find(what), std::string::npos) << file.error().message;
  }
  TemporaryDirectory root_;
};

TEST_F(SplitGguf, TheFirstPartOpensAll) {
  write_all();
  const auto file = Gguf::open(root_.path() / name(1));
  ASSERT_TRUE(file) << file.error().message;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(floats(**file, "t" + std::to_string(i)), std::vector<float>{static_cast<float>(i)});
  }
}

TEST_F(SplitGguf, TwoPartsAreEnough) {
  for (int i = 0; i < 2; ++i) root_.write(fmt_name(i + 1, 2), part(i, 2).str());
  const auto file = Gguf::open(root_.path() / fmt_name(1, 2));
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(floats(**file, "t1"), std::vector<float>{1});
}

TEST_F(SplitGguf, AnotherPartNamesTheFirst) {
  write_all();
  expect_error(2, "part 1 of 3: expected the first, named NAME-00001-of-00003.gguf");
}

TEST_F(SplitGguf, AMissingPartIsNamed) {
  write_all();
  std::filesystem::remove(root_.path() / name(3));
  expect_error(1, name(3));
}

TEST_F(SplitGguf, PartsThatSayTheyAreOthersAreRefused) {
  write_all();
  root_.write(name(2), part(2).str());
  expect_error(1, "split.no 2 of split.count 3, expected 1 of 3");
  root_.write(name(2), part(1, 4).str());
  expect_error(1, "split.no 1 of split.count 4, expected 1 of 3");
}

TEST_F(SplitGguf, ATensorInTwoPartsIsRefused) {
  write_all();
  GgufBytes second = part(1);
  second.tensors = {gguf_tensor("t0", {1}, 0, 0)};
  root_.write(name(2), second.str());
  expect_error(1, name(2) + ": tensor t0: appears twice");
}

TEST_F(SplitGguf, MissingTensorsAreNoticed) {
  write_all();
  GgufBytes third = part(2);
  third.tensors.clear();
  root_.write(name(3), third.str());
  expect_error(1, "2 tensors in 3 parts, expected 3");
}

TEST_F(SplitGguf, ANameWithoutPartsIsRefused) {
  root_.write("whole.gguf", part(0).str());
  const auto file = Gguf::open(root_.path() / "whole.gguf");
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().message.find("named NAME-00001-of-00003.gguf"), std::string::npos);
}

}  // namespace
}  // namespace kvcast
