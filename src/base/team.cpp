#include "base/team.h"

#include <deque>
#include <exception>
#include <thread>
#include <utility>

namespace kvcast {
namespace {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// How often a helper looks for the next piece of work before it sleeps: some 100 microseconds,
/// more than a forward pass computes between two kernels, less than anybody would notice as load.
constexpr int kSpins = 4000;
/// So many turns without a helper, and it sleeps until it is wanted: one that only looks takes a
/// processor, or half a core, from those that work.
constexpr int kTurnsUnwanted = 16;
/// How often the caller looks for helpers that are still at their last piece.
constexpr int kSpinsForTheLast = 2000;

/// True in helpers, and in a caller while it runs a body.
thread_local bool working = false;

}  // namespace

/// The helpers of one calling thread. The caller announces a turn in a word that all helpers look
/// at; a helper says in a word of its own that it came, and that it is done. So helpers write
/// nothing that another helper reads, and a turn costs little more with many of them than with few.
class Team {
 public:
  Team() = default;
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() {
    ending_.store(true, std::memory_order_relaxed);
    announce(kClosed);
    want(kMostHelpers);
    for (Helper& helper : helpers_) helper.thread.join();
  }

  void run(int threads, TeamBody body, const void* context) {
    const int helpers = hire(threads - 1);
    want(helpers);
    working = true;
    body_ = body;
    context_ = context;
    const uint32_t turn = announce(static_cast<uint32_t>(helpers) * kOneHelper);
    call(0);
    finish(turn, helpers);
    working = false;
    if (failed_.exchange(false)) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  // A turn: its number, how many helpers may come, and whether nobody may any more. All in one
  // word, so that who reads it late cannot take the helpers of one turn for those of another.
  static constexpr uint32_t kClosed = 1;
  static constexpr uint32_t kOneHelper = 2;
  static constexpr uint32_t kOneTurn = 1 << 12;
  static constexpr int kMostHelpers = kOneTurn / kOneHelper - 1;

  struct alignas(kApart) Helper {
    std::atomic<uint32_t> turn;  ///< the last one it came to, closed once it is done there
    std::thread thread;
  };

  /// How many of so many helpers there are; the system may give no more threads.
  int hire(int helpers) {
    helpers = std::min(helpers, kMostHelpers);
    while (static_cast<int>(helpers_.size()) < helpers) {
      const uint32_t seen = turn_.load(std::memory_order_relaxed);
      const size_t before = helpers_.size();
      const int worker = static_cast<int>(before) + 1;
      try {
        Helper& helper = helpers_.emplace_back();
        helper.turn.store(seen | kClosed, std::memory_order_relaxed);
        helper.thread = std::thread([this, &helper, worker, seen] { help(helper, worker, seen); });
      } catch (const std::exception&) {  // no more threads, or no memory for one
        if (helpers_.size() > before) helpers_.pop_back();
        break;
      }
    }
    return std::min(helpers, static_cast<int>(helpers_.size()));
  }

  /// Wakes what a turn with so many helpers needs. Those that none of the last turns needed sleep.
  void want(int helpers) {
    const int wanted = wanted_.load(std::memory_order_relaxed);
    most_of_late_ = std::max(most_of_late_, helpers);
    if (helpers > wanted) {
      wanted_.store(helpers, std::memory_order_seq_cst);
      if (away_.load(std::memory_order_seq_cst) > 0) wanted_.notify_all();
    } else if (++turns_of_late_ < kTurnsUnwanted) {
      return;
    } else if (most_of_late_ < wanted) {
      wanted_.store(most_of_late_, std::memory_order_relaxed);
    }
    turns_of_late_ = most_of_late_ = 0;
  }

  /// A worker's share of a turn. What the first one throws is kept for the caller.
  void call(int worker) noexcept {
    try {
      body_(context_, worker);
    } catch (...) {
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
  }

  /// Begins the next turn.
  uint32_t announce(uint32_t terms) {
    const uint32_t last = turn_.load(std::memory_order_relaxed);
    const uint32_t turn = (last / kOneTurn + 1) * kOneTurn + terms;
    turn_.store(turn, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) turn_.notify_all();
    return turn;
  }

  /// Closes the turn and waits for the helpers that have come.
  void finish(uint32_t turn, int helpers) {
    turn_.store(turn | kClosed, std::memory_order_seq_cst);
    for (int i = 0; i < helpers; ++i) {
      std::atomic<uint32_t>& at = helpers_[static_cast<size_t>(i)].turn;
      for (int spins = 0; at.load(std::memory_order_seq_cst) == turn; ++spins) {
        if (spins < kSpinsForTheLast) {
          pause();
        } else {
          caller_sleeps_.store(true, std::memory_order_seq_cst);
          at.wait(turn, std::memory_order_acquire);
          caller_sleeps_.store(false, std::memory_order_relaxed);
        }
      }
    }
  }

  /// A helper's life.
  void help(Helper& self, int worker, uint32_t seen) {
    working = true;
    for (;;) {
      await_wish(worker);
      if (ending_.load(std::memory_order_relaxed)) return;
      const uint32_t turn = seen = await_turn(seen);
      if (ending_.load(std::memory_order_relaxed)) return;
      const int helpers = static_cast<int>(turn % kOneTurn / kOneHelper);
      if ((turn & kClosed) != 0 || worker > helpers) continue;
      // First it says that it comes, then it looks whether it still may; the caller closes first,
      // then looks who has come. So one of them sees the other.
      self.turn.store(turn, std::memory_order_seq_cst);
      if (turn_.load(std::memory_order_seq_cst) == turn) call(worker);
      self.turn.store(turn | kClosed, std::memory_order_seq_cst);
      if (caller_sleeps_.load(std::memory_order_seq_cst)) self.turn.notify_one();
    }
  }

  /// Sleeps as long as this worker is not wanted.
  void await_wish(int worker) {
    if (wanted_.load(std::memory_order_acquire) >= worker) return;
    // First it says that it goes, then it looks whether it is wanted; the caller wants first, then
    // looks who has gone.
    away_.fetch_add(1, std::memory_order_seq_cst);
    for (int wanted; (wanted = wanted_.load(std::memory_order_seq_cst)) < worker;) {
      wanted_.wait(wanted, std::memory_order_acquire);
    }
    away_.fetch_sub(1, std::memory_order_relaxed);
  }

  /// The present turn, once it is another than `seen`.
  uint32_t await_turn(uint32_t seen) {
    for (;;) {
      for (int spins = 0; spins < kSpins; ++spins) {
        const uint32_t turn = turn_.load(std::memory_order_acquire);
        if (turn != seen) return turn;
        pause();
      }
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      turn_.wait(seen, std::memory_order_acquire);
      sleeping_.fetch_sub(1, std::memory_order_relaxed);
    }
  }

  std::deque<Helper> helpers_;
  alignas(kApart) std::atomic<uint32_t> turn_{kClosed};
  // What is being done; written while nobody may come and nobody is there.
  TeamBody body_ = nullptr;
  const void* context_ = nullptr;
  int turns_of_late_ = 0, most_of_late_ = 0;  ///< since wanted_ was looked at; helpers
  // Seldom written.
  alignas(kApart) std::atomic<bool> ending_{false};
  std::atomic<int> wanted_{0};  ///< helpers: the first so many
  // Helpers that sleep, unwanted or until a turn; none is woken, by a call of the system, if none.
  std::atomic<int> away_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> failed_{false};  ///< in this turn
  std::exception_ptr failure_;       ///< whoever set failed_ writes it; read when the turn is over
};

namespace {

Team& own_team() {
  thread_local Team team;
  return team;
}

}  // namespace

void run_on_team(int threads, TeamBody body, const void* context) {
  if (threads <= 1 || working) return body(context, 0);
  own_team().run(threads, body, context);
}

}  // namespace kvcast
