// Checkpoint directories whose weights are not those of their config, and shards gone wrong.
#include "malformed/malformed.h"

namespace kvcast {
namespace {

constexpr std::string_view kFile = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";

using CheckpointTensors = MalformedTest;

TEST_F(CheckpointTensors, EachMissingTensorIsNamed) {
  const StoredTensors whole = model_.tensors;
  for (const auto& [name, tensor] : whole) {
    model_.tensors = whole;
    model_.tensors.erase(name);
    expect_model_error({kFile, "tensor " + name, "missing"});
  }
}

TEST_F(CheckpointTensors, EachWrongShapeIsNamedWithTheExpectedOne) {
  const StoredTensors whole = model_.tensors;
  for (const auto& [name, tensor] : whole) {
    const std::vector<int64_t> shape = tensor.shape;
    std::vector<std::vector<int64_t>> wrong_shapes = {{}, {0}, shape, shape};
    wrong_shapes[2].push_back(1);  // right bytes, wrong number of dimensions
    wrong_shapes[3][0] += 1;
    if (shape.size() == 2 && shape[0] != shape[1]) wrong_shapes.push_back({shape[1], shape[0]});
    for (const auto& wrong : wrong_shapes) {
      model_.tensors = whole;
      model_.tensors[name] = some_numbers(wrong, 1);
      expect_model_error(
          {kFile, "tensor " + name, "shape", "expected [" + std::to_string(shape[0])});
    }
  }
}

TEST_F(CheckpointTensors, TypesThatAreNoFloatsAreRefused) {
  for (const char* name : {"transformer.token_embeddings.weight", "transformer.norm.weight",
                           "transformer.layers.1.attn.qkv_proj.weight"}) {
    for (const auto& [dtype, size] : {std::pair{"I64", 8},
                                      {"I32", 4},
                                      {"I16", 2},
                                      {"I8", 1},
                                      {"U8", 1},
                                      {"F64", 8},
                                      {"BOOL", 1}}) {
      ModelFiles changed = model_;
      StoredTensor& tensor = changed.tensors[name];
      tensor.dtype = dtype;
      tensor.bytes.resize(tensor.bytes.size() / 4 * size);
      changed.write(root_);
      expect_load_error(root_.path(), {kFile, name, dtype, "expected F32, F16 or BF16"});
    }
  }
}

TEST_F(CheckpointTensors, AnUntiedModelNeedsItsLmHead) {
  model_.config["share_input_output_layers"] = false;
  expect_model_error({kFile, "tensor lm_head.weight", "missing"});
}

TEST_F(CheckpointTensors, UnusedTensorsOfAnyTypeDoNoHarm) {
  model_.tensors["extra.counts"] = {"I64", {2}, std::string(16, 'x')};
  model_.tensors["extra.empty"] = {"F32", {0, 5}, ""};
  model_.write(root_);
  const auto model = Model::load(root_.path(), {.threads = 1});
  EXPECT_TRUE(model) << model.error().message;
}

class Shards : public MalformedTest {
 protected:
  /// Writes the model as shards: every tensor goes to `name`, and the index says so.
  void write_one_shard(const std::string& name) {
    root_.write("config.json", model_.config.dump());
    root_.write(name, safetensors_bytes(model_.tensors));
    write_index(name);
  }
  void write_index(const std::string& name) {
    Json map = Json::object();
    for (const auto& [tensor, unused] : model_.tensors) map[tensor] = name;
    root_.write(kIndex, Json{{"weight_map", map}}.dump());
  }
};

TEST_F(Shards, OneShardLoads) {
  write_one_shard("model-00001-of-00001.safetensors");
  const auto model = Model::load(root_.path(), {.threads = 1});
  EXPECT_TRUE(model) << model.error().message;
}

TEST_F(Shards, PathsThatLeadOutsideTheDirectoryAreRefused) {
  // The files exist and are good: only their place is wrong.
  root_.write("outside.safetensors", safetensors_bytes(model_.tensors));
  root_.write("model/sub/inside.safetensors", safetensors_bytes(model_.tensors));
  root_.write("model/config.json", model_.config.dump());
  for (const std::string& shard :
       {std::string("../outside.safetensors"), (root_.path() / "outside.safetensors").string(),
        std::string("sub/../../outside.safetensors"), std::string("sub/inside.safetensors"),
        std::string("./x"), std::string("."), std::string(".."), std::string(),
        std::string("a\0b", 3)}) {
    write_index(shard);
    std::filesystem::rename(root_.path() / kIndex, root_.path() / "model" / kIndex);
    expect_load_error(root_.path() / "model", {kIndex, "weight_map", "tensor transformer.",
                                               "not a file name inside the model directory"});
  }
}

TEST_F(Shards, AMissingShardIsNamed) {
  write_one_shard("a.safetensors");
  write_index("b.safetensors");
  expect_load_error(root_.path(), {"b.safetensors", "cannot open"});
}

TEST_F(Shards, ADamagedShardIsNamed) {
  write_one_shard("a.safetensors");
  root_.write("a.safetensors", "short");
  expect_load_error(root_.path(), {"a.safetensors", "5 bytes"});
}

TEST_F(Shards, ATensorInTwoShardsIsRefused) {
  write_one_shard("a.safetensors");
  const std::string name = "transformer.norm.weight";
  root_.write("b.safetensors", safetensors_bytes({{name, model_.tensors[name]}}));
  root_.write(kIndex, R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})");
  expect_load_error(root_.path(), {"b.safetensors", "tensor " + name, "more than one shard"});
}

TEST_F(Shards, ATensorThatNoShardHoldsIsNamedWithTheIndex) {
  write_one_shard("a.safetensors");
  StoredTensors fewer = model_.tensors;
  fewer.erase("transformer.norm.weight");
  root_.write("a.safetensors", safetensors_bytes(fewer));
  expect_load_error(root_.path(), {kIndex, "tensor transformer.norm.weight", "missing"});
}

TEST_F(Shards, AnIndexThatMapsNothingIsRefused) {
  root_.write("config.json", model_.config.dump());
  for (const std::string_view index :
       {"{}", R"({"weight_map":{}})", R"({"weight_map":[]})", R"({"weight_map":"a"})",
        R"({"weight_map":null})", R"({"metadata":{}})"}) {
    root_.write(kIndex, index);
    expect_load_error(root_.path(), {kIndex, "weight_map", "expected"});
  }
  for (const std::string_view index : {"", "[]", "{", "{\"weight_map\":{\"a\":\"b\"}"}) {
    root_.write(kIndex, index);
    expect_load_error(root_.path(), {kIndex, "JSON"});
  }
  root_.write(kIndex, R"({"weight_map":{"x\ny":1}})");
  expect_load_error(root_.path(), {kIndex, "weight_map", "expected a file name"});
}

TEST_F(Shards, ADirectoryWithoutWeightsSaysWhatItLacks) {
  root_.write("config.json", model_.config.dump());
  expect_load_error(root_.path(), {root_.path().string(), "expected model.safetensors or", kIndex});
}

}  // namespace
}  // namespace kvcast
