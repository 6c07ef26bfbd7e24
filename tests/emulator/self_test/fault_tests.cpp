// Mistakes in the use of memory, failures on demand, and what is left over at the end.
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#include "harness.h"

namespace {

void write_at(int index) {
    Device device;
    Buffer to(1024);  // 256 floats: its end is also the end of the accessible pages
    CHECK(device.launch("write_at", 1, 1, {&to.pointer, &index}) == 0);
    cuStreamSynchronize(device.stream);
}

void slack_overrun() {
    Device device;
    CUdeviceptr small;
    CHECK(cuMemAlloc_v2(&small, 100) == 0);  // 156 accessible bytes follow, up to the alignment
    int at = 30;
    CHECK(device.launch("write_at", 1, 1, {&small, &at}) == 0);
    CHECK(cuStreamSynchronize(device.stream) == 700);
    _exit(0);
}

void stale_pointer(bool host) {
    Device device;
    CUdeviceptr pointer;
    float here[4];
    CHECK(cuMemAlloc_v2(&pointer, 4096) == 0 && cuMemFree_v2(pointer) == 0);
    if (host) pointer = CUdeviceptr(uintptr_t(&here));
    int at = 0;
    CHECK(device.launch("write_at", 1, 1, {&pointer, &at}) == 0);
    CHECK(cuStreamSynchronize(device.stream) == 700);
}

void stale_pointer_in_structure(bool host) {
    Device device;
    CUdeviceptr pointer;
    float here[4];
    CHECK(cuMemAlloc_v2(&pointer, 4096) == 0 && cuMemFree_v2(pointer) == 0);
    struct { CUdeviceptr to; int at, unused; } target = {host ? CUdeviceptr(uintptr_t(&here)) : pointer, 0, 0};
    CHECK(device.launch("write_at_target", 1, 1, {&target}) == 0);
    CHECK(cuStreamSynchronize(device.stream) == 700);
}

void structure() {
    Device device;
    Buffer to(64);
    struct { CUdeviceptr to; int at, unused; } target = {to.pointer, 3, 0};
    CHECK(device.launch("write_at_target", 1, 1, {&target}) == 0);
    CHECK(cuStreamSynchronize(device.stream) == 0);
    CHECK(to.floats()[3] == 1.0f);
}

void pinned_pointer() {
    Device device;
    void *pinned;
    CHECK(cuMemHostAlloc(&pinned, 64, 0) == 0);
    int at = 3;
    CHECK(device.launch("write_at", 1, 1, {&pinned, &at}) == 0);
    CHECK(cuStreamSynchronize(device.stream) == 0);
    CHECK(static_cast<float *>(pinned)[3] == 1.0f);
    CHECK(cuMemFreeHost(pinned) == 0);
}

void bad_copies() {
    Device device(false);
    Buffer to(100);
    char here[200] = {};
    CHECK(cuMemcpyHtoD_v2(to.pointer, here, 101) == 1);
    CHECK(cuMemcpyHtoD_v2(to.pointer + 50, here, 51) == 1);
    CHECK(cuMemcpyDtoH_v2(here, CUdeviceptr(uintptr_t(here)) + 100, 8) == 1);
    CHECK(cuMemcpyHtoD_v2(to.pointer, reinterpret_cast<void *>(uintptr_t(to.pointer)), 8) == 1);
    CHECK(cuMemsetD8Async(to.pointer, 0, 101, device.stream) == 1);
    CHECK(cuMemcpyHtoD_v2(to.pointer, here, 100) == 0);
}

void double_free() {
    Device device(false);
    CUdeviceptr pointer;
    CHECK(cuMemAlloc_v2(&pointer, 16) == 0 && cuMemFree_v2(pointer) == 0 && cuMemFree_v2(pointer) == 1);
}

void exhaustion() {
    Device device(false);
    CUdeviceptr one, two;
    size_t free_bytes, total;
    CHECK(cuMemAlloc_v2(&one, 1000000) == 0 && cuMemAlloc_v2(&two, 1000000) == 2);
    CHECK(cuMemGetInfo_v2(&free_bytes, &total) == 0 && total == 1500000 && free_bytes < 500000);
    CHECK(cuMemFree_v2(one) == 0 && cuMemAlloc_v2(&two, 1000000) == 0 && cuMemFree_v2(two) == 0);
}

void leak() {
    Device device(false);
    CUdeviceptr pointer;
    void *event;
    CHECK(cuMemAlloc_v2(&pointer, 1000) == 0 && cuEventCreate(&event, 0) == 0);
}

void third_launch_fails() {
    Device device;
    Buffer to(1024), other(1024);
    int n = 256;
    void *parameters[] = {&to.pointer, &n}, *function = device.function("add_one");
    auto launch = [&] { return cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, 0, device.stream, parameters, nullptr); };
    CHECK(launch() == 0 && launch() == 0 && cuStreamSynchronize(device.stream) == 0);
    CHECK(launch() == 0 && cuStreamSynchronize(device.stream) == 719 && launch() == 719);
}

void overrun_shared() {
    Device device;
    Buffer to(4);
    CHECK(device.launch("overrun_shared", 1, 64, {&to.pointer}, 256) == 0);
    cuStreamSynchronize(device.stream);
}

void deep_recursion() {
    Device device;
    Buffer to(8);
    int depth = 1000;
    CHECK(device.launch("recurse", 1, 1, {&to.pointer, &depth}) == 0);
    cuStreamSynchronize(device.stream);
}

void visible_devices() {
    CHECK(cuInit(0) == 0);
    int count;
    char first[16], second[16];
    CHECK(cuDeviceGetCount(&count) == 0 && count == 2);
    CHECK(cuDeviceGetUuid(first, 0) == 0 && cuDeviceGetUuid(second, 1) == 0 && memcmp(first, second, 16) != 0);
    Device one(false, 0), other(false, 1);
    CUdeviceptr pointer;
    CHECK(cuMemAlloc_v2(&pointer, 64) == 0);
    CHECK(cuCtxSetCurrent(one.context) == 0);
    CHECK(cuMemsetD32_v2(pointer, 0, 16) == 1);  // another device's memory
    CHECK(cuCtxSetCurrent(other.context) == 0 && cuMemFree_v2(pointer) == 0);
}

using Environment = std::vector<std::pair<std::string, std::string>>;

}  // namespace

void fault_tests() {
    bool sanitized = getenv("ASAN_OPTIONS") != nullptr;
    int fault = 85;
    test("a write past an allocation's end", {fault, "kernel write_at, block (0, 0, 0), thread (0, 0, 0): invalid access"}, [] { write_at(256); });
    if (sanitized) {
        test("a write into the slack", {87, "use-after-poison"}, slack_overrun);
        test("a write outside a shared array", {87, "index 16 out of bounds"}, [] {
            Device device;
            Buffer to(4);
            int at = 16;
            CHECK(device.launch("outside_array", 1, 1, {&to.pointer, &at}) == 0);
            cuStreamSynchronize(device.stream);
        });
    } else {
        test("a write into the slack", {0, "was written to by kernel write_at"}, slack_overrun);
    }
    test("a freed pointer as a kernel argument", {0, "a freed allocation of 4096 bytes"}, [] { stale_pointer(false); });
    test("a host pointer as a kernel argument", {0, "no device memory"}, [] { stale_pointer(true); });
    test("a structure as a kernel argument", {}, structure);
    test("a freed pointer in a structure", {0, "a freed allocation of 4096 bytes"}, [] { stale_pointer_in_structure(false); });
    if (!sanitized) test("a host pointer in a structure", {0, "no device memory"}, [] { stale_pointer_in_structure(true); });
    test("pinned memory as a kernel argument", {}, pinned_pointer);
    test("copies and fills out of bounds", {0, "host address"}, bad_copies);
    test("double free", {0, "it has been freed before"}, double_free);
    test("out of memory", {0, "", {{"CRYOSPLAT_EMULATOR_MEMORY", "1500000"}}}, exhaustion);
    test("a leak is reported", {0, "leaked 1 device allocations (1000 bytes), 1 events"}, leak);
    test("a leak ends a strict run", {86, "leaked", {{"CRYOSPLAT_EMULATOR_STRICT", "1"}}}, leak);
    test("dynamic shared memory overrun", {fault, "kernel overrun_shared"}, overrun_shared);
    test("a kernel's stack overrun", {fault, "the thread's stack is full"}, deep_recursion);
    test("visible devices", {0, "cuMemsetD32", {{"CRYOSPLAT_EMULATOR_DEVICES", "4"}, {"CUDA_VISIBLE_DEVICES", "2,3"}}}, visible_devices);
    test("fail: the third launch", {0, "made to fail: launch add_one", {{"CRYOSPLAT_EMULATOR_FAIL", "launch:add_one:3"}}}, third_launch_fails);
    test("fail: the second allocation", {0, "made to fail: alloc", {{"CRYOSPLAT_EMULATOR_FAIL", "alloc:2"}}}, [] {
        Device device(false);
        CUdeviceptr pointer;
        CHECK(cuMemAlloc_v2(&pointer, 16) == 0 && cuMemFree_v2(pointer) == 0 && cuMemAlloc_v2(&pointer, 16) == 2);
    });
    test("fail: load", {0, "made to fail: load", {{"CRYOSPLAT_EMULATOR_FAIL", "load"}}}, [] {
        Device device(false);
        void *module;
        CHECK(cuModuleLoadData(&module, compile_kernels(false).data()) == 303);
    });
    const Environment other_rank = {{"CRYOSPLAT_EMULATOR_FAIL", "alloc"}, {"CRYOSPLAT_EMULATOR_FAIL_RANK", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}};
    test("fail: only in one rank", {0, "", other_rank}, [] {
        Device device(false);
        Buffer buffer(16);
    });
    test("fail: a mistyped entry", {2, "'launhc:x' is not understood", {{"CRYOSPLAT_EMULATOR_FAIL", "launhc:x"}}}, [] {
        Device device(false);
        Buffer buffer(16);
    });
}
