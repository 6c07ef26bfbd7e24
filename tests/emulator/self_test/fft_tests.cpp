// cuFFT against the sum that defines the transform.
#include <chrono>
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstring>

#include "harness.h"

namespace {

enum { R2C = 42, C2R = 44 };
using Complex = std::complex<double>;

std::vector<float> noise(size_t count) {
    std::vector<float> values(count);
    uint64_t state = 12345;
    for (float &value : values) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        value = float(int(state >> 40) % 2001 - 1000) / 1000.0f;
    }
    return values;
}

/// Forward and back, both batch items, in separate buffers or in place.
void compare(int height, int width, bool in_place) {
    Device device(false);
    const int batch = 2, half = width / 2 + 1;
    const int row = in_place ? 2 * half : width;  // in floats
    std::vector<float> values = noise(size_t(batch * height * width)), padded(size_t(batch * height * row), 0.0f);
    for (int line = 0; line < batch * height; ++line)
        for (int x = 0; x < width; ++x) padded[size_t(line * row + x)] = values[size_t(line * width + x)];
    Buffer real(padded.size() * 4), own(size_t(batch * height * half) * 8);
    real.set(padded);
    CUdeviceptr complex = in_place ? real.pointer : own.pointer;
    int n[] = {height, width}, real_embed[] = {height, row}, complex_embed[] = {height, half}, forward, backward;
    CHECK(cufftPlanMany(&forward, 2, n, real_embed, 1, height * row, complex_embed, 1, height * half, R2C, batch) == 0);
    CHECK(cufftPlanMany(&backward, 2, n, complex_embed, 1, height * half, real_embed, 1, height * row, C2R, batch) == 0);
    CHECK(cufftSetStream(forward, device.stream) == 0 && cufftSetStream(backward, device.stream) == 0);
    CHECK(cufftExecR2C(forward, reinterpret_cast<float *>(uintptr_t(real.pointer)), reinterpret_cast<void *>(uintptr_t(complex))) == 0);
    CHECK(cuStreamSynchronize(device.stream) == 0);
    std::vector<std::complex<float>> found(size_t(batch * height * half));
    CHECK(cuMemcpyDtoH_v2(found.data(), complex, found.size() * 8) == 0);
    double scale = std::sqrt(double(height) * width);
    for (int b = 0; b < batch; ++b)
        for (int v = 0; v < height; v += 1 + height / 7)
            for (int u = 0; u < half; u += 1 + half / 7) {
                Complex sum = 0;
                for (int y = 0; y < height; ++y)
                    for (int x = 0; x < width; ++x)
                        sum += double(values[size_t((b * height + y) * width + x)]) *
                               std::polar(1.0, -2 * M_PI * (double(v) * y / height + double(u) * x / width));
                // Inputs are of order one, so sums of order `scale`, and the result is rounded once to f32.
                CHECK(std::abs(sum - Complex(found[size_t((b * height + v) * half + u)])) < 3e-7 * scale * 4);
            }
    CHECK(cufftExecC2R(backward, reinterpret_cast<void *>(uintptr_t(complex)), reinterpret_cast<float *>(uintptr_t(real.pointer))) == 0);
    auto back = real.floats();
    for (int line = 0; line < batch * height; ++line)
        for (int x = 0; x < width; ++x)
            CHECK(std::abs(back[size_t(line * row + x)] / (scale * scale) - values[size_t(line * width + x)]) < 1e-6);
    if (!in_place) CHECK(std::isnan(own.floats()[0]));  // the input of C2R is destroyed
    CHECK(cufftDestroy(forward) == 0 && cufftDestroy(backward) == 0);
}

void work_area_and_capture() {
    Device device(false);
    int plan, n[] = {8, 8};
    size_t work = 0;
    CHECK(cufftCreate(&plan) == 0 && cufftSetAutoAllocation(plan, 0) == 0);
    CHECK(cufftMakePlanMany(plan, 2, n, nullptr, 1, 0, nullptr, 1, 0, R2C, 3, &work) == 0 && work > 0);
    CHECK(cufftSetStream(plan, device.stream) == 0);
    Buffer in(3 * 64 * 4), out(3 * 40 * 8), area(work);
    float *from = reinterpret_cast<float *>(uintptr_t(in.pointer));
    void *to = reinterpret_cast<void *>(uintptr_t(out.pointer)), *graph = nullptr, *execution = nullptr;
    CHECK(cufftExecR2C(plan, from, to) == 13);  // no work area yet
    CHECK(cufftSetWorkArea(plan, reinterpret_cast<void *>(uintptr_t(area.pointer))) == 0);
    in.set(std::vector<float>(192, 1.0f));
    CHECK(cuStreamBeginCapture_v2(device.stream, 1) == 0 && cufftExecR2C(plan, from, to) == 0);
    CHECK(cuStreamEndCapture(device.stream, &graph) == 0 && cuGraphInstantiateWithFlags(&execution, graph, 0) == 0);
    CHECK(std::isnan(out.floats()[0]));
    CHECK(cuGraphLaunch(execution, device.stream) == 0 && out.floats()[80] == 64.0f);
    in.set(std::vector<float>(192, 2.0f));
    CHECK(cuGraphLaunch(execution, device.stream) == 0 && out.floats()[80] == 128.0f);
    CHECK(cufftDestroy(plan) == 0 && cuGraphDestroy(graph) == 0 && cuGraphExecDestroy(execution) == 0);
}

void speed() {
    Device device(false);
    for (int size : {64, 128, 256}) {
        int plan, n[] = {size, size};
        CHECK(cufftPlanMany(&plan, 2, n, nullptr, 1, 0, nullptr, 1, 0, R2C, 8) == 0 && cufftSetStream(plan, device.stream) == 0);
        Buffer in(size_t(size) * size * 8 * 4), out(size_t(size) * (size / 2 + 1) * 8 * 8);
        in.set(noise(in.bytes / 4));
        auto from = std::chrono::steady_clock::now();
        CHECK(cufftExecR2C(plan, reinterpret_cast<float *>(uintptr_t(in.pointer)), reinterpret_cast<void *>(uintptr_t(out.pointer))) == 0);
        CHECK(cuStreamSynchronize(device.stream) == 0);
        printf("        an FFT of %d x %d: %.2f ms\n", size, size,
               std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from).count() / 8);
        CHECK(cufftDestroy(plan) == 0);
    }
}

}  // namespace

void fft_tests() {
    const int sizes[][2] = {{8, 8}, {1, 5}, {12, 10}, {9, 15}, {37, 37}, {41, 26}, {64, 64}, {22, 94}};
    for (auto &size : sizes)
        for (bool in_place : {false, true})
            test("FFT of " + std::to_string(size[0]) + " x " + std::to_string(size[1]) + (in_place ? " in place" : ""), {},
                 [&] { compare(size[0], size[1], in_place); });
    test("FFT: work area, in a graph", {}, work_area_and_capture);
    test("FFT: a plan left over", {0, "leaked 1 device allocations (512 bytes), 1 cuFFT plans"}, [] {
        Device device(false);
        int plan, n[] = {4, 4};
        CHECK(cufftPlanMany(&plan, 2, n, nullptr, 1, 0, nullptr, 1, 0, R2C, 1) == 0);
    });
    test("FFT speed", {}, speed);
}
