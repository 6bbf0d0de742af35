// Division of matrix products among threads. The arithmetic is in the kernel tables.
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
/// Tasks per thread that leave little idle at the end.
constexpr int64_t kTasksPerThread = 6;

/// How a call is cut: tasks are (row block, panel block, part of a panel), rows outermost.
struct Plan {
  int64_t row_blocks = 1;
  int64_t rows_per_block = 0;
  int64_t panels_per_task = 1;
  int64_t parts_per_panel = 1;  ///< more than one only where panels are few for the threads
};

class Call {
 public:
  Call(std::span<const MatmulArgs> products, const MatmulKernels& kernels, int threads)
      : products_(products),
        kernels_(kernels),
        threads_(threads),
        first_(products.front()),
        carried_(first_.rows, kernels) {
    int64_t panels = 0;
    for (const MatmulArgs& p : products_) panels += p.weight->panels();
    make_plan(panels);
    for (const MatmulArgs& p : products_) {
      panel_blocks_ += ceil_divide(p.weight->panels(), plan_.panels_per_task);
    }
    tasks_ = plan_.row_blocks * panel_blocks_ * plan_.parts_per_panel;
    activations_.place(first_, kernels_);
    thread_local Scratch scratch;
    sums_bytes_ = padded_scratch_bytes(
        kernels_.scratch_bytes(std::min(plan_.rows_per_block, first_.rows), plan_.panels_per_task));
    sums_ = scratch.reserve(static_cast<size_t>(threads_ * sums_bytes_));
  }

  void run() {
    activations_.convert(threads_);
    SharedTasks tasks(tasks_, threads_);
    run_together(threads_, [&](int worker) { work(worker, tasks); });
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
    if (threads_ > 1 && plan_.panels_per_task == 1 &&
        !(kernels_.parts_of_one_row_only && rows > 1)) {
      const int64_t whole_tasks = blocks * plan_.row_blocks;
      if (whole_tasks < 2 * threads_) plan_.parts_per_panel = 2;
      if (whole_tasks < threads_) plan_.parts_per_panel = 4;
    }
  }

  /// What every thread does: takes tasks until none is left. The next task is claimed before the
  /// present one is done, so that its weights can be fetched meanwhile.
  void work(int worker, SharedTasks& tasks) const {
    std::byte* const sums = sums_ + worker * sums_bytes_;
    int64_t task = tasks.take(worker);
    while (task != SharedTasks::kNone) {
      const int64_t next = tasks.take(worker);
      MultiplyArgs args = describe(task);
      args.scratch = sums;
      if (next != SharedTasks::kNone) {
        const MultiplyArgs then = describe(next);
        if (then.panel != args.panel || plan_.parts_per_panel > 1) {
          args.next = then.panel + then.column_begin * 4;
        }
      }
      args.interlude = carried_.between_tiles(worker);
      args.kernels->multiply(args);
      carried_.between_tasks(worker);
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
    MultiplyArgs args = activations_.describe(p, panel, row, plan_.rows_per_block);
    args.panels = std::min(plan_.panels_per_task, p.weight->panels() - panel);
    args.column_begin = kPanel / plan_.parts_per_panel * part;
    args.column_end = kPanel / plan_.parts_per_panel * (part + 1);
    return args;
  }

  std::span<const MatmulArgs> products_;
  const MatmulKernels& kernels_;
  int threads_;
  const MatmulArgs& first_;
  const CarriedProducts carried_;
  Plan plan_;
  int64_t panel_blocks_ = 0;
  int64_t tasks_ = 0;
  Activations activations_;
  std::byte* sums_ = nullptr;  // [threads, sums_bytes_]
  int64_t sums_bytes_ = 0;
};

}  // namespace

void matmul(const MatmulArgs& args, int threads) { matmul_shared_input({&args, 1}, threads); }

void matmul_shared_input(std::span<const MatmulArgs> products, int threads) {
  assert(threads > 0);
  if (products.empty() || products.front().rows == 0) return;
  int64_t work = 0;
  for (const MatmulArgs& p : products) {
    assert(p.a == products.front().a && p.a_bf16 == products.front().a_bf16 &&
           p.rows == products.front().rows);
    assert(read_same_activations(p.weight->type(), products.front().weight->type()));
    assert(p.weight->k() == products.front().weight->k());
    work += p.rows * p.weight->n() * p.weight->k();
  }
  const MatmulKernels& table = kernels().matmul(products.front().weight->type());
  Call(products, table, work < kSerialProductWork ? 1 : threads).run();
}

}  // namespace kvcast
