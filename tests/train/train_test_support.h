// A folder that goes away, and a tiny corpus as token shards.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "train/data/shard_writer.h"

namespace kvcast::train {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "kvcast-train-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::filesystem::path& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary) << contents;
}
inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Every byte is a token: byte b is id b % 93 + 3. Vocabulary 96, BOS 1, EOS 2.
inline TextEncoder byte_encoder() {
  TextEncoder encoder;
  encoder.vocab_size = 96;
  encoder.for_thread = [] {
    return [](std::string_view text, std::vector<int32_t>& ids) {
      for (const char c : text) ids.push_back(static_cast<unsigned char>(c) % 93 + 3);
    };
  };
  return encoder;
}

/// Documents that a tiny model can learn something of.
inline std::string tiny_corpus(int documents) {
  std::string text;
  for (int i = 0; i < documents; ++i) {
    for (int j = 0; j < 4; ++j) text += "the cat number " + std::to_string(i + j) + " sat down. ";
    text += "\n<|endoftext|>\n";
  }
  return text;
}

/// Shards of tiny_corpus in `directory`/shards, a tenth held out.
inline ShardsRecipe write_tiny_shards(const std::filesystem::path& directory, int documents = 200) {
  write_file(directory / "tiny.txt", tiny_corpus(documents));
  ShardsRecipe recipe;
  recipe.output = directory / "shards";
  recipe.held_out_fraction = 0.1;
  recipe.sources = {{directory / "tiny.txt", "tiny", 1.0}};
  write_shards(recipe, byte_encoder());
  return recipe;
}

}  // namespace kvcast::train
