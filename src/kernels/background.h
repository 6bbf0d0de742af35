// Products of few rows, done between the register tiles of products of many.
//
// A product of few rows waits for its weights to come from memory, a product of many computes. A
// thread that fetches some of the former's weights while it computes a tile of the latter finds
// them in its cache afterwards, and what would be waiting costs a few percent of the arithmetic.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/activations.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"
#include "kernels/memory.h"

namespace kvcast {

/// A chain of products: when those in progress are done, `next` computes what follows from them and
/// starts others. While a Scope lives, the calling thread's products of many rows carry the chain
/// along, a panel of 64 columns at a time on each of their threads. The bits are those of matmul().
///
/// start() and finish() are called by one thread, or by `next`. `next` is called by whichever
/// thread has finished the last piece, never twice at once; it must not throw, nor multiply itself.
class BackgroundProducts {
 public:
  /// Products of at most `rows` rows, carried by at most `threads` threads. Throws std::bad_alloc.
  BackgroundProducts(int64_t rows, int threads, std::function<void()> next);
  ~BackgroundProducts();
  BackgroundProducts(const BackgroundProducts&) = delete;
  BackgroundProducts& operator=(const BackgroundProducts&) = delete;

  /// Begins with products that read the same input, as matmul_shared_input does. What they point to
  /// must live until they are done. None may be in progress. Throws std::bad_alloc.
  void start(std::span<const MatmulArgs> products);
  /// Nothing is in progress.
  [[nodiscard]] bool idle() const { return unfinished_.load(std::memory_order_acquire) == 0; }
  /// Completes what is in progress with all threads, and does not call `next`.
  void finish();

  /// Lets the calling thread's products carry this chain, if it is not null.
  class Scope {
   public:
    explicit Scope(BackgroundProducts* chain);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    BackgroundProducts* before_;
  };

 private:
  friend class CarriedProducts;
  struct Cursor;

  [[nodiscard]] Interlude* interlude(int worker);
  void advance_between_tasks(int worker);

  /// A panel that nobody has begun, or -1.
  int64_t take();
  [[nodiscard]] MultiplyArgs describe(int64_t piece) const;
  void begin_piece(Cursor& cursor);
  void complete_piece(Cursor& cursor);
  void piece_is_done();
  static void advance(Interlude& self, int64_t bytes);

  const int64_t rows_;
  const int threads_;
  const std::function<void()> next_;
  std::vector<MatmulArgs> products_;
  Scratch converted_;
  Activations activations_;
  int64_t pieces_ = 0;
  bool finishing_ = false;
  std::unique_ptr<Cursor[]> cursors_;  // [threads]
  alignas(64) std::atomic<int64_t> unclaimed_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
};

/// What the tasks of a product carry along: the chain of the calling thread's Scope, or nothing.
class CarriedProducts {
 public:
  /// For a product of `rows` rows.
  CarriedProducts(int64_t rows, const MatmulKernels& kernels);
  /// What `worker`, below the chain's threads, does between the tiles of a task, or null.
  [[nodiscard]] Interlude* between_tiles(int worker) const {
    return chain_ != nullptr && between_tiles_ ? chain_->interlude(worker) : nullptr;
  }
  /// To be called after each task: where the kernels take no interludes this is when.
  void between_tasks(int worker) const {
    if (chain_ != nullptr && !between_tiles_) chain_->advance_between_tasks(worker);
  }

 private:
  BackgroundProducts* chain_;
  bool between_tiles_;
};

}  // namespace kvcast
