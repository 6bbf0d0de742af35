#include "kernels/background.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "base/team.h"

namespace kvcast {
namespace {

/// With fewer rows a product waits for its own weights.
constexpr int64_t kFewestCarryingRows = 32;

thread_local BackgroundProducts* carried_chain = nullptr;

}  // namespace

/// Where one thread is; without a panel if data is null.
struct alignas(64) BackgroundProducts::Cursor : Interlude {
  BackgroundProducts* chain = nullptr;
  MultiplyArgs args;
  int64_t group = 0;  ///< of the panel, the next to be multiplied
  Scratch sums;
};

BackgroundProducts::BackgroundProducts(int64_t rows, int threads, std::function<void()> next)
    : rows_(rows),
      threads_(threads),
      next_(std::move(next)),
      cursors_(std::make_unique<Cursor[]>(static_cast<size_t>(threads))) {
  int64_t sums_bytes = 0;
  for (const WeightType type : kWeightTypes) {
    sums_bytes = std::max(sums_bytes, kernels().matmul(type).scratch_bytes(rows, 1));
  }
  for (int worker = 0; worker < threads; ++worker) {
    Cursor& cursor = cursors_[static_cast<size_t>(worker)];
    cursor.chain = this;
    cursor.Interlude::advance = BackgroundProducts::advance;
    cursor.args.scratch = cursor.sums.reserve(static_cast<size_t>(sums_bytes));
  }
  products_.reserve(3);
}

BackgroundProducts::~BackgroundProducts() = default;

void BackgroundProducts::start(std::span<const MatmulArgs> products) {
  assert(idle() && !products.empty() && products.front().rows <= rows_);
  products_.assign(products.begin(), products.end());
  activations_ = {};
  activations_.place(products_.front(), kernels().matmul(products_.front().weight->type()),
                     &converted_);
  activations_.convert(1);
  pieces_ = 0;
  for (const MatmulArgs& p : products_) pieces_ += p.weight->panels();
  unfinished_.store(pieces_, std::memory_order_relaxed);
  unclaimed_.store(pieces_, std::memory_order_release);
}

MultiplyArgs BackgroundProducts::describe(int64_t piece) const {
  size_t product = 0;
  int64_t panel = piece;
  for (; panel >= products_[product].weight->panels(); ++product) {
    panel -= products_[product].weight->panels();
  }
  return activations_.describe(products_[product], panel, 0, rows_);
}

/// Counts down to zero, which only start() ends: so whenever the exchange succeeds, the count that
/// was seen belongs to the products in progress.
int64_t BackgroundProducts::take() {
  int64_t left = unclaimed_.load(std::memory_order_acquire);
  do {
    if (left == 0) return -1;
  } while (!unclaimed_.compare_exchange_weak(left, left - 1, std::memory_order_acquire));
  return pieces_ - left;
}

void BackgroundProducts::begin_piece(Cursor& cursor) {
  const int64_t piece = take();
  if (piece < 0) return;
  std::byte* const scratch = cursor.args.scratch;
  cursor.args = describe(piece);
  cursor.args.scratch = scratch;
  cursor.group = 0;
  cursor.data = cursor.args.panel;
  cursor.bytes = cursor.args.groups / PackedMatrix::kUnitGroups * cursor.args.unit_bytes;
}

void BackgroundProducts::complete_piece(Cursor& cursor) {
  const MatmulKernels& kernels = *cursor.args.kernels;
  if (kernels.multiply_groups == nullptr || cursor.group == 0) {
    kernels.multiply(cursor.args);
  } else if (cursor.group < cursor.args.groups) {
    kernels.multiply_groups(cursor.args, cursor.group, cursor.args.groups);
  }
  cursor.data = nullptr;
  cursor.bytes = 0;
  piece_is_done();
}

void BackgroundProducts::piece_is_done() {
  if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1 && !finishing_) next_();
}

void BackgroundProducts::advance(Interlude& self, int64_t bytes) {
  auto& cursor = static_cast<Cursor&>(self);
  BackgroundProducts& chain = *cursor.chain;
  if (cursor.data == nullptr) return chain.begin_piece(cursor);
  const int64_t units = std::max<int64_t>(bytes / cursor.args.unit_bytes, 1);
  const int64_t groups = units * PackedMatrix::kUnitGroups;
  if (cursor.args.kernels->multiply_groups != nullptr) {
    cursor.args.kernels->multiply_groups(cursor.args, cursor.group, cursor.group + groups);
  }
  cursor.group += groups;
  cursor.data += units * cursor.args.unit_bytes;
  cursor.bytes -= units * cursor.args.unit_bytes;
  if (cursor.bytes > 0) return;
  chain.complete_piece(cursor);
  chain.begin_piece(cursor);
}

Interlude* BackgroundProducts::interlude(int worker) {
  assert(worker < threads_);
  return &cursors_[static_cast<size_t>(worker)];
}

void BackgroundProducts::advance_between_tasks(int worker) {
  Cursor& cursor = cursors_[static_cast<size_t>(worker)];
  if (cursor.data == nullptr) begin_piece(cursor);
  if (cursor.data != nullptr) complete_piece(cursor);
}

void BackgroundProducts::finish() {
  finishing_ = true;
  std::atomic<size_t> next_cursor{0};
  run_together(threads_, [&](int) {
    // Everybody comes once, and takes over a panel that somebody who is not here may have begun.
    Cursor& cursor = cursors_[next_cursor.fetch_add(1, std::memory_order_relaxed)];
    if (cursor.data != nullptr) complete_piece(cursor);
    for (int64_t piece = take(); piece >= 0;) {
      const int64_t next = take();
      MultiplyArgs args = describe(piece);
      args.scratch = cursor.args.scratch;
      if (next >= 0) args.next = describe(next).panel;
      args.kernels->multiply(args);
      piece_is_done();
      piece = next;
    }
  });
  for (int worker = 0; worker < threads_; ++worker) {  // of those who did not come
    Cursor& cursor = cursors_[static_cast<size_t>(worker)];
    if (cursor.data != nullptr) complete_piece(cursor);
  }
  finishing_ = false;
  assert(idle());
}

BackgroundProducts::Scope::Scope(BackgroundProducts* chain)
    : before_(std::exchange(carried_chain, chain)) {}
BackgroundProducts::Scope::~Scope() { carried_chain = before_; }

CarriedProducts::CarriedProducts(int64_t rows, const MatmulKernels& kernels)
    : chain_(rows < kFewestCarryingRows ? nullptr : carried_chain),
      between_tiles_(kernels.takes_interludes) {}

}  // namespace kvcast
