// What `kvcast fit` gathers while both models read a text.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "fit/moments.h"
#include "kvcast/result.h"
#include "model/forecast_plan.h"
#include "model/transformer.h"

namespace kvcast {

/// One regression: the forecast base layers' keys, values or both, from one input.
struct FitBlock {
  ForecastInput input;
  bool keys = true, values = true;

  [[nodiscard]] int64_t parts() const { return int64_t{keys} + int64_t{values}; }
  [[nodiscard]] size_t target_kind() const { return size_t{2} * keys + values; }
};

/// Which layers are forecast, and from which inputs they may be.
struct FitShape {
  int64_t sink_tokens = 0;  ///< positions left out of all sums
  int64_t exact_layers = 0;
  std::vector<FitBlock> blocks;

  /// Every input of the kinds asked for: of the auxiliary's layers, all of them, or, without one,
  /// of the last exact layer.
  static FitShape of(const ModelConfig& auxiliary, std::span<const InputKind> kinds,
                     int64_t sink_tokens, int64_t exact_layers);
  /// Targets of a block: of each forecast layer in turn, keys before values.
  [[nodiscard]] int64_t targets(const FitBlock& block, const ModelConfig& base) const;
};

/// The sums of all blocks, from text to fit on and text to choose by.
struct Statistics {
  /// What was read and how: only sums of the same may be added or continued.
  std::string fingerprint;
  int64_t windows = 0;                    ///< read so far, of those that are this shard's
  std::vector<Moments> fitted, held_out;  // [blocks]

  static Statistics empty(const FitShape& shape, const ModelConfig& base,
                          const ModelConfig& auxiliary, std::string fingerprint);
  Status save(const std::filesystem::path& file) const;
  /// Into the sums of `empty`; errors name the file and what differs.
  static Result<Statistics> load(const std::filesystem::path& file, Statistics empty);
  void merge(const Statistics& other, int threads);
};

/// Reads windows of tokens with both models. `auxiliary` may be null. Used by one thread.
class StatisticsReader {
 public:
  StatisticsReader(const Transformer& base, const Transformer* auxiliary, const FitShape& shape)
      : base_(base), auxiliary_(auxiliary), shape_(shape) {}

  /// Adds the rows of one window to `sums` [blocks]. False: stopped, nothing added.
  bool read(std::span<const int32_t> window, std::vector<Moments>& sums,
            const std::stop_token& stop);

 private:
  bool run(PromptReader reader, std::span<const int32_t> window, const std::stop_token& stop);
  void keep(PromptReader reader, const RawKeyValues& raw, int64_t rows);

  const Transformer& base_;
  const Transformer* auxiliary_;
  const FitShape& shape_;
  Workspace workspace_;
  std::vector<std::vector<float>> x_;  // [blocks] of [rows, input width]
  /// What a kind of block forecasts: keys, values or both of every forecast layer.
  struct Targets {
    std::vector<float> rows;  // [rows, width]
    int64_t width = 0;
    int64_t filled = 0;  ///< columns, of the layers that have run
  };
  std::array<Targets, 4> y_;  // by target_kind()
};

}  // namespace kvcast
