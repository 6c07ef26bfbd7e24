// Runs the threads of one CUDA block as fibers on one system thread: each runs until it waits at a barrier or for the
// other lanes of a warp operation, then the next one continues.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../common/cuda_types.h"
#include "../kernel/module_interface.h"
#include "switch.h"

namespace emulator {

enum class Order { Forward, Reverse, Shuffle };
/// From CRYOSPLAT_EMULATOR_ORDER: in which order the blocks of a launch and the threads of a block start.
Order execution_order();
/// Fills `order` with 0..count-1, arranged by `execution_order()`; `seed` makes shuffles differ between launches.
void arrange(std::vector<unsigned> &order, unsigned count, uint64_t seed);

enum class Phase : uint8_t { Unstarted, Ready, Running, AtBarrier, AtWarp, Done };

struct Fiber;
constexpr size_t STACK_GUARD_BYTES = 64 * 1024;  // inaccessible, below each stack

struct Thread : ThreadState {
    Phase phase;
    Fiber *fiber;
    WarpRequest request;
    Place place;
    uint64_t result;
};

/// A stack, and where on it its thread was left. It outlives the thread and takes up the next.
struct Fiber {
    SwitchPoint point;
    char *stack;
    size_t stack_bytes;
    void *fake_stack = nullptr;
    class BlockRunner *runner;
    Thread *thread = nullptr;
};

class BlockRunner {
  public:
    static constexpr unsigned MAX_THREADS = 1024;
    BlockRunner();
    ~BlockRunner();
    BlockRunner(const BlockRunner &) = delete;
    /// The calling system thread's runner, or none if it has never run a block.
    static BlockRunner *running();
    static BlockRunner &of_this_thread();

    /// Before the blocks of a launch: its shape and kernel.
    void prepare(const Kernel &kernel, const Module &module, void **parameters, Index3 grid, Index3 block, void *dynamic_shared);
    /// Runs one block to its end. SUCCESS, or the error of a failed one with its description in `failure()`.
    Result run(Index3 index);
    const std::string &failure() const { return failure_; }

    /// For reports of faults: the thread now running, or none.
    const Thread *current() const { return current_; }
    const Kernel *kernel() const { return kernel_; }
    Index3 block() const { return block_.block; }

    // What kernels call.
    int barrier(Thread *thread, BarrierKind kind, int predicate, Place place);
    uint64_t warp(Thread *thread, const WarpRequest &request, Place place);
    uint32_t active_mask(const Thread *thread) const;
    [[noreturn]] void fail(Result result, const std::string &what);

  private:
    friend void fiber_entry(void *);
    void fiber_loop(Fiber *fiber);
    void finish_thread(Thread *thread);
    void release_barrier();
    bool complete_warp(unsigned first, uint32_t mask);
    Fiber *idle_fiber();
    /// Gives the processor to the next thread that can run, from a fiber which waits or has nothing left to do.
    void leave(Fiber *from);
    void fetch_ahead() const;
    void resume(Fiber *from, Fiber *to);
    void switch_to_main(Fiber *from);
    [[noreturn]] void report_stuck();
    std::string where(const Thread *thread) const;

    const Kernel *kernel_ = nullptr;
    const Module *module_ = nullptr;
    void **parameters_ = nullptr;
    BlockState block_{};
    std::vector<Thread> threads_;
    std::vector<unsigned> start_order_;
    std::vector<unsigned> ready_;  // a ring of thread numbers
    unsigned ready_first_ = 0, ready_count_ = 0;
    unsigned count_ = 0, started_ = 0, live_ = 0;
    unsigned arrived_ = 0;
    BarrierKind barrier_kind_{};
    Place barrier_place_{};
    int barrier_any_ = 0, barrier_all_ = 1, barrier_sum_ = 0, barrier_result_ = 0;
    std::vector<Fiber *> fibers_, idle_;
    SwitchPoint main_{};
    void *main_fake_ = nullptr;
    const void *main_stack_ = nullptr;
    size_t main_stack_bytes_ = 0;
    Thread *current_ = nullptr;
    Result result_ = SUCCESS;
    std::string failure_;
    uint64_t launches_ = 0;
};

/// The function table passed to every module.
const Runtime *kernel_runtime();

}  // namespace emulator
