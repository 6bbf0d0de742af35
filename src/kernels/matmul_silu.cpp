// The gated half of a feed-forward layer: gate and up columns of the same features are multiplied
// by the same thread one after the other, and leave its cache as silu(gate) * up.
#include <algorithm>
#include <cassert>

#include "base/team.h"
#include "kernels/activations.h"
#include "kernels/background.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"
#include "kernels/memory.h"

namespace kvcast {
namespace {

constexpr int64_t kPanel = PackedMatrix::kPanelColumns;
/// Rows of one task: gate and up of a panel, 512 bytes a row, stay in the second-level cache.
constexpr int64_t kLargestRowBlock = 132;
/// With fewer rows gate and up are still in the cache after a product, and smaller tasks of one
/// panel share the reading of weights out more evenly.
constexpr int64_t kFewestRows = 16;
/// Tasks per thread that leave little idle at the end.
constexpr int64_t kTasksPerThread = 6;

/// Tasks are (panel of features, row block), rows innermost: the threads work on the same weights.
class GatedCall {
 public:
  GatedCall(const MatmulSiluArgs& args, const KernelTable& table, int threads)
      : args_(args),
        input_{.a = args.a,
               .a_bf16 = args.a_bf16,
               .a_stride = args.a_stride,
               .rows = args.rows,
               .weight = args.weight},
        table_(table),
        kernels_(table.matmul(args.weight->type())),
        threads_(threads),
        panels_(args.weight->panels() / 2),
        carried_(args.rows, kernels_) {
    const int64_t tiles = ceil_divide(args.rows, kernels_.row_multiple);
    const int64_t fewest = ceil_divide(args.rows, kLargestRowBlock);
    const int64_t wanted = threads == 1 ? 1 : ceil_divide(kTasksPerThread * threads, panels_);
    row_blocks_ = std::clamp<int64_t>(wanted, fewest, std::max(fewest, tiles / 2));
    rows_per_block_ = ceil_divide(tiles, row_blocks_) * kernels_.row_multiple;
    row_blocks_ = ceil_divide(args.rows, rows_per_block_);
    activations_.place(input_, kernels_);
    const int64_t rows = std::min(rows_per_block_, args.rows);
    sums_bytes_ = padded_scratch_bytes(kernels_.scratch_bytes(rows, 1));
    worker_bytes_ = sums_bytes_ + padded_scratch_bytes(rows * 2 * kPanel * 4);
    thread_local Scratch scratch;
    scratch_ = scratch.reserve(static_cast<size_t>(threads_ * worker_bytes_));
  }

  void run() {
    activations_.convert(threads_);
    SharedTasks tasks(panels_ * row_blocks_, threads_);
    run_together(threads_, [&](int worker) { work(worker, tasks); });
  }

 private:
  void work(int worker, SharedTasks& tasks) const {
    std::byte* const sums = scratch_ + worker * worker_bytes_;
    auto* const gate_up = reinterpret_cast<float*>(sums + sums_bytes_);  // [rows, 64 | 64]
    int64_t task = tasks.take(worker);
    while (task != SharedTasks::kNone) {
      const int64_t next = tasks.take(worker);
      const int64_t panel = task / row_blocks_;
      const int64_t row = task % row_blocks_ * rows_per_block_;
      MultiplyArgs gate = describe(panel, row, gate_up);
      MultiplyArgs up = describe(panels_ + panel, row, gate_up + kPanel);
      gate.scratch = up.scratch = sums;
      gate.next = up.panel;
      if (next != SharedTasks::kNone && next / row_blocks_ != panel) {
        up.next = args_.weight->panel(next / row_blocks_);
      }
      gate.interlude = up.interlude = carried_.between_tiles(worker);
      kernels_.multiply(gate);
      kernels_.multiply(up);
      carried_.between_tasks(worker);
      const int64_t at = row * args_.out_stride + panel * kPanel;
      const bool bf16 = args_.out_bf16 != nullptr;
      const SiluMulArgs silu{.gate_up = gate_up,
                             .gate_up_stride = 2 * kPanel,
                             .out = bf16 ? nullptr : args_.out + at,
                             .out_bf16 = bf16 ? args_.out_bf16 + at : nullptr,
                             .out_stride = args_.out_stride,
                             .rows = gate.rows,
                             .ffn_dim = kPanel};
      for (int64_t r = 0; r < gate.rows; ++r) table_.silu_mul(silu, r, 0, kPanel);
      task = next;
    }
  }

  [[nodiscard]] MultiplyArgs describe(int64_t panel, int64_t row, float* out) const {
    MultiplyArgs args = activations_.describe(input_, panel, row, rows_per_block_);
    args.columns = kPanel;
    args.out = out;
    args.out_stride = 2 * kPanel;
    return args;
  }

  const MatmulSiluArgs& args_;
  MatmulArgs input_;
  const KernelTable& table_;
  const MatmulKernels& kernels_;
  int threads_;
  int64_t panels_;  ///< of gate, and of up
  const CarriedProducts carried_;
  int64_t row_blocks_ = 1;
  int64_t rows_per_block_ = 0;
  Activations activations_;
  std::byte* scratch_ = nullptr;  // [threads]: sums, then gate and up
  int64_t sums_bytes_ = 0;
  int64_t worker_bytes_ = 0;
};

/// Gate and up go through memory: few rows, panels that hold columns of both, and kernels that
/// multiply several panels at once.
void in_two_steps(const MatmulSiluArgs& args, int threads) {
  const int64_t width = args.weight->n();
  thread_local Scratch scratch;
  auto* const gate_up = reinterpret_cast<float*>(
      scratch.reserve(static_cast<size_t>(args.rows * width) * sizeof(float)));
  matmul({.a = args.a,
          .a_bf16 = args.a_bf16,
          .a_stride = args.a_stride,
          .rows = args.rows,
          .weight = args.weight,
          .out = gate_up,
          .out_stride = width},
         threads);
  silu_mul({.gate_up = gate_up,
            .gate_up_stride = width,
            .out = args.out,
            .out_bf16 = args.out_bf16,
            .out_stride = args.out_stride,
            .rows = args.rows,
            .ffn_dim = width / 2},
           threads);
}

}  // namespace

void matmul_silu(const MatmulSiluArgs& args, int threads) {
  assert(threads > 0 && args.weight->n() % 2 == 0);
  if (args.rows == 0) return;
  const KernelTable& table = kernels();
  const bool whole_panels = args.weight->n() % (2 * kPanel) == 0;
  if (args.rows < kFewestRows || !whole_panels ||
      table.matmul(args.weight->type()).panels_per_block > 1) {
    return in_two_steps(args, threads);
  }
  const int64_t work = args.rows * args.weight->n() * args.weight->k();
  GatedCall(args, table, work < kSerialProductWork ? 1 : threads).run();
}

}  // namespace kvcast
