// Atomic functions. Blocks of other streams run at the same time on other system threads, so these are real atomics.
#pragma once

namespace emulator {

/// Replaces the value at `address` by `change(value)` in one step and returns what was there.
template <class T, class Change>
static inline T exchange_with(T *address, Change change) {
    using Bits = typename std::conditional<sizeof(T) == 4, uint32_t, uint64_t>::type;
    Bits *bits = reinterpret_cast<Bits *>(address);
    Bits seen = __atomic_load_n(bits, __ATOMIC_RELAXED);
    for (;;) {
        T before;
        memcpy(&before, &seen, sizeof(T));
        T after = change(before);
        Bits wanted;
        memcpy(&wanted, &after, sizeof(T));
        if (__atomic_compare_exchange_n(bits, &seen, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) return before;
    }
}

}  // namespace emulator

#define EMULATOR_ATOMIC_INTEGER(T)                                                                                     \
    static inline T atomicAdd(T *a, T v) { return __atomic_fetch_add(a, v, __ATOMIC_SEQ_CST); }                        \
    static inline T atomicExch(T *a, T v) { return __atomic_exchange_n(a, v, __ATOMIC_SEQ_CST); }                      \
    static inline T atomicAnd(T *a, T v) { return __atomic_fetch_and(a, v, __ATOMIC_SEQ_CST); }                        \
    static inline T atomicOr(T *a, T v) { return __atomic_fetch_or(a, v, __ATOMIC_SEQ_CST); }                          \
    static inline T atomicXor(T *a, T v) { return __atomic_fetch_xor(a, v, __ATOMIC_SEQ_CST); }                        \
    static inline T atomicMin(T *a, T v) { return emulator::exchange_with(a, [v](T b) { return v < b ? v : b; }); }    \
    static inline T atomicMax(T *a, T v) { return emulator::exchange_with(a, [v](T b) { return v > b ? v : b; }); }    \
    static inline T atomicCAS(T *a, T compare, T v) {                                                                  \
        __atomic_compare_exchange_n(a, &compare, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                        \
        return compare;                                                                                                \
    }
EMULATOR_ATOMIC_INTEGER(int)
EMULATOR_ATOMIC_INTEGER(unsigned)
EMULATOR_ATOMIC_INTEGER(unsigned long long)

static inline int atomicSub(int *a, int v) { return __atomic_fetch_sub(a, v, __ATOMIC_SEQ_CST); }
static inline unsigned atomicSub(unsigned *a, unsigned v) { return __atomic_fetch_sub(a, v, __ATOMIC_SEQ_CST); }
static inline unsigned atomicInc(unsigned *a, unsigned limit) {
    return emulator::exchange_with(a, [limit](unsigned b) { return b >= limit ? 0u : b + 1u; });
}
static inline unsigned atomicDec(unsigned *a, unsigned limit) {
    return emulator::exchange_with(a, [limit](unsigned b) { return b == 0 || b > limit ? limit : b - 1u; });
}
static inline float atomicAdd(float *a, float v) { return emulator::exchange_with(a, [v](float b) { return b + v; }); }
static inline double atomicAdd(double *a, double v) { return emulator::exchange_with(a, [v](double b) { return b + v; }); }
static inline float atomicExch(float *a, float v) { return emulator::exchange_with(a, [v](float) { return v; }); }
static inline long long atomicMin(long long *a, long long v) { return emulator::exchange_with(a, [v](long long b) { return v < b ? v : b; }); }
static inline long long atomicMax(long long *a, long long v) { return emulator::exchange_with(a, [v](long long b) { return v > b ? v : b; }); }

#define EMULATOR_ATOMIC_SCOPED(NAME)                                                                           \
    template <class T, class V> static inline T NAME##_block(T *a, V v) { return NAME(a, T(v)); }              \
    template <class T, class V> static inline T NAME##_system(T *a, V v) { return NAME(a, T(v)); }
EMULATOR_ATOMIC_SCOPED(atomicAdd)
EMULATOR_ATOMIC_SCOPED(atomicMin)
EMULATOR_ATOMIC_SCOPED(atomicMax)
EMULATOR_ATOMIC_SCOPED(atomicOr)
EMULATOR_ATOMIC_SCOPED(atomicAnd)
