// The block runner: starting, suspending and resuming the fibers of a block.
#include "fibers.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <sys/mman.h>

#include "../common/injection.h"
#include "sanitizer.h"

namespace emulator {
namespace {


// The sanitizer's frames are several times larger.
constexpr size_t STACK_BYTES = (sanitizing() ? 512 : 64) * 1024;

thread_local std::unique_ptr<BlockRunner> this_runner;

}  // namespace

void fiber_entry(void *argument) {
    Fiber *fiber = static_cast<Fiber *>(argument);
    fiber->runner->fiber_loop(fiber);
}

Order execution_order() {
    static const Order order = [] {
        const char *text = getenv("CRYOSPLAT_EMULATOR_ORDER");
        if (!text || !*text || strcmp(text, "forward") == 0) return Order::Forward;
        if (strcmp(text, "reverse") == 0) return Order::Reverse;
        if (strcmp(text, "shuffle") == 0) return Order::Shuffle;
        report("CRYOSPLAT_EMULATOR_ORDER is '%s', expected forward, reverse or shuffle", text);
        exit(2);
    }();
    return order;
}

void arrange(std::vector<unsigned> &order, unsigned count, uint64_t seed) {
    order.resize(count);
    std::iota(order.begin(), order.end(), 0u);
    if (execution_order() == Order::Reverse) std::reverse(order.begin(), order.end());
    if (execution_order() != Order::Shuffle) return;
    uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
    for (unsigned left = count; left > 1; --left) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(order[left - 1], order[size_t((state >> 33) % left)]);
    }
}

BlockRunner::BlockRunner() : threads_(MAX_THREADS), ready_(MAX_THREADS) {}

// A process may have only so many mappings, and a test program starts many system threads: the stacks go with their thread.
BlockRunner::~BlockRunner() {
    for (Fiber *fiber : fibers_) {
        sanitizer_unpoison(fiber->stack, STACK_BYTES);
        munmap(fiber->stack - STACK_GUARD_BYTES, STACK_GUARD_BYTES + STACK_BYTES);
        delete fiber;
    }
}

BlockRunner *BlockRunner::running() { return this_runner.get(); }
BlockRunner &BlockRunner::of_this_thread() {
    if (!this_runner) this_runner = std::make_unique<BlockRunner>();
    return *this_runner;
}

void BlockRunner::prepare(const Kernel &kernel, const Module &module, void **parameters, Index3 grid, Index3 block,
                          void *dynamic_shared) {
    kernel_ = &kernel;
    module_ = &module;
    parameters_ = parameters;
    unsigned count = block.x * block.y * block.z;
    bool same = count == count_ && block.x == block_.block_size.x && block.y == block_.block_size.y;
    block_.block_size = block;
    block_.grid_size = grid;
    block_.dynamic_shared = dynamic_shared;
    count_ = count;
    ++launches_;
    if (!same || execution_order() == Order::Shuffle) arrange(start_order_, count, launches_);
    for (unsigned i = 0; !same && i < count; ++i) {
        Thread &thread = threads_[i];
        thread.thread = Index3{i % block.x, i / block.x % block.y, i / block.x / block.y};
        thread.linear = i;
        thread.block = &block_;
    }
}

Fiber *BlockRunner::idle_fiber() {
    if (!idle_.empty()) {
        Fiber *fiber = idle_.back();
        idle_.pop_back();
        return fiber;
    }
    // Stacks which all begin at the same offset of a page would all use the same few cache sets; so they are shifted.
    size_t number = fibers_.size(), shift = number % 60 * 64;
    char *region = static_cast<char *>(mmap(nullptr, STACK_GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0));
    if (region == MAP_FAILED || mprotect(region, STACK_GUARD_BYTES, PROT_NONE) != 0) {
        report("no memory for the stack of a kernel's thread");
        abort();
    }
    Fiber *fiber = new Fiber;
    fiber->stack = region + STACK_GUARD_BYTES;
    fiber->stack_bytes = STACK_BYTES - shift;
    fiber->runner = this;
    prepare_fiber(fiber->point, fiber->stack, fiber->stack_bytes, fiber_entry, fiber);
    fibers_.push_back(fiber);
    return fiber;
}

Result BlockRunner::run(Index3 index) {
    block_.block = index;
    started_ = 0, live_ = count_, arrived_ = 0, ready_count_ = 0;
    barrier_any_ = 0, barrier_all_ = 1, barrier_sum_ = 0;
    result_ = SUCCESS;
    for (unsigned i = 0; i < count_; ++i) threads_[i].phase = Phase::Unstarted;
    Fiber *first = idle_fiber();
    first->thread = &threads_[start_order_[started_++]];
    sanitizer_leaves(&main_fake_, first->stack, first->stack_bytes);
    switch_fiber(main_, first->point);
    sanitizer_arrives(main_fake_, nullptr, nullptr);
    current_ = nullptr;
    if (result_ != SUCCESS) {
        // Unfinished threads are abandoned; their stacks are used again from the start.
        idle_.clear();
        for (Fiber *fiber : fibers_) {
            sanitizer_unpoison(fiber->stack, fiber->stack_bytes);
            prepare_fiber(fiber->point, fiber->stack, fiber->stack_bytes, fiber_entry, fiber);
            fiber->fake_stack = nullptr;
            idle_.push_back(fiber);
        }
    }
    return result_;
}

void BlockRunner::fiber_loop(Fiber *fiber) {
    const void *came_from = nullptr;
    size_t came_from_bytes = 0;
    sanitizer_arrives(nullptr, &came_from, &came_from_bytes);
    if (!main_stack_) main_stack_ = came_from, main_stack_bytes_ = came_from_bytes;  // the first one comes from there
    for (;;) {
        Thread *thread = fiber->thread;
        thread->fiber = fiber;
        thread->phase = Phase::Running;
        current_ = thread;
        module_->set_thread(thread);
        call_kernel(kernel_->invoke, parameters_, thread);
        finish_thread(thread);
        if (ready_count_ == 0 && started_ < count_) {
            fiber->thread = &threads_[start_order_[started_++]];  // the next thread on the same, still warm stack
            continue;
        }
        fiber->thread = nullptr;
        idle_.push_back(fiber);
        leave(fiber);
    }
}

void BlockRunner::finish_thread(Thread *thread) {
    thread->phase = Phase::Done;
    --live_;
    if (arrived_ > 0 && arrived_ == live_) release_barrier();  // CUDA does not wait for threads that have exited
}

void BlockRunner::resume(Fiber *from, Fiber *to) {
    sanitizer_leaves(&from->fake_stack, to->stack, to->stack_bytes);
    switch_fiber(from->point, to->point);
    sanitizer_arrives(from->fake_stack, nullptr, nullptr);
}

void BlockRunner::switch_to_main(Fiber *from) {
    sanitizer_leaves(&from->fake_stack, main_stack_, main_stack_bytes_);
    switch_fiber(from->point, main_);
    sanitizer_arrives(from->fake_stack, nullptr, nullptr);
}

/// The stacks of a block's threads do not fit into the nearest cache, and nearly all of a switch is waiting for them; so
/// what the next few threads need is asked for in good time.
void BlockRunner::fetch_ahead() const {
#if defined(__x86_64__)
    auto ahead = [this](unsigned distance) { return &threads_[ready_[(ready_first_ + distance) % MAX_THREADS]]; };
    if (ready_count_ < 4) return;
    __builtin_prefetch(ahead(3), 1);
    __builtin_prefetch(ahead(2)->fiber);
    const char *stack = static_cast<const char *>(ahead(1)->fiber->point.stack_pointer);
    for (int line = 0; line < 5; ++line) __builtin_prefetch(stack + line * 64, 1);
#endif
}

void BlockRunner::leave(Fiber *from) {
    if (ready_count_ > 0) {
        Thread *next = &threads_[ready_[ready_first_]];
        ready_first_ = (ready_first_ + 1) % MAX_THREADS;
        --ready_count_;
        fetch_ahead();
        next->phase = Phase::Running;
        current_ = next;
        module_->set_thread(next);
        if (next->fiber != from) resume(from, next->fiber);
    } else if (started_ < count_) {
        Fiber *fiber = idle_fiber();
        fiber->thread = &threads_[start_order_[started_++]];
        if (fiber != from) resume(from, fiber);
    } else if (live_ == 0) {
        switch_to_main(from);
    } else {
        report_stuck();
    }
}

void BlockRunner::fail(Result result, const std::string &what) {
    result_ = result;
    failure_ = what;
    Fiber *from = current_->fiber;
    switch_to_main(from);
    abort();  // a given-up fiber is never resumed
}

}  // namespace emulator
