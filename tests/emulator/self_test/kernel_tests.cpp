// The kernel language: threads that meet, shared memory, atomics, and what must be refused.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "harness.h"

namespace {

void launch_results() {
    Device device;
    std::vector<float> values(1000);
    for (size_t i = 0; i < values.size(); ++i) values[i] = float(i);
    Buffer from(4000), to(4000);
    from.set(values);
    int n = 1000;
    CHECK(device.launch("scale", 4, 256, {&to.pointer, &from.pointer, &n}) == 0);
    CHECK(to.floats()[999] == 2997.0f);
    struct Settings {
        CUdeviceptr from;
        float factor;
        int count;
    } settings = {from.pointer, 0.5f, 1000};
    CHECK(device.launch("by_struct", 8, 128, {&to.pointer, &settings}) == 0);
    CHECK(to.floats()[501] == 250.5f);
    CHECK(device.launch("scale", 1, 257, {&to.pointer, &from.pointer, &n}) == 1);  // more than its launch bounds
}

void shared_memory() {
    Device device;
    std::vector<float> values(512, 1.0f);
    values[300] = 11.0f;
    Buffer from(2048), to(8), words(1024 * 4);
    from.set(values);
    CHECK(device.launch("sums", 2, 256, {&to.pointer, &from.pointer}) == 0);
    CHECK(to.floats()[0] == 256.0f && to.floats()[1] == 266.0f);
    CHECK(device.launch("reversed", 2, 512, {&words.pointer}, 2048) == 0);
    CHECK(words.words()[0] == 511 && words.words()[511] == 0 && words.words()[512] == 511);
    int shared = 0;
    CHECK(cuFuncGetAttribute(&shared, 1, device.function("barriers")) == 0 && shared == 4096);
    CHECK(device.launch("reversed", 1, 512, {&words.pointer}, 100 * 1024) == 1);
    void *function = device.function("reversed");
    CHECK(cuFuncSetAttribute(function, 8, 100 * 1024) == 0);
    CHECK(cuFuncSetAttribute(function, 8, 300 * 1024) == 1);
    std::vector<void *> parameters = {&words.pointer};
    CHECK(cuLaunchKernel(function, 1, 1, 1, 512, 1, 1, 100 * 1024, device.stream, parameters.data(), nullptr) == 0);
    Buffer poisoned(256);
    CHECK(device.launch("uninitialised", 1, 64, {&poisoned.pointer}) == 0);
    CHECK(device.launch("uninitialised", 1, 64, {&poisoned.pointer}) == 0);
    CHECK(std::isnan(poisoned.floats()[5]));
}

void warp_operations() {
    Device device;
    Buffer to(64 * 6 * 4), doubles(64 * 8);
    CHECK(device.launch("warp_things", 1, 64, {&to.pointer, &doubles.pointer}) == 0);
    auto words = to.words();
    for (unsigned t = 0; t < 64; ++t) {
        unsigned lane = t % 32, *mine = &words[t * 6];
        CHECK(mine[0] == (t < 32 ? 496u : 1520u));
        CHECK(mine[1] == (lane == 0 ? t : t - 1));
        CHECK(mine[2] == (lane % 8 < 6 ? t + 2 : t));
        CHECK(mine[3] == 0xaaaaaaaau && mine[4] == (lane < 16 ? 3u : 0u) && mine[5] == 2);
    }
    std::vector<double> values(64);
    CHECK(cuMemcpyDtoH_v2(values.data(), doubles.pointer, 512) == 0);
    CHECK(values[7] == 1.5 && values[40] == 17.5);
}

void atomics() {
    Device device;
    Buffer u(12), i(8), f(4), d(8), l(8);
    for (Buffer *buffer : {&u, &i, &f, &d, &l}) CHECK(cuMemsetD32_v2(buffer->pointer, 0, buffer->bytes / 4) == 0);
    CHECK(device.launch("atomics", 10, 100, {&u.pointer, &i.pointer, &f.pointer, &d.pointer, &l.pointer}) == 0);
    CHECK(u.words()[0] == 1000 && u.words()[1] == 0xffffffffu && u.words()[2] == 0);
    CHECK(i.words()[0] == 99 && int(i.words()[1]) == -99 && f.floats()[0] == 500.0f);
    unsigned long long sum = 0;
    double total = 0;
    CHECK(cuMemcpyDtoH_v2(&sum, l.pointer, 8) == 0 && sum == 1000ull << 33);
    CHECK(cuMemcpyDtoH_v2(&total, d.pointer, 8) == 0 && total == 250.0);
}

void votes_and_early_exit() {
    Device device;
    Buffer to(64);
    CHECK(device.launch("votes", 1, 96, {&to.pointer}) == 0);
    CHECK(to.words()[0] == 1 && to.words()[1] == 0 && to.words()[2] == 32);
    CHECK(device.launch("early_exit", 1, 96, {&to.pointer}) == 0);
    CHECK(to.words()[0] == 1);
}

void mathematics() {
    Device device;
    Buffer to(14 * 4);
    CHECK(device.launch("mathematics", 1, 1, {&to.pointer}) == 0);
    const std::vector<float> expected = {1, 0, 8, 0.5f, 7, 0, 31, 4, 1.5f, 1, 3, 1, 0, -1};
    CHECK(to.floats() == expected);
}

void constants() {
    Device device;
    CUdeviceptr address = 0;
    size_t bytes = 0;
    CHECK(cuModuleGetGlobal_v2(&address, &bytes, device.module, "offsets") == 0 && bytes == 16);
    float values[4] = {1, 2, 3, 4};
    CHECK(cuMemcpyHtoD_v2(address, values, 16) == 0);
    Buffer to(16);
    CHECK(device.launch("constants", 1, 4, {&to.pointer}) == 0);
    CHECK(to.floats()[2] == 3.0f);
}

/// The launch succeeds, the kernel fails, and so does everything after it.
void failing(const char *kernel, unsigned threads, int error) {
    Device device;
    Buffer to(4096);
    void *function = device.function(kernel), *parameters[] = {&to.pointer};
    CHECK(cuLaunchKernel(function, 1, 1, 1, threads, 1, 1, 0, device.stream, parameters, nullptr) == 0);
    CHECK(cuStreamSynchronize(device.stream) == error);
    CUdeviceptr other;
    CHECK(cuMemAlloc_v2(&other, 16) == error);
    CHECK(cuLaunchKernel(function, 1, 1, 1, threads, 1, 1, 0, device.stream, parameters, nullptr) == error);
}

void block_order(bool reversed) {
    Device device;
    Buffer to(64), next(4);
    CHECK(cuMemsetD32_v2(next.pointer, 0, 1) == 0);
    CHECK(device.launch("order", 16, 1, {&to.pointer, &next.pointer}) == 0);
    auto words = to.words();
    CHECK((words[0] == 15 && words[15] == 0) == reversed);
    std::sort(words.begin(), words.end());
    for (unsigned i = 0; i < 16; ++i) CHECK(words[i] == i);
}

void compile_errors() {
    void *program = nullptr, *module = nullptr;
    CHECK(nvrtcCreateProgram(&program, "extern \"C\" __global__ void broken() { undeclared = 1; }", "broken.cu", 0, nullptr, nullptr) == 0);
    CHECK(nvrtcCompileProgram(program, 0, nullptr) == 6);
    size_t size = 0;
    CHECK(nvrtcGetProgramLogSize(program, &size) == 0);
    std::string log(size, '\0');
    CHECK(nvrtcGetProgramLog(program, &log[0]) == 0);
    CHECK(log.find("broken.cu:1") != std::string::npos && log.find("undeclared") != std::string::npos);
    CHECK(nvrtcDestroyProgram(&program) == 0);
    Device device(false);
    std::string text = compile_kernels(true);
    CHECK(text.size() == strlen(text.c_str()) + 1);
    CHECK(cuModuleLoadData(&module, text.data()) == 0 && cuModuleUnload(module) == 0);
}

void costs() {
    Device device;
    Buffer to(1024 * 4 * 4);
    void *function = device.function("barriers");
    auto seconds = [&](int launches, unsigned threads, int count) {
        auto from = std::chrono::steady_clock::now();
        void *parameters[] = {&to.pointer, &count};
        for (int i = 0; i < launches; ++i) CHECK(cuLaunchKernel(function, 1, 1, 1, threads, 1, 1, 0, device.stream, parameters, nullptr) == 0);
        CHECK(cuStreamSynchronize(device.stream) == 0);
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count() / launches;
    };
    seconds(100, 256, 10);
    double none = seconds(2000, 1, 0), ten = seconds(2000, 256, 9), many = seconds(200, 256, 1009);
    auto from = std::chrono::steady_clock::now();
    int nothing = 0;
    for (int i = 0; i < 500; ++i) {
        void *parameters[] = {&to.pointer, &nothing};
        CHECK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, device.stream, parameters, nullptr) == 0 && cuStreamSynchronize(device.stream) == 0);
    }
    double awaited = std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count() / 500;
    printf("        a launch awaited %.1f us\n", awaited * 1e6);
    printf("        a launch %.1f us, a block of 256 threads with 10 barriers %.1f us, a switch %.0f ns\n", none * 1e6, ten * 1e6,
           (many - ten) / (1000.0 * 256) * 1e9);
}

}  // namespace

void kernel_tests() {
    test("launches, parameters, launch bounds", {0, "out of range"}, launch_results);
    test("shared memory: static, dynamic, limits, poisoned", {0, "more than allowed"}, shared_memory);
    test("warp operations", {}, warp_operations);
    test("atomics", {}, atomics);
    test("votes at barriers, threads that exit early", {}, votes_and_early_exit);
    test("mathematics", {}, mathematics);
    test("constant memory", {}, constants);
    test("a divergent barrier", {0, "divergent barrier: 32 threads wait at __syncthreads (kernels.cu:"}, [] { failing("divergent", 64, 719); });
    test("a lane that never arrives", {0, "lanes 0x00000200 never arrive"}, [] { failing("missing_lane", 32, 719); });
    test("a shuffle from outside the mask", {0, "reads lane 20"}, [] { failing("wrong_source", 32, 719); });
    test("a failed assertion", {0, "assertion failed: to == nullptr"}, [] { failing("asserts", 1, 710); });
    test("blocks in order", {}, [] { block_order(false); });
    test("blocks in reverse", {0, "", {{"CRYOSPLAT_EMULATOR_ORDER", "reverse"}}}, [] { block_order(true); });
    test("shuffled: warps", {0, "", {{"CRYOSPLAT_EMULATOR_ORDER", "shuffle"}}}, warp_operations);
    test("shuffled: shared memory", {0, "more than allowed", {{"CRYOSPLAT_EMULATOR_ORDER", "shuffle"}}}, shared_memory);
    test("compile errors, PTX as text", {}, compile_errors);
    test("cost", {}, costs);
}
