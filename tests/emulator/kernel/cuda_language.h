// The CUDA language as far as the kernels use it, for a host compiler: forced in front of every kernel source by the
// emulated NVRTC. A CUDA thread is a fiber of the driver; its state is reached through `emulator_thread`.
#pragma once
#include <assert.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <type_traits>
#include <utility>

#include "module_interface.h"

#if defined(__x86_64__)
// A callee-saved register set aside for the whole module (-ffixed-r15): reading threadIdx costs one load, and the fiber
// switch keeps it right without any work.
register emulator::ThreadState *emulator_thread asm("r15");
#else
static thread_local emulator::ThreadState *emulator_thread;
#endif
// A module is one translation unit, so what it holds of the driver is defined here.
static const emulator::Runtime *emulator_runtime = nullptr;

// The attributes survive preprocessing, so that the emulated NVRTC finds kernels and shared variables whatever macro
// wrote them; g++ itself ignores them.
#define __global__ __attribute__((emulator_kernel))
#define __launch_bounds__(...) __attribute__((emulator_launch_bounds(__VA_ARGS__)))
#define __shared__ __attribute__((emulator_shared)) thread_local
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define CRYOSPLAT_EMULATOR 1

#define threadIdx (emulator_thread->thread)
#define blockIdx (emulator_thread->block->block)
#define blockDim (emulator_thread->block->block_size)
#define gridDim (emulator_thread->block->grid_size)
constexpr int warpSize = 32;

#include "cuda_vectors.h"
#include "cuda_threads.h"
#include "cuda_atomics.h"
#include "cuda_math.h"

thread_local char emulator_shared_anchor = 0;

namespace emulator {

/// A dynamic shared array declared outside any function.
template <class T>
struct DynamicShared {
    operator T *() const { return static_cast<T *>(emulator_thread->block->dynamic_shared); }
    template <class U>
    explicit operator U *() const { return static_cast<U *>(emulator_thread->block->dynamic_shared); }
};

template <class... P>
struct Entry {
    static constexpr uint32_t count = sizeof...(P);
    static constexpr Parameter parameters[sizeof...(P) + 1] = {
        {sizeof(P), std::is_pointer<typename std::remove_cv<P>::type>::value}..., {0, 0}};

    template <void (*kernel)(P...), int... I>
    static void call(void **values, std::integer_sequence<int, I...>) {
        kernel(*static_cast<typename std::remove_cv<P>::type *>(values[I])...);
    }
    template <void (*kernel)(P...)>
    static void invoke(void **values) {
        call<kernel>(values, std::make_integer_sequence<int, sizeof...(P)>());
    }
};

/// Reads a kernel's parameters off its type.
template <class... P>
Entry<P...> entry_of(void (*)(P...));

/// The driver's description of a kernel; the emulated NVRTC appends one such entry for each kernel it finds.
template <auto kernel>
constexpr Kernel describe(const char *name, uint32_t max_threads) {
    using Found = decltype(entry_of(kernel));
    return Kernel{name, &Found::template invoke<kernel>, Found::count, Found::parameters, max_threads};
}

static void attach(const Runtime *runtime) { emulator_runtime = runtime; }

/// Shared variables are thread_local, so each system thread that runs blocks has its own. The driver finds them all, to
/// poison them, from the address of this one.
static void *shared_anchor() {
    return &::emulator_shared_anchor;
}
static void set_thread([[maybe_unused]] ThreadState *thread) {
#if !defined(__x86_64__)
    emulator_thread = thread;
#endif
}

}  // namespace emulator
