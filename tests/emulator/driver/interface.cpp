// What the emulated cuFFT and NCCL call in the driver: see DriverInterface.
#include "driver.h"

namespace emulator {
namespace {

Result enqueue(void *handle, const char *label, Result (*body)(void *), void *payload, void (*release)(void *)) {
    std::shared_ptr<void> owned(payload, release);
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    return stream->submit(label, [owned, body] { return body(owned.get()); });
}

Result check_range(const void *pointer, size_t bytes, const char *what) {
    Context *context = current_context;
    if (!context) return INVALID_CONTEXT;
    Memory &memory = context->device->memory;
    if (bytes == 0 || memory.holds(pointer, bytes)) return SUCCESS;
    report("%s of %zu bytes at %p on device %d: %s", what, bytes, pointer, context->device->physical,
        memory.in_range(pointer) ? memory.describe(pointer).c_str() : "no device memory");
    return ILLEGAL_ADDRESS;
}

void count(const char *kind, int change) {
    Driver &all = driver();
    std::lock_guard<std::mutex> lock(all.counters_mutex);
    for (auto &counter : all.counters)
        if (counter.first == kind) {
            counter.second += change;
            return;
        }
    all.counters.push_back({kind, change});
}

Result current_device(int *device, Uuid *uuid) {
    if (!current_context) return INVALID_CONTEXT;
    *device = current_context->device->ordinal;
    *uuid = current_context->device->uuid();
    return SUCCESS;
}

Result allocate(DevicePointer *pointer, size_t bytes) {
    if (Result error = usable()) return error;
    if (Result error = forbidden_in_capture()) return error;
    return current_context->device->memory.allocate(bytes, pointer);
}

Result release(DevicePointer pointer) {
    if (!current_context) return INVALID_CONTEXT;
    current_context->wait_for_all();
    return current_context->device->memory.release(pointer);
}

}  // namespace
}  // namespace emulator

EMULATOR_EXPORT const DriverInterface *emulator_driver_interface() {
    using namespace emulator;
    static const DriverInterface interface = {enqueue, check_range, count, current_device, allocate, release};
    return &interface;
}
