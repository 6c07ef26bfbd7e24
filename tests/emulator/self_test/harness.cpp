// Running the tests, and the little that most of them need.
#include "harness.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels.h"

namespace {
int failed = 0;
}

int failures() { return failed; }

void check(bool condition, const char *text, const char *file, int line) {
    if (condition) return;
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, text);
    fflush(stderr);
    _exit(1);
}

void test(const std::string &name, const Expectation &expected, const std::function<void()> &body) {
    char path[] = "/tmp/emulator-self-test-XXXXXX";
    int file = mkstemp(path);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(file, 2);
        for (auto &variable : expected.environment) setenv(variable.first.c_str(), variable.second.c_str(), 1);
        alarm(60);  // a hang is a failure
        body();
        exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    std::string said;
    char part[4096];
    lseek(file, 0, SEEK_SET);
    for (ssize_t got; (got = read(file, part, sizeof part)) > 0;) said.append(part, size_t(got));
    close(file);
    unlink(path);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    bool good = code == expected.status && (expected.output.empty() ? said.empty() : said.find(expected.output) != std::string::npos);
    printf("%s: %s\n", good ? "ok" : "FAILED", name.c_str());
    if (good) return;
    ++failed;
    printf("    status %d, expected %d; said:\n    %s\n    expected: %s\n", code, expected.status, said.c_str(), expected.output.c_str());
}

std::string compile_kernels(bool as_text) {
    void *program = nullptr;
    const char *header = SHARED_HEADER, *name = "shared.cuh";
    CHECK(nvrtcCreateProgram(&program, KERNELS, "kernels.cu", 1, &header, &name) == 0);
    const char *options[] = {"--gpu-architecture=sm_90", "--std=c++17", "-DSCALE=3", "--fmad=false"};
    int result = nvrtcCompileProgram(program, 4, options);
    if (result != 0) {
        size_t size = 0;
        nvrtcGetProgramLogSize(program, &size);
        std::string log(size, '\0');
        nvrtcGetProgramLog(program, &log[0]);
        fprintf(stderr, "%s\n", log.c_str());
        CHECK(result == 0);
    }
    size_t size = 0;
    CHECK((as_text ? nvrtcGetPTXSize(program, &size) : nvrtcGetCUBINSize(program, &size)) == 0);
    std::string image(size, '\0');
    CHECK((as_text ? nvrtcGetPTX(program, &image[0]) : nvrtcGetCUBIN(program, &image[0])) == 0);
    CHECK(nvrtcDestroyProgram(&program) == 0);
    return image;
}

Device::Device(bool with_kernels, int ordinal) {
    CHECK(cuInit(0) == 0);
    CHECK(cuDevicePrimaryCtxRetain(&context, ordinal) == 0);
    CHECK(cuCtxSetCurrent(context) == 0);
    CHECK(cuStreamCreate(&stream, 1) == 0);
    if (with_kernels) CHECK(cuModuleLoadData(&module, compile_kernels(false).data()) == 0);
}

Device::~Device() {
    if (module) cuModuleUnload(module);
    cuStreamDestroy_v2(stream);
}

void *Device::function(const char *name) {
    void *result = nullptr;
    CHECK(cuModuleGetFunction(&result, module, name) == 0);
    return result;
}

int Device::launch(const char *name, unsigned blocks, unsigned threads, std::vector<void *> parameters, unsigned dynamic, void *on) {
    return cuLaunchKernel(function(name), blocks, 1, 1, threads, 1, 1, dynamic, on ? on : stream, parameters.data(), nullptr);
}

Buffer::Buffer(size_t bytes_) : bytes(bytes_) { CHECK(cuMemAlloc_v2(&pointer, bytes) == 0); }
Buffer::~Buffer() { cuMemFree_v2(pointer); }
std::vector<float> Buffer::floats() const {
    std::vector<float> values(bytes / 4);
    CHECK(cuCtxSynchronize() == 0);
    CHECK(cuMemcpyDtoH_v2(values.data(), pointer, bytes) == 0);
    return values;
}
std::vector<unsigned> Buffer::words() const {
    std::vector<unsigned> values(bytes / 4);
    CHECK(cuCtxSynchronize() == 0);
    CHECK(cuMemcpyDtoH_v2(values.data(), pointer, bytes) == 0);
    return values;
}
void Buffer::set(const std::vector<float> &values) { CHECK(cuMemcpyHtoD_v2(pointer, values.data(), values.size() * 4) == 0); }

int main(int count, char **arguments) {
    std::string only = count > 1 ? arguments[1] : "";
    auto wanted = [&](const char *part) { return only.empty() || only == part; };
    if (wanted("kernels")) kernel_tests();
    if (wanted("faults")) fault_tests();
    if (wanted("streams")) stream_tests();
    if (wanted("fft")) fft_tests();
    if (wanted("nccl")) nccl_tests();
    printf(failed ? "%d failed\n" : "all good\n", failed);
    return failed ? 1 : 0;
}
