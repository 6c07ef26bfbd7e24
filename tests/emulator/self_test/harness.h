// Each test runs in its own process, since many of them end it; its exit status and stderr are checked.
#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cuda.h"

struct Expectation {
    int status = 0;
    std::string output;                                      // must be in stderr; empty: stderr must be empty
    std::vector<std::pair<std::string, std::string>> environment = {};
};

/// Runs `body` in a child and compares; prints a line and counts a failure if it is not as expected.
void test(const std::string &name, const Expectation &expected, const std::function<void()> &body);
int failures();

/// Ends the test with status 1 and a line on stderr unless `condition` holds.
#define CHECK(CONDITION) check((CONDITION), #CONDITION, __FILE__, __LINE__)
void check(bool condition, const char *text, const char *file, int line);

/// A context on device 0 and a stream, and the module of the self-test's kernels.
struct Device {
    void *context = nullptr, *stream = nullptr, *module = nullptr;
    explicit Device(bool with_kernels = true, int ordinal = 0);
    ~Device();
    void *function(const char *name);
    /// Launches on `stream` (or another) and returns cuLaunchKernel's result.
    int launch(const char *name, unsigned blocks, unsigned threads, std::vector<void *> parameters, unsigned dynamic = 0,
               void *on = nullptr);
};

/// Device memory that is given back at the end of the scope.
struct Buffer {
    CUdeviceptr pointer = 0;
    size_t bytes;
    explicit Buffer(size_t bytes_);
    Buffer(const Buffer &) = delete;
    ~Buffer();
    std::vector<float> floats() const;
    std::vector<unsigned> words() const;
    void set(const std::vector<float> &values);
};

std::string compile_kernels(bool as_text);

void kernel_tests();
void fault_tests();
void stream_tests();
void fft_tests();
void nccl_tests();
