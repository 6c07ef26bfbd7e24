// Initialisation, devices, the primary context of each, and what every call checks first.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#include "driver.h"

namespace emulator {

thread_local Context *current_context = nullptr;
thread_local bool in_host_function = false;

namespace {

std::atomic<bool> is_initialised{false};

/// CUDA_VISIBLE_DEVICES as CUDA reads it: indices up to the first one that names no device.
std::vector<int> visible_devices(int count) {
    std::vector<int> result;
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    if (!text) {
        for (int i = 0; i < count; ++i) result.push_back(i);
        return result;
    }
    for (char *end = nullptr; *text; text = *end ? end + 1 : end) {
        long index = strtol(text, &end, 10);
        bool repeated = false;
        for (int seen : result) repeated |= seen == index;
        if (end == text || index < 0 || index >= count || repeated) break;
        result.push_back(int(index));
    }
    return result;
}

void build(Driver &driver) {
    size_t bytes = size_t(environment_number("CRYOSPLAT_EMULATOR_MEMORY", 2ll << 30));
    for (int physical : visible_devices(int(environment_number("CRYOSPLAT_EMULATOR_DEVICES", 1)))) {
        int ordinal = int(driver.devices.size());
        driver.devices.emplace_back(new Device(ordinal, physical, bytes));
        driver.contexts.emplace_back(new Context);
        driver.contexts.back()->device = driver.devices.back().get();
    }
    driver.process = int(getpid());
}

Device *device_of(int ordinal) {
    if (!initialised() || ordinal < 0 || ordinal >= int(driver().devices.size())) return nullptr;
    return driver().devices[size_t(ordinal)].get();
}

int attribute(int which, const Device &device) {
    switch (which) {
    case 1: case 2: case 3: return which == 3 ? 64 : 1024;  // threads a block, block x, y, z
    case 5: return 0x7fffffff;
    case 6: case 7: return 65535;
    case 8: return 48 * 1024;           // shared memory a block
    case 9: return 64 * 1024;           // constant memory
    case 10: return 32;                 // warp
    case 12: case 82: return 65536;     // registers a block, a multiprocessor
    case 13: return 1980000;            // clock, kHz
    case 16: return 132;                // multiprocessors
    case 31: case 41: case 19: case 15: return 1;
    case 32: return 1;                  // error correction
    case 33: return 0x10 + device.physical;  // PCI bus
    case 36: return 2619000;
    case 37: return 5120;
    case 38: return 50 << 20;           // L2
    case 39: return 2048;               // threads a multiprocessor
    case 40: return 3;
    case 75: return 9;                  // compute capability
    case 76: return 0;
    case 78: return 1;
    case 81: return 228 * 1024;         // shared memory a multiprocessor
    case 97: return 227 * 1024;         // shared memory a block, opted in
    case 99: return 1;
    case 106: return 32;                // blocks a multiprocessor
    case 111: return 1024;
    case 115: return 0;                 // memory pools: none, so allocations are synchronous
    default: return 0;
    }
}

}  // namespace

Driver &driver() {
    static Driver *only = new Driver;
    return *only;
}

bool initialised() { return is_initialised.load(std::memory_order_acquire); }

Uuid Device::uuid() const {
    Uuid result;
    // Distinct on one machine and between machines, and the same in every process of one machine.
    char host[64] = {};
    gethostname(host, sizeof host - 1);
    uint64_t hash = 1469598103934665603ull;
    for (const char *at = host; *at; ++at) hash = (hash ^ uint64_t(*at)) * 1099511628211ull;
    memcpy(result.bytes, &hash, 8);
    uint64_t tail = 0xE301A700D0000000ull + uint64_t(physical);
    memcpy(result.bytes + 8, &tail, 8);
    return result;
}

Result usable() {
    if (!initialised()) return NOT_INITIALIZED;
    if (in_host_function) {
        report("a host function enqueued on a stream called CUDA, which CUDA forbids");
        return NOT_PERMITTED;
    }
    if (!current_context) return INVALID_CONTEXT;
    return Result(current_context->error.load());
}

void Context::break_with(Result result, const std::string &why) {
    int none = SUCCESS;
    if (error.compare_exchange_strong(none, result)) report("device %d: %s", device->physical, why.c_str());
}

void Context::wait_for_all() {
    std::vector<std::shared_ptr<Stream>> all;
    {
        std::lock_guard<std::mutex> lock(mutex);
        all.assign(streams.begin(), streams.end());
        if (null_stream) all.push_back(null_stream);
    }
    for (auto &stream : all) stream->wait_idle();
}

}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT Result cuInit(unsigned) {
    static std::once_flag once;
    std::call_once(once, [] {
        build(driver());
        install_fault_handler();
        is_initialised.store(true, std::memory_order_release);
    });
    // A driver that cannot start.
    if (const char *code = getenv("CRYOSPLAT_EMULATOR_INIT")) return static_cast<Result>(atoi(code));
    return driver().devices.empty() ? NO_DEVICE : SUCCESS;
}

EMULATOR_EXPORT Result cuDriverGetVersion(int *version) {
    *version = 12090;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDeviceGetCount(int *count) {
    if (!initialised()) return NOT_INITIALIZED;
    *count = int(driver().devices.size());
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDeviceGet(int *device, int ordinal) {
    if (!initialised()) return NOT_INITIALIZED;
    if (!device_of(ordinal)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDeviceGetName(char *name, int length, int device) {
    if (!device_of(device)) return INVALID_DEVICE;
    snprintf(name, size_t(length), "Emulated device");
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDeviceGetUuid(Uuid *uuid, int device) {
    Device *found = device_of(device);
    if (!found) return INVALID_DEVICE;
    *uuid = found->uuid();
    return SUCCESS;
}
EMULATOR_EXPORT Result cuDeviceGetUuid_v2(Uuid *uuid, int device) { return cuDeviceGetUuid(uuid, device); }

EMULATOR_EXPORT Result cuDeviceGetAttribute(int *value, int which, int device) {
    Device *found = device_of(device);
    if (!found) return INVALID_DEVICE;
    *value = attribute(which, *found);
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDeviceTotalMem_v2(size_t *bytes, int device) {
    Device *found = device_of(device);
    if (!found) return INVALID_DEVICE;
    *bytes = found->memory.total();
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDeviceGetPCIBusId(char *text, int length, int device) {
    Device *found = device_of(device);
    if (!found) return INVALID_DEVICE;
    snprintf(text, size_t(length), "00000000:%02X:00.0", 0x10 + found->physical);
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDeviceCanAccessPeer(int *can, int, int) {
    *can = 0;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDevicePrimaryCtxRetain(Context **context, int device) {
    if (!device_of(device)) return INVALID_DEVICE;
    Context *found = driver().contexts[size_t(device)].get();
    std::lock_guard<std::mutex> lock(found->mutex);
    if (found->retained++ == 0) found->error = SUCCESS;  // a new primary context forgets the old one's failure
    if (!found->null_stream) found->null_stream = Stream::create(found, true, true);
    *context = found;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDevicePrimaryCtxRelease_v2(int device) {
    if (!device_of(device)) return INVALID_DEVICE;
    Context *found = driver().contexts[size_t(device)].get();
    std::lock_guard<std::mutex> lock(found->mutex);
    if (found->retained == 0) return INVALID_CONTEXT;
    --found->retained;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
    if (!device_of(device)) return INVALID_DEVICE;
    driver().contexts[size_t(device)]->flags = flags;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    if (!device_of(device)) return INVALID_DEVICE;
    *flags = driver().contexts[size_t(device)]->flags;
    *active = driver().contexts[size_t(device)]->retained > 0;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuCtxGetCurrent(Context **context) {
    if (!initialised()) return NOT_INITIALIZED;
    *context = current_context;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuCtxSetCurrent(Context *context) {
    if (!initialised()) return NOT_INITIALIZED;
    for (auto &known : driver().contexts)
        if (!context || known.get() == context) {
            current_context = context;
            return SUCCESS;
        }
    return INVALID_CONTEXT;
}

EMULATOR_EXPORT Result cuCtxGetDevice(int *device) {
    if (!current_context) return INVALID_CONTEXT;
    *device = current_context->device->ordinal;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuCtxSetFlags(unsigned flags) {
    if (Result error = usable()) return error;
    current_context->flags = flags;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuCtxGetFlags(unsigned *flags) {
    if (Result error = usable()) return error;
    *flags = current_context->flags;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuCtxSynchronize() {
    if (Result error = usable()) return error;
    if (Result error = forbidden_in_capture()) return error;
    current_context->wait_for_all();
    return Result(current_context->error.load());
}

EMULATOR_EXPORT Result cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    if (Result error = usable()) return error;
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuCtxGetLimit(size_t *value, int) {
    *value = 0;
    return usable();
}
EMULATOR_EXPORT Result cuCtxSetLimit(int, size_t) { return usable(); }
EMULATOR_EXPORT Result cuCtxGetCacheConfig(int *config) {
    *config = 0;
    return usable();
}
EMULATOR_EXPORT Result cuCtxSetCacheConfig(int) { return usable(); }
EMULATOR_EXPORT Result cuProfilerStart() { return usable(); }
EMULATOR_EXPORT Result cuProfilerStop() { return usable(); }
