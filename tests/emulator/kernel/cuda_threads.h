// Barriers and warp operations. Each is a call into the driver, which switches to another fiber until all threads
// concerned have come. The default arguments name the caller's line: a barrier is met at one line by all threads.
#pragma once

#define EMULATOR_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline int emulator_barrier(emulator::BarrierKind kind, int predicate, const char *file, int line) {
    int result = emulator_runtime->barrier(emulator_thread, kind, predicate, emulator::Place{file, line});
    __asm__ __volatile__("" ::: "memory");  // shared and global memory have changed
    return result;
}
static inline void __syncthreads(EMULATOR_PLACE) { emulator_barrier(emulator::BarrierKind::Plain, 0, file, line); }
static inline int __syncthreads_or(int p, EMULATOR_PLACE) { return emulator_barrier(emulator::BarrierKind::Or, p, file, line); }
static inline int __syncthreads_and(int p, EMULATOR_PLACE) { return emulator_barrier(emulator::BarrierKind::And, p, file, line); }
static inline int __syncthreads_count(int p, EMULATOR_PLACE) { return emulator_barrier(emulator::BarrierKind::Count, p, file, line); }

static inline uint64_t emulator_warp(emulator::WarpKind kind, unsigned mask, uint64_t value, int source, const char *file,
                                     int line) {
    uint64_t result =
        emulator_runtime->warp(emulator_thread, emulator::WarpRequest{kind, mask, value, source}, emulator::Place{file, line});
    __asm__ __volatile__("" ::: "memory");
    return result;
}
static inline int emulator_lane() { return int(emulator_thread->linear % emulator::WARP_SIZE); }

static inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_PLACE) {
    emulator_warp(emulator::WarpKind::Sync, mask, 0, 0, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int p, EMULATOR_PLACE) {
    return unsigned(emulator_warp(emulator::WarpKind::Ballot, mask, p != 0, 0, file, line));
}
static inline int __any_sync(unsigned mask, int p, EMULATOR_PLACE) {
    return int(emulator_warp(emulator::WarpKind::Any, mask, p != 0, 0, file, line));
}
static inline int __all_sync(unsigned mask, int p, EMULATOR_PLACE) {
    return int(emulator_warp(emulator::WarpKind::All, mask, p != 0, 0, file, line));
}
static inline unsigned __activemask() { return emulator_runtime->active_mask(emulator_thread); }

template <class T>
static inline T emulator_shuffle(unsigned mask, T value, int source, const char *file, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = emulator_warp(emulator::WarpKind::Shuffle, mask, bits, source, file, line);
    memcpy(&value, &bits, sizeof(T));
    return value;
}
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_PLACE) {
    int first = emulator_lane() & ~(width - 1);
    return emulator_shuffle(mask, value, first + (source & (width - 1)), file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_PLACE) {
    int lane = emulator_lane(), source = lane - int(delta);
    return emulator_shuffle(mask, value, source < (lane & ~(width - 1)) ? -1 : source, file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_PLACE) {
    int lane = emulator_lane(), source = lane + int(delta);
    return emulator_shuffle(mask, value, source > (lane | (width - 1)) ? -1 : source, file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMULATOR_PLACE) {
    int lane = emulator_lane(), source = lane ^ lanes;
    return emulator_shuffle(mask, value, source > (lane | (width - 1)) ? -1 : source, file, line);
}

#define EMULATOR_REDUCE(NAME, UNSIGNED_KIND, SIGNED_KIND)                                                        \
    static inline unsigned NAME(unsigned mask, unsigned value, EMULATOR_PLACE) {                                 \
        return unsigned(emulator_warp(emulator::WarpKind::UNSIGNED_KIND, mask, value, 0, file, line));           \
    }                                                                                                            \
    static inline int NAME(unsigned mask, int value, EMULATOR_PLACE) {                                           \
        return int(emulator_warp(emulator::WarpKind::SIGNED_KIND, mask, unsigned(value), 0, file, line));        \
    }
EMULATOR_REDUCE(__reduce_add_sync, ReduceAdd, ReduceAdd)
EMULATOR_REDUCE(__reduce_min_sync, ReduceMin, ReduceMinSigned)
EMULATOR_REDUCE(__reduce_max_sync, ReduceMax, ReduceMaxSigned)
EMULATOR_REDUCE(__reduce_and_sync, ReduceAnd, ReduceAnd)
EMULATOR_REDUCE(__reduce_or_sync, ReduceOr, ReduceOr)
EMULATOR_REDUCE(__reduce_xor_sync, ReduceXor, ReduceXor)

template <class T>
static inline unsigned __match_any_sync(unsigned mask, T value, EMULATOR_PLACE) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    return unsigned(emulator_warp(emulator::WarpKind::MatchAny, mask, bits, 0, file, line));
}

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __nanosleep(unsigned) {}
static inline void __trap(EMULATOR_PLACE) {
    emulator_runtime->trap(emulator_thread, "__trap()", emulator::Place{file, line});
    __builtin_unreachable();
}
static inline void emulator_assert_failed(const char *what, const char *file, int line) {
    emulator_runtime->trap(emulator_thread, what, emulator::Place{file, line});
}
#undef assert
#define assert(CONDITION) ((CONDITION) ? (void)0 : emulator_assert_failed("assertion failed: " #CONDITION, __FILE__, __LINE__))
