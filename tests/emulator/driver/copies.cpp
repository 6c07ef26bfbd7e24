// Allocation, copies and fills as the program calls them. A copy checks its ranges when it is enqueued and once more
// when it runs, and it moves the bytes only then.
#include <cstring>

#include "driver.h"

namespace emulator {
namespace {

void *address(DevicePointer pointer) { return reinterpret_cast<void *>(uintptr_t(pointer)); }

/// The device side of a copy must lie in one live allocation, or in pinned host memory (which a device may address).
Result check(Context *context, DevicePointer pointer, size_t bytes, const char *what) {
    Memory &memory = context->device->memory;
    if (bytes == 0 || memory.holds(address(pointer), bytes) || driver().host.holds(address(pointer), bytes)) return SUCCESS;
    report("%s of %zu bytes at 0x%llx on device %d: %s", what, bytes, pointer, context->device->physical,
        memory.in_range(address(pointer)) ? memory.describe(address(pointer)).c_str() : "no device memory");
    return INVALID_VALUE;
}

/// The host side must not be device memory: on a real machine the processor could not touch it.
Result check_host(Context *, const void *pointer, size_t bytes, const char *what) {
    for (auto &device : driver().devices)
        if (bytes > 0 && device->memory.in_range(pointer)) {
            report("%s: host address %p is device memory", what, pointer);
            return INVALID_VALUE;
        }
    return pointer || bytes == 0 ? SUCCESS : INVALID_VALUE;
}

enum class Side { ToDevice, ToHost, OnDevice };

Result copy(const char *what, Side side, void *to, const void *from, size_t bytes, void *handle, bool wait) {
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (wait)
        if (Result error = forbidden_in_capture()) return error;
    if (fails_now("memcpy")) return LAUNCH_FAILED;
    Context *context = current_context;
    auto ranges = [=] {
        Result result = SUCCESS;
        DevicePointer device_to = DevicePointer(uintptr_t(to)), device_from = DevicePointer(uintptr_t(from));
        result = side == Side::ToHost ? check_host(context, to, bytes, what) : check(context, device_to, bytes, what);
        if (result == SUCCESS)
            result = side == Side::ToDevice ? check_host(context, from, bytes, what) : check(context, device_from, bytes, what);
        return result;
    };
    if (Result error = ranges()) return error;
    bool capturing;
    {
        std::lock_guard<std::mutex> lock(driver().captures_mutex);
        capturing = stream->capture != nullptr;
    }
    // Pageable memory is staged by the real driver: a copy from it has read it, a copy to it has ended, when the call returns.
    bool pageable = side != Side::OnDevice && !driver().host.holds(side == Side::ToDevice ? from : to, bytes);
    std::shared_ptr<std::vector<char>> staged;
    if (side == Side::ToDevice && pageable && !capturing && !wait) {
        const char *bytes_from = static_cast<const char *>(from);
        staged = std::make_shared<std::vector<char>>(bytes_from, bytes_from + bytes);
        from = staged->data();
    }
    Result result = stream->submit(what, [=] {
        DevicePointer device_to = DevicePointer(uintptr_t(to)), device_from = DevicePointer(uintptr_t(from));
        if (side != Side::ToHost && check(context, device_to, bytes, what)) return ILLEGAL_ADDRESS;
        if (side != Side::ToDevice && check(context, device_from, bytes, what)) return ILLEGAL_ADDRESS;
        (void)staged;
        memmove(to, from, bytes);
        return SUCCESS;
    });
    if (result == SUCCESS && !capturing && (wait || (side == Side::ToHost && pageable))) {
        stream->wait_idle();
        return Result(context->error.load());
    }
    return result;
}

Result fill(const char *what, DevicePointer to, uint32_t value, size_t width, size_t count, void *handle, bool wait) {
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (wait)
        if (Result error = forbidden_in_capture()) return error;
    if (fails_now("memset")) return LAUNCH_FAILED;
    if (to % width != 0) return INVALID_VALUE;
    Context *context = current_context;
    if (Result error = check(context, to, width * count, what)) return error;
    Result result = stream->submit(what, [=] {
        if (check(context, to, width * count, what)) return ILLEGAL_ADDRESS;
        char *at = static_cast<char *>(address(to));
        if (width == 1) memset(at, int(value), count);
        else
            for (size_t i = 0; i < count; ++i) memcpy(at + i * width, &value, width);
        return SUCCESS;
    });
    if (result == SUCCESS && wait) {
        stream->wait_idle();
        return Result(context->error.load());
    }
    return result;
}

}  // namespace
}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT Result cuMemAlloc_v2(DevicePointer *pointer, size_t bytes) {
    if (Result error = usable()) return error;
    if (Result error = forbidden_in_capture()) return error;
    if (bytes == 0 || !pointer) return INVALID_VALUE;
    if (fails_now("alloc")) return OUT_OF_MEMORY;
    return current_context->device->memory.allocate(bytes, pointer);
}

EMULATOR_EXPORT Result cuMemFree_v2(DevicePointer pointer) {
    if (!initialised()) return NOT_INITIALIZED;
    if (!current_context) return INVALID_CONTEXT;
    if (Result error = forbidden_in_capture()) return error;
    current_context->wait_for_all();  // as the real one does
    Result result = current_context->device->memory.release(pointer);
    if (result == ILLEGAL_ADDRESS) current_context->break_with(result, "memory around an allocation was overwritten");
    if (int error = current_context->error) return Result(error);
    return result;
}

// Offered although no memory pools are reported: these allocate at once, and free in the stream's order.
EMULATOR_EXPORT Result cuMemAllocAsync(DevicePointer *pointer, size_t bytes, void *) { return cuMemAlloc_v2(pointer, bytes); }
EMULATOR_EXPORT Result cuMemFreeAsync(DevicePointer pointer, void *handle) {
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    Context *context = current_context;
    return stream->submit("free", [context, pointer] { return context->device->memory.release(pointer); });
}

EMULATOR_EXPORT Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    if (Result error = usable()) return error;
    *free_bytes = current_context->device->memory.free_bytes();
    *total = current_context->device->memory.total();
    return SUCCESS;
}

EMULATOR_EXPORT Result cuMemGetAddressRange_v2(DevicePointer *base, size_t *bytes, DevicePointer pointer) {
    if (Result error = usable()) return error;
    Allocation allocation;
    if (!current_context->device->memory.find(address(pointer), &allocation)) return NOT_FOUND;
    if (base) *base = DevicePointer(uintptr_t(allocation.base));
    if (bytes) *bytes = allocation.bytes;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    if (Result error = usable()) return error;
    if (Result error = forbidden_in_capture()) return error;
    if (fails_now("pinned")) return OUT_OF_MEMORY;
    return driver().host.allocate(bytes, flags, pointer);
}

EMULATOR_EXPORT Result cuMemFreeHost(void *pointer) {
    if (!initialised()) return NOT_INITIALIZED;
    if (!current_context) return INVALID_CONTEXT;
    current_context->wait_for_all();
    Result result = driver().host.release(pointer);
    if (int error = current_context->error) return Result(error);
    return result;
}

EMULATOR_EXPORT Result cuMemHostRegister_v2(void *pointer, size_t bytes, unsigned) {
    if (Result error = usable()) return error;
    if (fails_now("pinned")) return OUT_OF_MEMORY;
    return driver().host.add(pointer, bytes);
}

EMULATOR_EXPORT Result cuMemHostUnregister(void *pointer) {
    if (!initialised()) return NOT_INITIALIZED;
    if (!current_context) return INVALID_CONTEXT;
    current_context->wait_for_all();
    Result result = driver().host.remove(pointer);
    if (int error = current_context->error) return Result(error);
    return result;
}

EMULATOR_EXPORT Result cuMemHostGetDevicePointer_v2(DevicePointer *result, void *pointer, unsigned) {
    if (Result error = usable()) return error;
    if (!driver().host.holds(pointer, 1)) return INVALID_VALUE;
    *result = DevicePointer(uintptr_t(pointer));
    return SUCCESS;
}

EMULATOR_EXPORT Result cuMemHostGetFlags(unsigned *flags, void *pointer) {
    return driver().host.flags(pointer, flags) ? usable() : INVALID_VALUE;
}

EMULATOR_EXPORT Result cuMemcpyHtoD_v2(DevicePointer to, const void *from, size_t bytes) {
    return copy("cuMemcpyHtoD", Side::ToDevice, address(to), from, bytes, nullptr, true);
}
EMULATOR_EXPORT Result cuMemcpyHtoDAsync_v2(DevicePointer to, const void *from, size_t bytes, void *stream) {
    return copy("cuMemcpyHtoDAsync", Side::ToDevice, address(to), from, bytes, stream, false);
}
EMULATOR_EXPORT Result cuMemcpyDtoH_v2(void *to, DevicePointer from, size_t bytes) {
    return copy("cuMemcpyDtoH", Side::ToHost, to, address(from), bytes, nullptr, true);
}
EMULATOR_EXPORT Result cuMemcpyDtoHAsync_v2(void *to, DevicePointer from, size_t bytes, void *stream) {
    return copy("cuMemcpyDtoHAsync", Side::ToHost, to, address(from), bytes, stream, false);
}
EMULATOR_EXPORT Result cuMemcpyDtoD_v2(DevicePointer to, DevicePointer from, size_t bytes) {
    return copy("cuMemcpyDtoD", Side::OnDevice, address(to), address(from), bytes, nullptr, true);
}
EMULATOR_EXPORT Result cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes, void *stream) {
    return copy("cuMemcpyDtoDAsync", Side::OnDevice, address(to), address(from), bytes, stream, false);
}
EMULATOR_EXPORT Result cuMemsetD8_v2(DevicePointer to, unsigned char value, size_t count) {
    return fill("cuMemsetD8", to, value, 1, count, nullptr, true);
}
EMULATOR_EXPORT Result cuMemsetD8Async(DevicePointer to, unsigned char value, size_t count, void *stream) {
    return fill("cuMemsetD8Async", to, value, 1, count, stream, false);
}
EMULATOR_EXPORT Result cuMemsetD32_v2(DevicePointer to, unsigned value, size_t count) {
    return fill("cuMemsetD32", to, value, 4, count, nullptr, true);
}
EMULATOR_EXPORT Result cuMemsetD32Async(DevicePointer to, unsigned value, size_t count, void *stream) {
    return fill("cuMemsetD32Async", to, value, 4, count, stream, false);
}
