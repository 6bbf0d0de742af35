// Division of matrix products among threads. The arithmetic is in the kernel tables.
#include <algorithm>
#include <atomic>
#include <cassert>

#include "base/team.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"
#include "kernels/memory.h"

namespace kvcast {
namespace {

constexpr int64_t kPanel = PackedMatrix::kPanelColumns;
/// Below this many multiply-adds a call is shorter than waking a thread.
constexpr int64_t kSerialWork = 100'000;
/// Activations that one thread converts at once: some microseconds.
constexpr int64_t kElementsPerConversion = 16'384;
/// Tasks per thread that leave little idle at the end.
constexpr int64_t kTasksPerThread = 6;

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// The activations of a call as the kernels read them.
struct Activations {
  const std::byte* data = nullptr;  // [rows, groups * group_bytes]
  int64_t stride_bytes = 0;
  float* row_scales = nullptr;  // [rows]
  bool converted = false;       ///< `data` is scratch that convert() must fill
};

/// How a call is cut: tasks are (row block, panel block, part of a panel), rows outermost.
struct Plan {
  int64_t row_blocks = 1;
  int64_t rows_per_block = 0;
  int64_t panels_per_task = 1;
  int64_t parts_per_panel = 1;  ///< more than one only where panels are fewer than threads
};

class Call {
 public:
  Call(std::span<const MatmulArgs> products, const MatmulKernels& kernels, int threads)
      : products_(products), kernels_(kernels), threads_(threads), first_(products.front()) {
    int64_t panels = 0;
    for (const MatmulArgs& p : products_) panels += p.weight->panels();
    make_plan(panels);
    for (const MatmulArgs& p : products_) {
      panel_blocks_ += ceil_divide(p.weight->panels(), plan_.panels_per_task);
    }
    tasks_ = plan_.row_blocks * panel_blocks_ * plan_.parts_per_panel;
    place_activations();
    thread_local Scratch scratch;
    sums_bytes_ = padded_scratch_bytes(
        kernels_.scratch_bytes(std::min(plan_.rows_per_block, first_.rows), plan_.panels_per_task));
    sums_ = scratch.reserve(static_cast<size_t>(threads_ * sums_bytes_));
  }

  void run() {
    if (activations_.converted) convert_all();
    run_together(threads_, [this](int worker) { work(worker); });
  }

 private:
  void make_plan(int64_t panels) {
    const int64_t rows = first_.rows;
    plan_.panels_per_task = kernels_.panels_per_block;
    int64_t blocks = ceil_divide(panels, plan_.panels_per_task);
    const int64_t wanted = threads_ == 1 ? 1 : kTasksPerThread * threads_;
    while (plan_.panels_per_task > 1 && blocks < wanted) {
      plan_.panels_per_task /= 2;
      blocks = ceil_divide(panels, plan_.panels_per_task);
    }
    const int64_t tiles = ceil_divide(rows, kernels_.row_multiple);
    plan_.row_blocks = ceil_divide(rows, kernels_.largest_row_block);
    if (blocks * plan_.row_blocks < wanted) {  // at least two register tiles of rows a task
      plan_.row_blocks = std::clamp<int64_t>(ceil_divide(wanted, blocks), plan_.row_blocks,
                                             std::max(plan_.row_blocks, tiles / 2));
    }
    plan_.rows_per_block = ceil_divide(tiles, plan_.row_blocks) * kernels_.row_multiple;
    plan_.row_blocks = ceil_divide(rows, plan_.rows_per_block);
    while (plan_.panels_per_task == 1 && plan_.parts_per_panel < kernels_.most_parts_per_panel &&
           blocks * plan_.row_blocks * plan_.parts_per_panel < 2 * threads_ && threads_ > 1) {
      plan_.parts_per_panel *= 2;
    }
  }

  void place_activations() {
    const PackedMatrix& w = *first_.weight;
    if (kernels_.f32_activations && w.k() == w.padded_k()) {
      activations_.data = reinterpret_cast<const std::byte*>(first_.a);
      activations_.stride_bytes = first_.a_stride * static_cast<int64_t>(sizeof(float));
      return;
    }
    activations_.stride_bytes = w.groups() * kernels_.group_bytes + kernels_.row_padding_bytes;
    thread_local Scratch scratch;
    const int64_t unit = kernels_.rows_per_conversion;
    const int64_t whole_rows = ceil_divide(first_.rows, unit) * unit;
    const auto row_bytes = static_cast<size_t>(whole_rows * activations_.stride_bytes);
    std::byte* const data =
        scratch.reserve(row_bytes + static_cast<size_t>(first_.rows) * sizeof(float));
    activations_.data = data;
    activations_.row_scales = reinterpret_cast<float*>(data + row_bytes);
    activations_.converted = true;
  }

  void convert_all() {
    const int64_t units = ceil_divide(first_.rows, kernels_.rows_per_conversion);
    const int64_t pieces =
        std::clamp<int64_t>(first_.rows * first_.weight->k() / kElementsPerConversion, 1, units);
    parallel_for(pieces, threads_, [&](int64_t piece, int) {
      for (int64_t unit = units * piece / pieces; unit < units * (piece + 1) / pieces; ++unit) {
        const int64_t row = unit * kernels_.rows_per_conversion;
        convert(row, std::min(row + kernels_.rows_per_conversion, first_.rows));
      }
    });
  }

  void convert(int64_t begin, int64_t end) {
    kernels_.convert(
        {.a = first_.a + begin * first_.a_stride,
         .a_stride = first_.a_stride,
         .rows = end - begin,
         .k = first_.weight->k(),
         .groups = first_.weight->groups(),
         .out = const_cast<std::byte*>(activations_.data) + begin * activations_.stride_bytes,
         .out_stride_bytes = activations_.stride_bytes,
         .row_scales = activations_.row_scales + begin});
  }

  /// What every thread does: takes tasks until none is left. The next task is claimed before the
  /// present one is done, so that its weights can be fetched meanwhile.
  void work(int worker) {
    std::byte* const sums = sums_ + worker * sums_bytes_;
    int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    while (task < tasks_) {
      const int64_t next = next_task_.fetch_add(1, std::memory_order_relaxed);
      MultiplyArgs args = describe(task);
      args.scratch = sums;
      if (next < tasks_) {
        const std::byte* const panel = describe(next).panel;
        if (panel != args.panel) args.next = panel;
      }
      kernels_.multiply(args);
      task = next;
    }
  }

  [[nodiscard]] MultiplyArgs describe(int64_t task) const {
    const int64_t part = task % plan_.parts_per_panel;
    int64_t block = task / plan_.parts_per_panel % panel_blocks_;
    const int64_t row = task / plan_.parts_per_panel / panel_blocks_ * plan_.rows_per_block;
    size_t product = 0;
    for (;; ++product) {
      const int64_t blocks =
          ceil_divide(products_[product].weight->panels(), plan_.panels_per_task);
      if (block < blocks) break;
      block -= blocks;
    }
    const MatmulArgs& p = products_[product];
    const int64_t panel = block * plan_.panels_per_task;
    MultiplyArgs args;
    args.a = activations_.data + row * activations_.stride_bytes;
    args.a_stride_bytes = activations_.stride_bytes;
    args.row_scales = activations_.row_scales == nullptr ? nullptr : activations_.row_scales + row;
    args.rows = std::min(plan_.rows_per_block, first_.rows - row);
    args.groups = p.weight->groups();
    args.panel = p.weight->panel(panel);
    args.panel_bytes = static_cast<int64_t>(p.weight->panel_bytes());
    args.panels = std::min(plan_.panels_per_task, p.weight->panels() - panel);
    args.column_begin = kPanel / plan_.parts_per_panel * part;
    args.column_end = kPanel / plan_.parts_per_panel * (part + 1);
    args.columns = p.weight->n() - panel * kPanel;
    args.bias = p.bias == nullptr ? nullptr : p.bias + panel * kPanel;
    args.out = p.out + row * p.out_stride + panel * kPanel;
    args.out_stride = p.out_stride;
    args.accumulate = p.accumulate;
    return args;
  }

  std::span<const MatmulArgs> products_;
  const MatmulKernels& kernels_;
  int threads_;
  const MatmulArgs& first_;
  Plan plan_;
  int64_t panel_blocks_ = 0;
  int64_t tasks_ = 0;
  Activations activations_;
  std::byte* sums_ = nullptr;  // [threads, sums_bytes_]
  int64_t sums_bytes_ = 0;
  std::atomic<int64_t> next_task_{0};
};

}  // namespace

void matmul(const MatmulArgs& args, int threads) { matmul_shared_input({&args, 1}, threads); }

void matmul_shared_input(std::span<const MatmulArgs> products, int threads) {
  assert(threads > 0);
  if (products.empty() || products.front().rows == 0) return;
  int64_t work = 0;
  for (const MatmulArgs& p : products) {
    assert(p.a == products.front().a && p.rows == products.front().rows);
    assert(p.weight->type() == products.front().weight->type());
    assert(p.weight->k() == products.front().weight->k());
    work += p.rows * p.weight->n() * p.weight->k();
  }
  const MatmulKernels& table = kernels().matmul(products.front().weight->type());
  Call(products, table, work < kSerialWork ? 1 : threads).run();
}

}  // namespace kvcast
