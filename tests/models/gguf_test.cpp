// Reading the GGUF files that `make models` fetches.
#include "io/gguf.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/checkpoint.h"
#include "model/weights.h"
#include "models/hub.h"

namespace kvcast {
namespace {

class FetchedGguf : public testing::TestWithParam<const char*> {};

TEST_P(FetchedGguf, EveryTensorIsReadAndFinite) {
  const auto file = Gguf::open(hub_model(GetParam()));
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_TRUE((*file)->values().text("general.architecture"));
  EXPECT_GT((*file)->values().texts("tokenizer.ggml.tokens")->size(), 40'000U);
  std::vector<float> values;
  for (const auto& [name, tensor] : (*file)->tensors()) {
    values.resize(static_cast<size_t>(tensor.element_count()));
    to_float(tensor, values);
    double squares = 0;
    for (const float value : values) squares += double{value} * value;
    EXPECT_TRUE(std::isfinite(squares) && squares > 0) << name;
    MappedFile::release(tensor.bytes);
  }
}

TEST_P(FetchedGguf, TheMainTypeOfAMixtureIsKnownFromTheHeaders) {
  const auto checkpoint = open_checkpoint(hub_model(GetParam()));
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const auto type = main_type(*checkpoint);
  ASSERT_TRUE(type) << type.error().message;
  EXPECT_EQ(*type, load_weights(*checkpoint, std::nullopt, 2)->main_type());
}

INSTANTIATE_TEST_SUITE_P(Models, FetchedGguf,
                         testing::Values("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct",
                                         "qwen2.5-coder-1.5b-instruct"),
                         [](const auto& model) {
                           std::string name = model.param;
                           for (char& c : name) c = std::isalnum(c) ? c : '_';
                           return name;
                         });

}  // namespace
}  // namespace kvcast
