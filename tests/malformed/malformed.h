// How every test of bad input looks at what comes back.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include "kvcast/kvcast.h"
#include "support/bundle_files.h"

namespace kvcast {

/// One line that fits on a screen, whatever the bad input holds.
inline void expect_one_line(std::string_view message) {
  EXPECT_FALSE(message.empty());
  EXPECT_LE(message.size(), 2000U);
  for (const char c : message) {
    EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f)
        << "control character " << int{c} << " in: " << message;
  }
}

/// That loading `directory` fails with one line that holds all of `parts`.
inline void expect_load_error(const std::filesystem::path& directory,
                              std::initializer_list<std::string_view> parts,
                              const LoadOptions& options = {.threads = 1}) {
  const auto model = Model::load(directory, options);
  ASSERT_FALSE(model) << "loaded, expected an error with " << *parts.begin();
  expect_one_line(model.error().message);
  for (const std::string_view part : parts) {
    EXPECT_THAT(model.error().message, testing::HasSubstr(std::string(part)));
  }
}

/// A directory per test with a plain model or a bundle that a test changes before it is written.
class MalformedTest : public testing::Test {
 protected:
  void expect_model_error(std::initializer_list<std::string_view> parts) {
    model_.write(root_);
    expect_load_error(root_.path(), parts);
  }
  void expect_bundle_error(std::initializer_list<std::string_view> parts) {
    bundle_.write(root_);
    expect_load_error(root_.path(), parts);
  }
  /// Writes the model's config and these bytes as its only weights file.
  void expect_weights_error(std::string_view file, std::initializer_list<std::string_view> parts) {
    root_.write("config.json", model_.config.dump());
    root_.write("model.safetensors", file);
    expect_load_error(root_.path(), parts);
  }

  TemporaryDirectory root_;
  ModelFiles model_ = ModelFiles::of(tiny_base_shape(), 0);
  BundleFiles bundle_;
};

}  // namespace kvcast
