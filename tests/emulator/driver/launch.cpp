// Kernel launches: limits are checked and parameters copied when the launch is asked for; pointers are checked and the
// blocks run when its turn comes.
#include <cstring>
#include <sys/mman.h>

#include "driver.h"
#include "fibers.h"
#include "sanitizer.h"

namespace emulator {
namespace {

constexpr size_t MOST_SHARED = 227 * 1024;

struct Launch {
    std::shared_ptr<Function> function;
    std::shared_ptr<LoadedModule> module;
    Index3 grid, block;
    size_t dynamic_bytes;
    std::vector<char> values;    // the parameters, each at a multiple of 16
    std::vector<void *> pointers;  // to each of them
};

/// The dynamic shared memory of this system thread: it ends at an inaccessible page, so an overrun faults.
char *dynamic_shared(size_t bytes) {
    constexpr size_t reserved = 232 * 1024, guard = 4096;
    static thread_local char *end = nullptr;
    if (!end) {
        char *pages = static_cast<char *>(mmap(nullptr, reserved + guard, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        mprotect(pages + reserved, guard, PROT_NONE);
        end = pages + reserved;
    }
    return end - (bytes + 15) / 16 * 16;
}

/// Whether a word of a structure looks like a pointer to host memory: an address whose page is mapped. AddressSanitizer maps so
/// many pages that this check is disabled under it.
bool is_host_address(const void *value) {
    uintptr_t address = uintptr_t(value), page = 4096;
    unsigned char resident;
    return !sanitizing() && address >= (1 << 16) && address < (uintptr_t(1) << 47) &&
           mincore(reinterpret_cast<void *>(address / page * page), 1, &resident) == 0;
}

/// Checks all pointers among a launch's parameters; reports each that is not a live allocation of the device.
bool points_well(const Launch &launch, Context *context, const char *name) {
    const Kernel &kernel = *launch.function->kernel;
    Memory &memory = context->device->memory;
    bool good = true;
    for (uint32_t i = 0; i < kernel.parameter_count; ++i) {
        // A structure passed by value may hold pointers too. The types of its fields are unknown: a word that is an address of
        // the device or of the host's memory is taken for one.
        for (uint32_t at = 0; at + 8 <= kernel.parameters[i].size; at += 8) {
            const void *value;
            memcpy(&value, static_cast<char *>(launch.pointers[i]) + at, 8);
            bool pointer = kernel.parameters[i].is_pointer;
            if (!value || (!pointer && !memory.in_range(value) && !is_host_address(value))) continue;
            if (memory.holds(value, 0) || driver().host.holds(value, 0)) continue;
            std::string where = memory.in_range(value) ? memory.describe(value) : "no device memory";
            for (auto &other : driver().devices)
                if (other->memory.in_range(value) && other.get() != context->device)
                    where = "memory of device " + std::to_string(other->physical);
            report("kernel %s: parameter %u is the pointer %p: %s", name, i, value, where.c_str());
            good = false;
        }
    }
    return good;
}

Result run_launch(const Launch &launch, Context *context) {
    const Kernel &kernel = *launch.function->kernel;
    if (driver().modules.find(launch.module.get()) == nullptr) {
        report("kernel %s: its module has been unloaded", kernel.name);
        return LAUNCH_FAILED;
    }
    if (fails_now("launch", kernel.name)) return LAUNCH_FAILED;
    if (!points_well(launch, context, kernel.name)) return ILLEGAL_ADDRESS;

    BlockRunner &runner = BlockRunner::of_this_thread();
    char *dynamic = dynamic_shared(launch.dynamic_bytes);
    runner.prepare(kernel, *launch.module->description, const_cast<void **>(launch.pointers.data()), launch.grid, launch.block, dynamic);
    char *anchor = static_cast<char *>(launch.module->description->shared_anchor());
    unsigned blocks = launch.grid.x * launch.grid.y * launch.grid.z;
    static std::atomic<uint64_t> launches{0};
    static thread_local std::vector<unsigned> order;
    bool straight = execution_order() == Order::Forward;
    if (!straight) arrange(order, blocks, ++launches);
    Result result = SUCCESS;
    for (unsigned i = 0; i < blocks && result == SUCCESS; ++i) {
        unsigned number = straight ? i : order[i];
        for (const SharedSpan &span : launch.function->shared) poison(anchor + span.offset, span.bytes);
        poison(dynamic, launch.dynamic_bytes);
        Index3 index = {number % launch.grid.x, number / launch.grid.x % launch.grid.y, number / launch.grid.x / launch.grid.y};
        result = runner.run(index);
        if (result != SUCCESS)
            report("kernel %s, block (%u, %u, %u): %s", kernel.name, index.x, index.y, index.z, runner.failure().c_str());
    }
    for (uint32_t i = 0; i < kernel.parameter_count; ++i)
        for (uint32_t at = 0; at + 8 <= kernel.parameters[i].size; at += 8) {
            const void *value;
            memcpy(&value, static_cast<char *>(launch.pointers[i]) + at, 8);
            if (context->device->memory.in_range(value) && !context->device->memory.intact(value, (std::string("by kernel ") + kernel.name).c_str()))
                result = ILLEGAL_ADDRESS;
        }
    return result;
}

bool within_limits(const Function &function, Index3 grid, Index3 block, size_t dynamic) {
    const char *name = function.kernel->name;
    uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
        report("launch of %s: a grid of (%u, %u, %u) blocks is out of range", name, grid.x, grid.y, grid.z);
        return false;
    }
    uint64_t most = function.kernel->max_threads ? function.kernel->max_threads : 1024;
    if (!threads || threads > most || block.z > 64 || block.x > 1024 || block.y > 1024) {
        report("launch of %s: a block of (%u, %u, %u) threads is out of range (at most %llu threads)", name, block.x, block.y, block.z,
            (unsigned long long)most);
        return false;
    }
    if (dynamic > size_t(function.max_dynamic_shared) || dynamic + function.static_shared > MOST_SHARED || function.static_shared > 48 * 1024 ||
        (function.max_dynamic_shared == 48 * 1024 && dynamic + function.static_shared > 48 * 1024)) {
        report("launch of %s: %zu bytes of static and %zu of dynamic shared memory are more than allowed (dynamic at most %d; ask for more "
            "with cuFuncSetAttribute)", name, function.static_shared, dynamic, function.max_dynamic_shared);
        return false;
    }
    return true;
}

Result launch(void *handle, Index3 grid, Index3 block, unsigned dynamic, void *stream_handle, void **parameters) {
    if (Result error = usable()) return error;
    auto function = driver().functions.find(handle);
    auto stream = stream_of(stream_handle);
    if (!function || !stream) return INVALID_HANDLE;
    if (!within_limits(*function, grid, block, dynamic)) return INVALID_VALUE;
    const Kernel &kernel = *function->kernel;
    if (kernel.parameter_count > 0 && !parameters) return INVALID_VALUE;
    auto copy = std::make_shared<Launch>();
    copy->function = function;
    copy->module = driver().modules.find(function->module);
    if (!copy->module) return INVALID_HANDLE;
    copy->grid = grid, copy->block = block, copy->dynamic_bytes = dynamic;
    size_t bytes = 0;
    for (uint32_t i = 0; i < kernel.parameter_count; ++i) bytes += (kernel.parameters[i].size + 15) / 16 * 16;
    copy->values.resize(bytes);
    char *at = copy->values.data();
    for (uint32_t i = 0; i < kernel.parameter_count; ++i) {
        if (!parameters[i]) return INVALID_VALUE;
        memcpy(at, parameters[i], kernel.parameters[i].size);
        copy->pointers.push_back(at);
        at += (kernel.parameters[i].size + 15) / 16 * 16;
    }
    Context *context = current_context;
    return stream->submit(kernel.name, [copy, context] { return run_launch(*copy, context); });
}

}  // namespace
}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT Result cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                                      unsigned block_y, unsigned block_z, unsigned dynamic, void *stream, void **parameters,
                                      void **extra) {
    if (extra) return NOT_SUPPORTED;
    return launch(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic, stream, parameters);
}

// Blocks run one after another here, so a kernel that waits for other blocks of its grid cannot work.
EMULATOR_EXPORT Result cuLaunchCooperativeKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                                                 void **) {
    return NOT_SUPPORTED;
}
