// The fiber switch in assembly for x86-64 (no system call, unlike swapcontext), and through ucontext elsewhere.
#include "switch.h"

#include <cstdint>

#if defined(__x86_64__)

extern "C" {
void emulator_switch_stacks(void **save, void *load) __attribute__((visibility("hidden")));
void emulator_start_fiber() __attribute__((visibility("hidden")));
void emulator_call_with_thread(void (*invoke)(void **), void **parameters, void *thread) __attribute__((visibility("hidden")));
}

// The six registers a callee must preserve go onto the old stack; its pointer is the whole saved state. Kernels change
// neither the rounding mode nor the x87 control word, so those are left alone.
asm(R"(
    .text
    .p2align 4
    .globl emulator_switch_stacks
    .hidden emulator_switch_stacks
    .type emulator_switch_stacks, @function
emulator_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_switch_stacks, . - emulator_switch_stacks

    .globl emulator_start_fiber
    .hidden emulator_start_fiber
    .type emulator_start_fiber, @function
emulator_start_fiber:
    movq %r13, %rdi
    xorl %ebp, %ebp
    call *%r12
    ud2
    .size emulator_start_fiber, . - emulator_start_fiber

    .globl emulator_call_with_thread
    .hidden emulator_call_with_thread
    .type emulator_call_with_thread, @function
emulator_call_with_thread:
    pushq %r15
    movq %rdx, %r15
    movq %rdi, %rax
    movq %rsi, %rdi
    call *%rax
    popq %r15
    ret
    .size emulator_call_with_thread, . - emulator_call_with_thread
)");

namespace emulator {

void switch_fiber(SwitchPoint &from, SwitchPoint &to) { emulator_switch_stacks(&from.stack_pointer, to.stack_pointer); }

void prepare_fiber(SwitchPoint &point, char *stack, size_t bytes, void (*entry)(void *), void *argument) {
    void **top = reinterpret_cast<void **>((uintptr_t(stack) + bytes) & ~uintptr_t(15));
    *--top = reinterpret_cast<void *>(&emulator_start_fiber);
    *--top = nullptr;                            // rbp
    *--top = nullptr;                            // rbx
    *--top = reinterpret_cast<void *>(entry);    // r12
    *--top = argument;                           // r13
    *--top = nullptr;                            // r14
    *--top = nullptr;                            // r15
    point.stack_pointer = top;
}

void call_kernel(void (*invoke)(void **), void **parameters, ThreadState *thread) {
    emulator_call_with_thread(invoke, parameters, thread);
}

}  // namespace emulator

#else

namespace emulator {
namespace {
void enter(unsigned entry_high, unsigned entry_low, unsigned argument_high, unsigned argument_low) {
    uintptr_t entry = uintptr_t(uint64_t(entry_high) << 32 | entry_low);
    uintptr_t argument = uintptr_t(uint64_t(argument_high) << 32 | argument_low);
    reinterpret_cast<void (*)(void *)>(entry)(reinterpret_cast<void *>(argument));
}
}  // namespace

void switch_fiber(SwitchPoint &from, SwitchPoint &to) { swapcontext(&from.context, &to.context); }

void prepare_fiber(SwitchPoint &point, char *stack, size_t bytes, void (*entry)(void *), void *argument) {
    getcontext(&point.context);
    point.context.uc_stack.ss_sp = stack;
    point.context.uc_stack.ss_size = bytes;
    point.context.uc_link = nullptr;
    uint64_t e = reinterpret_cast<uintptr_t>(entry), a = reinterpret_cast<uintptr_t>(argument);
    makecontext(&point.context, reinterpret_cast<void (*)()>(enter), 4, unsigned(e >> 32), unsigned(e), unsigned(a >> 32), unsigned(a));
}

void call_kernel(void (*invoke)(void **), void **parameters, ThreadState *) { invoke(parameters); }

}  // namespace emulator

#endif
