// Weights files that are not what they claim to be.
#include <limits>

#include "malformed/malformed.h"

namespace kvcast {
namespace {

using SafetensorsFile = MalformedTest;

constexpr std::string_view kSafetensorsFile = "model.safetensors";

/// A header with one tensor entry, as text.
std::string one_tensor(std::string_view entry) { return "{\"x\":" + std::string(entry) + "}"; }

TEST_F(SafetensorsFile,
       TheTinyModelAndBundleLoadUnchanged) {  // else every test below means nothing
  model_.write(root_);
  const auto model = Model::load(root_.path(), {.threads = 1});
  EXPECT_TRUE(model) << model.error().message;
  TemporaryDirectory other;
  bundle_.write(other);
  const auto bundle = Model::load(other.path(), {.threads = 1});
  EXPECT_TRUE(bundle) << bundle.error().message;
}

TEST_F(SafetensorsFile, CutOffAnywhereInItsHeaderIsRefused) {
  const std::string whole = safetensors_bytes(model_.tensors);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data(), sizeof header_bytes);
  root_.write("config.json", model_.config.dump());
  for (size_t length = 0; length <= 8 + header_bytes; ++length) {
    root_.write(kSafetensorsFile, std::string_view(whole).substr(0, length));
    expect_load_error(root_.path(), {kSafetensorsFile});
    if (HasFailure()) FAIL() << "at " << length << " bytes";
  }
}

TEST_F(SafetensorsFile, CutOffInItsDataIsRefusedWithTheTensorThatReachesOutside) {
  const std::string whole = safetensors_bytes(model_.tensors);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data(), sizeof header_bytes);
  const size_t data_bytes = whole.size() - 8 - header_bytes;
  for (const size_t kept : {size_t{1}, size_t{3}, data_bytes / 3, data_bytes - 4, data_bytes - 1}) {
    expect_weights_error(std::string_view(whole).substr(0, 8 + header_bytes + kept),
                         {kSafetensorsFile, "tensor transformer.", "data_offsets", "outside"});
  }
}

TEST_F(SafetensorsFile, AHeaderLengthBeyondTheFileIsRefused) {
  const std::string whole = safetensors_bytes(model_.tensors);
  for (const uint64_t length :
       {uint64_t{whole.size()} - 7, uint64_t{whole.size()}, uint64_t{100'000'001},
        uint64_t{1} << 32, uint64_t{1} << 63, std::numeric_limits<uint64_t>::max(),
        std::numeric_limits<uint64_t>::max() - 7}) {
    std::string file = whole;
    std::memcpy(file.data(), &length, sizeof length);
    expect_weights_error(file, {kSafetensorsFile, "header length", std::to_string(length)});
  }
}

TEST_F(SafetensorsFile, AHeaderThatIsNoJsonObjectIsRefused) {
  for (const std::string_view header :
       {"", " ", "{", "}", "nonsense", "{\"x\"}", "{} {}", "\xff\xfe", "{\"\xc3\x28\": 1}"}) {
    expect_weights_error(safetensors_bytes(header, ""), {kSafetensorsFile, "header", "JSON"});
  }
  for (const std::string_view header : {"[]", "1", "null", "\"x\"", "true"}) {
    expect_weights_error(safetensors_bytes(header, ""), {kSafetensorsFile, "header", "object"});
  }
}

TEST_F(SafetensorsFile, ADeeplyNestedHeaderIsRefused) {
  const std::string brackets(1'000'000, '[');
  expect_weights_error(safetensors_bytes(brackets, ""), {kSafetensorsFile, "nested"});
  expect_weights_error(safetensors_bytes(one_tensor(brackets), ""), {kSafetensorsFile, "nested"});
  std::string braces;
  for (int i = 0; i < 100'000; ++i) braces += "{\"x\":";
  expect_weights_error(safetensors_bytes(braces, ""), {kSafetensorsFile, "nested"});
}

TEST_F(SafetensorsFile, ATensorNamedTwiceIsRefused) {
  const std::string entry = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  expect_weights_error(safetensors_bytes("{\"twin\":" + entry + ",\"twin\":" + entry + "}", "abcd"),
                       {kSafetensorsFile, "twin", "twice"});
  expect_weights_error(
      safetensors_bytes(R"({"x":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}})",
                        "abcd"),
      {kSafetensorsFile, "dtype", "twice"});
}

TEST_F(SafetensorsFile, AnEntryWithoutItsPartsIsRefused) {
  for (const std::string_view entry :
       {"1", "null", "[]", "{}", R"({"dtype":"F32","shape":[1]})",
        R"({"dtype":"F32","data_offsets":[0,4]})", R"({"shape":[1],"data_offsets":[0,4]})",
        R"({"dtype":1,"shape":[1],"data_offsets":[0,4]})",
        R"({"dtype":"F32","shape":4,"data_offsets":[0,4]})",
        R"({"dtype":"F32","shape":[1],"data_offsets":4})",
        R"({"dtype":"F32","shape":[1],"data_offsets":[0]})",
        R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,4]})"}) {
    expect_weights_error(safetensors_bytes(one_tensor(entry), "abcd"),
                         {kSafetensorsFile, "tensor x", "expected dtype, shape and data_offsets"});
  }
}

TEST_F(SafetensorsFile, AnUnknownDtypeIsRefused) {
  for (const std::string_view dtype : {"f32", "F8_E9M9", "", "F32 "}) {
    const std::string entry =
        R"({"dtype":")" + std::string(dtype) + R"(","shape":[1],"data_offsets":[0,4]})";
    expect_weights_error(safetensors_bytes(one_tensor(entry), "abcd"),
                         {kSafetensorsFile, "tensor x", "dtype", dtype});
  }
}

TEST_F(SafetensorsFile, OffsetsOutsideTheDataAreRefused) {
  for (const std::string_view offsets :
       {"[0,5]", "[4,8]", "[1,5]", "[3,1]", "[4,0]", "[18446744073709551612,0]",
        "[18446744073709551612,18446744073709551615]", "[0,18446744073709551615]",
        "[9223372036854775807,9223372036854775808]"}) {
    const std::string entry =
        R"({"dtype":"F32","shape":[1],"data_offsets":)" + std::string(offsets) + "}";
    expect_weights_error(safetensors_bytes(one_tensor(entry), "abcd"),
                         {kSafetensorsFile, "tensor x", "data_offsets", "outside"});
  }
}

TEST_F(SafetensorsFile, OffsetsThatAreNoWholeNumbersAreRefused) {
  for (const std::string_view offsets :
       {"[-1,3]", "[0,4.0]", "[0,\"4\"]", "[null,4]", "[0,18446744073709551616]", "[[],{}]"}) {
    const std::string entry =
        R"({"dtype":"F32","shape":[1],"data_offsets":)" + std::string(offsets) + "}";
    expect_weights_error(safetensors_bytes(one_tensor(entry), "abcd"),
                         {kSafetensorsFile, "tensor x", "data_offsets"});
  }
}

TEST_F(SafetensorsFile, AShapeThatDoesNotFitItsBytesIsRefused) {
  for (const std::string_view shape :
       {"[2]", "[]", "[1,1,2]", "[0]", "[4294967296,4294967296]",
        "[9223372036854775807,9223372036854775807]", "[4611686018427387904]",
        "[2305843009213693952,8]", "[9223372036854775807,3,0]"}) {
    const std::string entry =
        R"({"dtype":"F32","shape":)" + std::string(shape) + R"(,"data_offsets":[0,12]})";
    expect_weights_error(safetensors_bytes(one_tensor(entry), "abcdefghijkl"),
                         {kSafetensorsFile, "tensor x", "does not take", "12 bytes"});
  }
}

TEST_F(SafetensorsFile, AShapeThatIsNoListOfSizesIsRefused) {
  for (const std::string_view shape : {"[-1]", "[1.0]", "[\"1\"]", "[[1]]", "[null]",
                                       "[18446744073709551615]", "[18446744073709551616]"}) {
    const std::string entry =
        R"({"dtype":"F32","shape":)" + std::string(shape) + R"(,"data_offsets":[0,4]})";
    expect_weights_error(safetensors_bytes(one_tensor(entry), "abcd"),
                         {kSafetensorsFile, "tensor x", "shape", "non-negative integers"});
  }
}

TEST_F(SafetensorsFile, OverlappingTensorsAreRefused) {
  const auto two = [](std::string_view a, std::string_view b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + std::string(a) +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + std::string(b) + "}}";
  };
  for (const auto& [a, b] :
       {std::pair{"[0,4]", "[0,4]"}, std::pair{"[0,4]", "[3,7]"}, std::pair{"[2,6]", "[0,4]"}}) {
    expect_weights_error(safetensors_bytes(two(a, b), "abcdefgh"),
                         {kSafetensorsFile, "tensor", "overlap"});
  }
  // A small one inside a large one, with a third between their beginnings.
  expect_weights_error(safetensors_bytes(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
                                         R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},)"
                                         R"("c":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}})",
                                         "abcdefgh"),
                       {kSafetensorsFile, "tensor", "overlap"});
}

TEST_F(SafetensorsFile, MetadataThatIsNoStringMapIsRefused) {
  for (const std::string_view metadata : {"1", "[]", "{\"format\":1}", "{\"format\":{}}"}) {
    expect_weights_error(safetensors_bytes("{\"__metadata__\":" + std::string(metadata) + "}", ""),
                         {kSafetensorsFile, "__metadata__"});
  }
}

TEST_F(SafetensorsFile, NamesFromTheFileDoNotBreakTheLineOfTheError) {
  const std::string name = R"(a\nb\u0000\u001b[31m\u007f)";
  expect_weights_error(safetensors_bytes("{\"" + name + "\":1}", ""),
                       {kSafetensorsFile, "tensor a"});
  expect_weights_error(safetensors_bytes("{\"" + name + "\":1,\"" + name + "\":1}", ""),
                       {kSafetensorsFile, "twice"});
  expect_weights_error(safetensors_bytes("{\"__metadata__\":{\"" + name + "\":1}}", ""),
                       {kSafetensorsFile});
  expect_weights_error(
      safetensors_bytes(one_tensor(R"({"dtype":"a\nb","shape":[1],"data_offsets":[0,4]})"), "abcd"),
      {kSafetensorsFile, "tensor x", "dtype"});
}

TEST_F(SafetensorsFile, HugeNamesInTheFileGiveAShortError) {
  const std::string name(1'000'000, 'x');
  expect_weights_error(safetensors_bytes("{\"" + name + "\":1}", ""),
                       {kSafetensorsFile, "expected dtype, shape and data_offsets"});
  expect_weights_error(safetensors_bytes("{\"" + name + "\"", ""),
                       {kSafetensorsFile, "not valid JSON"});
}

}  // namespace
}  // namespace kvcast
