// The switch from one fiber to another: save the registers that a called function must keep, change stacks, restore.
#pragma once
#include <cstddef>

#include "../kernel/module_interface.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

#if defined(__x86_64__)
struct SwitchPoint {
    void *stack_pointer;
};
#else
struct SwitchPoint {
    ucontext_t context;
};
#endif

/// Switches from fiber `from` to fiber `to`.
void switch_fiber(SwitchPoint &from, SwitchPoint &to);
/// Makes `point` one which enters `entry(argument)` on the given stack; `entry` never returns.
void prepare_fiber(SwitchPoint &point, char *stack, size_t bytes, void (*entry)(void *), void *argument);
/// Calls `invoke(parameters)` with the register in which kernels look for their thread set to `thread`.
void call_kernel(void (*invoke)(void **), void **parameters, ThreadState *thread);

}  // namespace emulator
