// Interface of a compiled kernel module and the emulated driver. A module is a shared object; the driver opens
// it, asks for `emulator_module` and hands it a table of functions. Both sides include this file, nothing else is shared.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace emulator {

constexpr uint32_t MODULE_VERSION = 4;
constexpr unsigned WARP_SIZE = 32;

struct Index3 {
    unsigned x, y, z;
};

/// State shared by all threads of a running block.
struct BlockState {
    Index3 block;
    Index3 block_size;
    Index3 grid_size;
    void *dynamic_shared;
};

/// State of one CUDA thread. The driver's own bookkeeping follows it in memory.
struct ThreadState {
    Index3 thread;
    unsigned linear;
    BlockState *block;
};

enum class BarrierKind : int { Plain, Or, And, Count };
enum class WarpKind : int { Sync, Shuffle, Ballot, Any, All, ReduceAdd, ReduceMin, ReduceMax, ReduceAnd, ReduceOr, ReduceXor,
                            ReduceMinSigned, ReduceMaxSigned, MatchAny };

/// Where in the source a barrier or a warp operation stands; two threads meet only at the same place.
struct Place {
    const char *file;
    int line;
};

/// A warp operation of one lane.
struct WarpRequest {
    WarpKind kind;
    uint32_t mask;
    uint64_t value;
    int source;  // for a shuffle: the lane it reads; -1: its own value, as CUDA does past a segment's end
};

/// Functions of the driver for kernels.
struct Runtime {
    int (*barrier)(ThreadState *, BarrierKind, int predicate, Place);
    uint64_t (*warp)(ThreadState *, const WarpRequest &, Place);
    uint32_t (*active_mask)(ThreadState *);
    void (*trap)(ThreadState *, const char *what, Place);
};

struct Parameter {
    uint32_t size;
    uint32_t is_pointer;
};

struct Kernel {
    const char *name;
    void (*invoke)(void **parameters);
    uint32_t parameter_count;
    const Parameter *parameters;
    uint32_t max_threads;  // of __launch_bounds__; 0: not given
};

/// The one symbol a module exports for the driver: `emulator_module`.
struct Module {
    uint32_t version;
    uint32_t kernel_count;
    const Kernel *kernels;
    void (*attach)(const Runtime *);
    void *(*shared_anchor)();                  // the calling system thread's copy of `emulator_shared_anchor`
    void (*set_thread)(ThreadState *);         // used where no register can be kept for the thread
};

}  // namespace emulator
