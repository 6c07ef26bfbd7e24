// Ends of a process: a fault inside a kernel is reported with its thread and the nearest allocation; at exit what the
// program has not given back is reported.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <signal.h>
#include <unistd.h>

#include "driver.h"
#include "fibers.h"
#include "sanitizer.h"

namespace emulator {
namespace {

constexpr int EXIT_FAULT = 85;
constexpr int EXIT_LEAK = 86;
struct sigaction before_segv, before_bus;

/// "kernel NAME, block (x, y, z), thread (x, y, z)", or nothing outside kernels.
bool name_current_thread(char *text, size_t bytes) {
    BlockRunner *runner = BlockRunner::running();
    if (!runner || !runner->current()) return false;
    Index3 block = runner->block(), thread = runner->current()->thread;
    snprintf(text, bytes, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u)", runner->kernel()->name, block.x, block.y, block.z,
             thread.x, thread.y, thread.z);
    return true;
}

void on_fault(int signal, siginfo_t *information, void *machine) {
    char who[300];
    const char *address = static_cast<const char *>(information->si_addr);
    if (name_current_thread(who, sizeof who)) {
        const Fiber *fiber = BlockRunner::running()->current()->fiber;
        const char *what = "outside device memory";
        std::string description;
        if (fiber && address >= fiber->stack - STACK_GUARD_BYTES && address < fiber->stack) {
            what = "the thread's stack is full";
        } else {
            for (auto &device : driver().devices)
                if (device->memory.in_range(address)) {
                    description = "device " + std::to_string(device->physical) + ", " + device->memory.describe(address);
                    what = description.c_str();
                }
        }
        report("%s: invalid access at %p: %s", who, (const void *)address, what);
        _exit(EXIT_FAULT);
    }
    for (auto &device : driver().devices)
        if (device->memory.in_range(address))
            report("host code: invalid access at %p: device memory, %s", (const void *)address, device->memory.describe(address).c_str());
    // Not a kernel's fault: the previous handler takes it.
    struct sigaction &before = signal == SIGSEGV ? before_segv : before_bus;
    if (before.sa_flags & SA_SIGINFO && before.sa_sigaction) return before.sa_sigaction(signal, information, machine);
    if (!(before.sa_flags & SA_SIGINFO) && before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return before.sa_handler(signal);
    sigaction(signal, &before, nullptr);  // the access is repeated and then ends the process
}

#if defined(__SANITIZE_ADDRESS__)
void on_sanitizer_report(const char *) {
    char who[300];
    if (name_current_thread(who, sizeof who)) report("%s: the error above is its", who);
}
#endif

void report_leaks() {
    Driver &all = driver();
    if (!initialised() || all.process != int(getpid())) return;
    // After a failed kernel nothing could be given back properly.
    for (auto &context : all.contexts)
        if (context->error != SUCCESS) return;
    std::string text;
    auto add = [&text](size_t count, const char *what) {
        if (count > 0) text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + what;
    };
    size_t allocations = 0, bytes = 0;
    for (auto &device : all.devices) allocations += device->memory.live_count(), bytes += device->memory.live_bytes();
    add(allocations, "device allocations");
    if (bytes > 0) text += " (" + std::to_string(bytes) + " bytes)";
    add(all.host.allocated_count(), "pinned host allocations");
    add(all.host.registered_count(), "registered host ranges");
    add(all.streams.count(), "streams");
    add(all.events.count(), "events");
    add(all.graphs.count(), "graphs");
    add(all.executions.count(), "executable graphs");
    add(all.modules.count(), "modules");
    for (auto &counter : all.counters) add(size_t(counter.second > 0 ? counter.second : 0), counter.first.c_str());
    if (text.empty()) return;
    report("leaked %s", text.c_str());
    if (environment_number("CRYOSPLAT_EMULATOR_STRICT", 0) == 1) {
        fflush(nullptr);
        _exit(EXIT_LEAK);
    }
}

// Runs when the libraries are closed, after the program's own exit handlers.
__attribute__((destructor)) void at_end() { report_leaks(); }

}  // namespace

void install_fault_handler() {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before_segv);
    sigaction(SIGBUS, &action, &before_bus);
#if defined(__SANITIZE_ADDRESS__)
    __asan_set_error_report_callback(on_sanitizer_report);
#endif
}


}  // namespace emulator
