// Where a block's threads meet: barriers and warp operations, and the report when they cannot.
#include <cstdio>
#include <cstring>

#include "fibers.h"

namespace emulator {
namespace {

const char *name_of(BarrierKind kind) {
    switch (kind) {
    case BarrierKind::Plain: return "__syncthreads";
    case BarrierKind::Or: return "__syncthreads_or";
    case BarrierKind::And: return "__syncthreads_and";
    default: return "__syncthreads_count";
    }
}

const char *name_of(WarpKind kind) {
    switch (kind) {
    case WarpKind::Sync: return "__syncwarp";
    case WarpKind::Shuffle: return "__shfl_sync";
    case WarpKind::Ballot: return "__ballot_sync";
    case WarpKind::Any: return "__any_sync";
    case WarpKind::All: return "__all_sync";
    case WarpKind::MatchAny: return "__match_any_sync";
    default: return "__reduce_sync";
    }
}

bool same(Place a, Place b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }
std::string text(Place place) { return std::string(place.file) + ":" + std::to_string(place.line); }
std::string hexadecimal(uint32_t mask) {
    char digits[16];
    snprintf(digits, sizeof digits, "0x%08x", mask);
    return digits;
}

uint64_t reduce(WarpKind kind, uint64_t a, uint64_t b) {
    uint32_t x = uint32_t(a), y = uint32_t(b);
    switch (kind) {
    case WarpKind::ReduceAdd: return uint32_t(x + y);
    case WarpKind::ReduceMin: return x < y ? x : y;
    case WarpKind::ReduceMax: return x > y ? x : y;
    case WarpKind::ReduceMinSigned: return int32_t(x) < int32_t(y) ? x : y;
    case WarpKind::ReduceMaxSigned: return int32_t(x) > int32_t(y) ? x : y;
    case WarpKind::ReduceAnd: return x & y;
    case WarpKind::ReduceOr: return x | y;
    default: return x ^ y;
    }
}

}  // namespace

std::string BlockRunner::where(const Thread *thread) const {
    return "thread (" + std::to_string(thread->thread.x) + ", " + std::to_string(thread->thread.y) + ", " +
           std::to_string(thread->thread.z) + ")";
}

int BlockRunner::barrier(Thread *thread, BarrierKind kind, int predicate, Place place) {
    if (arrived_ == 0) {
        barrier_kind_ = kind, barrier_place_ = place;
    } else if (kind != barrier_kind_ || !same(place, barrier_place_)) {
        fail(LAUNCH_FAILED, "divergent barrier: " + std::to_string(arrived_) + " threads wait at " + name_of(barrier_kind_) +
                                " (" + text(barrier_place_) + ") while " + where(thread) + " comes to " + name_of(kind) + " (" +
                                text(place) + ")");
    }
    barrier_any_ |= predicate != 0;
    barrier_all_ &= predicate != 0;
    barrier_sum_ += predicate != 0;
    thread->phase = Phase::AtBarrier;
    if (++arrived_ == live_) {
        release_barrier();
        // This thread continues at once; the first ready one takes its place.
    }
    leave(thread->fiber);
    return barrier_result_;
}

void BlockRunner::release_barrier() {
    barrier_result_ = barrier_kind_ == BarrierKind::Or ? barrier_any_ : barrier_kind_ == BarrierKind::And ? barrier_all_ : barrier_sum_;
    arrived_ = 0;
    barrier_any_ = 0, barrier_all_ = 1, barrier_sum_ = 0;
    for (unsigned number : start_order_) {
        Thread &thread = threads_[number];
        if (thread.phase != Phase::AtBarrier) continue;
        thread.phase = Phase::Ready;
        ready_[(ready_first_ + ready_count_++) % MAX_THREADS] = number;
    }
}

uint64_t BlockRunner::warp(Thread *thread, const WarpRequest &request, Place place) {
    unsigned first = thread->linear / WARP_SIZE * WARP_SIZE, lane = thread->linear % WARP_SIZE;
    if (!(request.mask >> lane & 1))
        fail(LAUNCH_FAILED, where(thread) + " calls " + name_of(request.kind) + " (" + text(place) + ") with mask " +
                                hexadecimal(request.mask) + ", which does not name its own lane " + std::to_string(lane));
    thread->request = request;
    thread->place = place;
    thread->phase = Phase::AtWarp;
    if (complete_warp(first, request.mask)) {
        thread->phase = Phase::Running;
        return thread->result;
    }
    leave(thread->fiber);
    return thread->result;
}

bool BlockRunner::complete_warp(unsigned first, uint32_t mask) {
    unsigned lanes = count_ - first < WARP_SIZE ? count_ - first : WARP_SIZE;  // a block's last warp may be short
    uint32_t present = lanes == WARP_SIZE ? mask : mask & ((1u << lanes) - 1);
    const Thread *self = current_;
    Thread *threads = &threads_[first];
    for (uint32_t left = present; left; left &= left - 1) {
        const Thread &other = threads[__builtin_ctz(left)];
        if (other.phase == Phase::Done)
            fail(LAUNCH_FAILED, "mask " + hexadecimal(mask) + " of " + name_of(self->request.kind) + " (" + text(self->place) +
                                    ") names " + where(&other) + ", which has already exited");
        // A lane may first have to meet a smaller group of lanes; if it never comes out of it, the block gets stuck.
        if (other.phase != Phase::AtWarp || other.request.mask != mask) return false;
        if (other.request.kind != self->request.kind || !same(other.place, self->place))
            fail(LAUNCH_FAILED, where(self) + " is at " + name_of(self->request.kind) + " (" + text(self->place) + ") with mask " +
                                    hexadecimal(mask) + ", but " + where(&other) + " is at " +
                                    name_of(other.request.kind) + " (" + text(other.place) + ") with the same mask");
    }
    uint64_t combined = 0;
    uint32_t votes = 0;
    WarpKind kind = self->request.kind;
    for (uint32_t left = present; left; left &= left - 1) {
        unsigned lane = unsigned(__builtin_ctz(left));
        uint64_t value = threads[lane].request.value;
        if (value) votes |= 1u << lane;
        combined = left == present ? value : reduce(kind, combined, value);
    }
    for (uint32_t left = present; left; left &= left - 1) {
        unsigned lane = unsigned(__builtin_ctz(left));
        Thread &thread = threads[lane];
        switch (kind) {
        case WarpKind::Sync: break;
        case WarpKind::Ballot: thread.result = votes; break;
        case WarpKind::Any: thread.result = votes != 0; break;
        case WarpKind::All: thread.result = votes == present; break;
        case WarpKind::Shuffle: {
            int source = thread.request.source < 0 ? int(lane) : thread.request.source;
            if (source >= int(WARP_SIZE) || !(present >> source & 1))
                fail(LAUNCH_FAILED, where(&thread) + " reads lane " + std::to_string(source) + " in " + name_of(kind) + " (" +
                                        text(thread.place) + "), which takes no part in it (mask " + hexadecimal(present) + ")");
            thread.result = threads[source].request.value;
            break;
        }
        case WarpKind::MatchAny: {
            uint32_t equal = 0;
            for (uint32_t others = present; others; others &= others - 1)
                if (threads[__builtin_ctz(others)].request.value == thread.request.value) equal |= others & -others;
            thread.result = equal;
            break;
        }
        default: thread.result = combined;
        }
        if (&thread == self) continue;
        thread.phase = Phase::Ready;
        ready_[(ready_first_ + ready_count_++) % MAX_THREADS] = thread.linear;
    }
    return true;
}

uint32_t BlockRunner::active_mask(const Thread *thread) const {
    // CUDA promises no convergence, so a mask of this lane alone is always a right answer, and the most telling one.
    return 1u << thread->linear % WARP_SIZE;
}

void BlockRunner::report_stuck() {
    unsigned at_barrier = 0, at_warp = 0, exited = 0;
    const Thread *warp_example = nullptr;
    for (unsigned i = 0; i < count_; ++i) {
        const Thread &thread = threads_[i];
        at_barrier += thread.phase == Phase::AtBarrier;
        exited += thread.phase == Phase::Done;
        if (thread.phase != Phase::AtWarp) continue;
        ++at_warp;
        if (!warp_example) warp_example = &thread;
    }
    std::string what = "no thread of the block can go on: " + std::to_string(exited) + " of " + std::to_string(count_) + " have exited";
    if (at_barrier)
        what += ", " + std::to_string(at_barrier) + " wait at " + name_of(barrier_kind_) + " (" + text(barrier_place_) + ")";
    if (at_warp) {
        const Thread &waiting = *warp_example;
        uint32_t missing = 0;
        unsigned first = waiting.linear / WARP_SIZE * WARP_SIZE;
        for (unsigned lane = 0; lane < WARP_SIZE && first + lane < count_; ++lane)
            if (waiting.request.mask >> lane & 1 && (threads_[first + lane].phase != Phase::AtWarp ||
                                                     threads_[first + lane].request.mask != waiting.request.mask))
                missing |= 1u << lane;
        what += ", " + std::to_string(at_warp) + " wait in a warp operation; " + where(&waiting) + " is at " +
                name_of(waiting.request.kind) + " (" + text(waiting.place) + ") with mask " + hexadecimal(waiting.request.mask) +
                ", of which lanes " + hexadecimal(missing) + " never arrive";
    }
    fail(LAUNCH_FAILED, what);
}

namespace {

int kernel_barrier(ThreadState *thread, BarrierKind kind, int predicate, Place place) {
    return BlockRunner::running()->barrier(static_cast<Thread *>(thread), kind, predicate, place);
}
uint64_t kernel_warp(ThreadState *thread, const WarpRequest &request, Place place) {
    return BlockRunner::running()->warp(static_cast<Thread *>(thread), request, place);
}
uint32_t kernel_active_mask(ThreadState *thread) {
    return BlockRunner::running()->active_mask(static_cast<Thread *>(thread));
}
void kernel_trap(ThreadState *, const char *what, Place place) {
    bool asserted = strncmp(what, "assert", 6) == 0;
    BlockRunner::running()->fail(asserted ? ASSERT : LAUNCH_FAILED, std::string(what) + " (" + text(place) + ")");
}

}  // namespace

const Runtime *kernel_runtime() {
    static const Runtime runtime = {kernel_barrier, kernel_warp, kernel_active_mask, kernel_trap};
    return &runtime;
}

}  // namespace emulator
