// GGUF files that are not what they claim to be: each a line with file, tensor or key.
#include "io/gguf.h"

#include <limits>
#include <sstream>

#include "malformed/malformed.h"
#include "support/gguf_bytes.h"

namespace kvcast {
namespace {

constexpr uint32_t kF32 = 0, kQ4K = 12;
constexpr uint64_t kHuge = uint64_t{1} << 60;
constexpr uint64_t kAll = std::numeric_limits<uint64_t>::max();

/// Each test changes one thing of a file with two tensors and a few keys.
class MalformedGguf : public testing::Test {
 protected:
  MalformedGguf() {
    bytes_.pairs = {
        gguf_pair("general.architecture", GgufType::kString, gguf_string("llama")),
        gguf_array("some.texts", GgufType::kString, 2, gguf_string("one") + gguf_string("two")),
        gguf_pair("some.truth", GgufType::kBool, "\x01")};
    bytes_.tensors = {gguf_tensor("a.weight", {8, 3}, kF32, 0),
                      gguf_tensor("b.weight", {256, 1}, kQ4K, 96)};
    bytes_.data.assign(96 + 144, 'x');
  }
  void expect_error(std::initializer_list<std::string_view> parts) {
    expect_error(bytes_.str(), parts);
  }
  void expect_error(std::string_view contents, std::initializer_list<std::string_view> parts) {
    root_.write("bad.gguf", contents);
    const auto file = Gguf::open(root_.path() / "bad.gguf");
    ASSERT_FALSE(file) << "opened, expected an error with " << *parts.begin();
    expect_one_line(file.error().message);
    EXPECT_THAT(file.error().message, testing::HasSubstr("bad.gguf"));
    for (const std::string_view part : parts) {
      EXPECT_THAT(file.error().message, testing::HasSubstr(std::string(part)));
    }
  }

  TemporaryDirectory root_;
  GgufBytes bytes_;
};

TEST_F(MalformedGguf, TheFileOpensUnchanged) {  // else every test below means nothing
  root_.write("good.gguf", bytes_.str());
  const auto file = Gguf::open(root_.path() / "good.gguf");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ((*file)->find("a.weight")->shape, (std::vector<int64_t>{3, 8}));
}

TEST_F(MalformedGguf, CutOffAnywhereIsRefused) {
  const std::string whole = bytes_.str();
  for (size_t length = 0; length < whole.size(); ++length) {
    expect_error(std::string_view(whole).substr(0, length), {""});
    if (HasFailure()) FAIL() << "at " << length << " bytes";
  }
}

TEST_F(MalformedGguf, AnotherMagicIsRefused) {
  bytes_.magic = "GGML";
  expect_error({"not a GGUF file"});
}

TEST_F(MalformedGguf, OtherVersionsAreRefused) {
  for (const uint32_t version : {0U, 1U, 4U, 0xFFFFFFFFU}) {
    bytes_.version = version;
    expect_error({"GGUF version " + std::to_string(version), "expected 2 or 3"});
  }
  bytes_.version = 0x03000000;
  expect_error({"a big-endian file?"});
}

TEST_F(MalformedGguf, CountsBeyondTheFileAreRefused) {
  for (const uint64_t count : {uint64_t{4}, uint64_t{65'537}, kHuge, kAll}) {
    bytes_.pair_count = count;
    expect_error({"bad.gguf"});
  }
  bytes_.pair_count.reset();
  for (const uint64_t count : {uint64_t{3}, uint64_t{1} << 20, kHuge, kAll}) {
    bytes_.tensor_count = count;
    expect_error({"tensor"});
  }
}

TEST_F(MalformedGguf, StringsLongerThanTheFileAreRefused) {
  for (const uint64_t length : {uint64_t{1'000'000}, uint64_t{5} << 30, kHuge, kAll, kAll - 7}) {
    GgufBytes bytes = bytes_;
    bytes.pairs[0] = gguf_string("general.architecture", length);
    expect_error(bytes.str(), {"key 0 of the metadata"});
    bytes = bytes_;
    bytes.pairs[0] = gguf_pair("general.name", GgufType::kString, gguf_string("llama", length));
    expect_error(bytes.str(), {"metadata general.name"});
    bytes = bytes_;
    bytes.tensors[1] = gguf_string("b.weight", length);
    expect_error(bytes.str(), {"name of tensor 1"});
  }
}

TEST_F(MalformedGguf, ArraysBeyondTheFileAreRefused) {
  for (const GgufType type : {GgufType::kU8, GgufType::kF64, GgufType::kString, GgufType::kBool}) {
    for (const uint64_t count : {uint64_t{100'000}, kHuge, kAll, kAll / 8 + 1, kAll / 8 + 2}) {
      bytes_.pairs[1] = gguf_array("some.list", type, count, "");
      expect_error({"metadata some.list"});
    }
  }
}

TEST_F(MalformedGguf, ArraysOfArraysAndUnknownTypesAreRefused) {
  std::string nested;
  for (int depth = 0; depth < 1000; ++depth) {
    nested += little_endian(GgufType::kArray) + little_endian<uint64_t>(1);
  }
  bytes_.pairs[1] = gguf_pair("some.list", GgufType::kArray, nested);
  expect_error({"metadata some.list", "an array of type 9"});
  bytes_.pairs[1] = gguf_pair("some.value", static_cast<GgufType>(13), "12345678");
  expect_error({"metadata some.value", "a value of type 13"});
  bytes_.pairs[1] = gguf_array("some.list", static_cast<GgufType>(0xFFFFFFFF), 1, "12345678");
  expect_error({"metadata some.list", "an array of type 4294967295"});
}

TEST_F(MalformedGguf, TruthIsZeroOrOne) {
  bytes_.pairs[2] = gguf_pair("some.truth", GgufType::kBool, "\x02");
  expect_error({"metadata some.truth", "truth value 2, expected 0 or 1"});
}

TEST_F(MalformedGguf, NamesThatAppearTwiceAreRefused) {
  GgufBytes bytes = bytes_;
  bytes.pairs.push_back(bytes.pairs[0]);
  expect_error(bytes.str(), {"metadata general.architecture: appears twice"});
  bytes_.tensors[1] = gguf_tensor("a.weight", {256, 1}, kQ4K, 96);
  expect_error({"tensor a.weight: appears twice"});
}

TEST_F(MalformedGguf, AlignmentsThatAreNoneAreRefused) {
  for (const uint32_t alignment : {0U, 1U, 4U, 33U, 48U, 0x80000000U, 0xFFFFFFFFU}) {
    GgufBytes bytes = bytes_;
    bytes.pairs.push_back(gguf_pair("general.alignment", GgufType::kU32, little_endian(alignment)));
    expect_error(bytes.str(), {"general.alignment: " + std::to_string(alignment), "power of two"});
  }
  bytes_.pairs.push_back(gguf_pair("general.alignment", GgufType::kString, gguf_string("32")));
  expect_error({"general.alignment: expected an integer"});
}

TEST_F(MalformedGguf, NumbersOfDimensionsAreBounded) {
  for (const std::vector<uint64_t>& dimensions :
       {std::vector<uint64_t>{}, std::vector<uint64_t>(5, 1), std::vector<uint64_t>(1000, 1)}) {
    bytes_.tensors[0] = gguf_tensor("a.weight", dimensions, kF32, 0);
    expect_error({"tensor a.weight", "expected 1 to 4"});
  }
}

TEST_F(MalformedGguf, DimensionsArePositive) {
  for (const uint64_t dimension : {uint64_t{0}, kAll, uint64_t{1} << 63}) {
    bytes_.tensors[0] = gguf_tensor("a.weight", {8, dimension}, kF32, 0);
    expect_error({"tensor a.weight", "expected a positive number"});
  }
}

TEST_F(MalformedGguf, ProductsOfDimensionsThatOverflowAreRefused) {
  const uint64_t big = uint64_t{1} << 32, bigger = uint64_t{1} << 62;
  for (const std::vector<uint64_t>& dimensions : {std::vector<uint64_t>{big, big},
                                                  {big, big, big, big},
                                                  {256, bigger},
                                                  {bigger, 1},
                                                  {bigger, 4},
                                                  {8, 3, kHuge, 16},
                                                  {uint64_t{1} << 61, 1, 1, 1}}) {
    bytes_.tensors[0] = gguf_tensor("a.weight", dimensions, kF32, 0);
    expect_error({"tensor a.weight", "more elements than can be counted"});
    bytes_.tensors[0] = gguf_tensor("a.weight", dimensions, 14, 0);
    expect_error({"tensor a.weight"});
  }
}

TEST_F(MalformedGguf, TypesThatCannotBeReadAreNamedWithThoseThatCan) {
  for (const uint32_t type : {4U, 10U, 11U, 16U, 39U, 0xFFFFFFFFU}) {
    bytes_.tensors[0] = gguf_tensor("a.weight", {8, 3}, type, 0);
    expect_error({"tensor a.weight: type " + std::to_string(type), "Q4_K"});
  }
}

TEST_F(MalformedGguf, RowsAreWholeBlocks) {
  bytes_.tensors[1] = gguf_tensor("b.weight", {128, 2}, kQ4K, 96);
  expect_error({"tensor b.weight: rows of 128 elements, expected a multiple of 256 as Q4_K"});
}

TEST_F(MalformedGguf, OffsetsOutsideTheDataAreRefused) {
  for (const uint64_t offset : {uint64_t{128}, uint64_t{4096}, kHuge, kAll - 31, kAll - 127}) {
    bytes_.tensors[1] = gguf_tensor("b.weight", {256, 1}, kQ4K, offset);
    expect_error({"tensor b.weight: 144 bytes at offset " + std::to_string(offset), "outside"});
  }
}

TEST_F(MalformedGguf, MisalignedOffsetsAreRefused) {
  bytes_.tensors[1] = gguf_tensor("b.weight", {256, 1}, kQ4K, 95);
  expect_error({"tensor b.weight: offset 95 is not a multiple of the alignment 32"});
}

TEST_F(MalformedGguf, TensorsThatOverlapAreRefused) {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{32}, uint64_t{64}}) {
    bytes_.tensors[1] = gguf_tensor("b.weight", {256, 1}, kQ4K, offset);
    expect_error({"overlap"});
  }
}

TEST_F(MalformedGguf, NamesWithControlCharactersStayOneLine) {
  bytes_.tensors[0] = gguf_tensor("a\nb\x1b[2J" + std::string(5000, 'y'), {8, 3}, 99, 0);
  expect_error({"type 99"});
}

}  // namespace
}  // namespace kvcast
