// Streams, events, capture and graphs.
#include <atomic>
#include <chrono>
#include <unistd.h>

#include "harness.h"

namespace {

/// Holds a stream until `open` is set.
struct Gate {
    std::atomic<bool> open{false};
    static void wait(void *self) {
        while (!static_cast<Gate *>(self)->open) usleep(500);
    }
};

void asynchronous() {
    Device device;
    Gate gate;
    void *pinned, *other;
    CHECK(cuStreamCreate(&other, 1) == 0);
    CHECK(cuMemHostAlloc(&pinned, 4, 0) == 0);
    float *value = static_cast<float *>(pinned);
    *value = 1.0f;
    Buffer to(4), pageable(4);
    float local = 7.0f;
    CHECK(cuLaunchHostFunc(device.stream, Gate::wait, &gate) == 0);
    CHECK(cuMemcpyHtoDAsync_v2(to.pointer, pinned, 4, device.stream) == 0);
    CHECK(cuMemcpyHtoDAsync_v2(pageable.pointer, &local, 4, device.stream) == 0);
    CHECK(cuStreamQuery(device.stream) == 600);
    CHECK(cuStreamSynchronize(other) == 0);  // other streams are not held up
    *value = 2.0f;                           // too early: the copy has not run
    local = 8.0f;                            // pageable memory may be used again
    gate.open = true;
    CHECK(cuStreamSynchronize(device.stream) == 0 && cuStreamQuery(device.stream) == 0);
    CHECK(to.floats()[0] == 2.0f && pageable.floats()[0] == 7.0f);
    CHECK(cuMemFreeHost(pinned) == 0 && cuStreamDestroy_v2(other) == 0);
}

void events() {
    Device device;
    Gate gate;
    void *other, *event;
    CHECK(cuStreamCreate(&other, 1) == 0 && cuEventCreate(&event, 2) == 0);
    Buffer to(1024);
    int n = 256;
    CHECK(cuMemsetD32_v2(to.pointer, 0, 256) == 0);
    CHECK(cuStreamWaitEvent(other, event, 0) == 0);  // never recorded: no wait
    CHECK(cuLaunchHostFunc(device.stream, Gate::wait, &gate) == 0);
    CHECK(device.launch("add_one", 1, 256, {&to.pointer, &n}) == 0);
    CHECK(cuEventRecord(event, device.stream) == 0 && cuEventQuery(event) == 600);
    CHECK(cuStreamWaitEvent(other, event, 0) == 0);
    Buffer copy(1024);
    CHECK(cuMemcpyDtoDAsync_v2(copy.pointer, to.pointer, 1024, other) == 0);
    usleep(20000);
    CHECK(cuStreamQuery(other) == 600);
    gate.open = true;
    CHECK(cuStreamSynchronize(other) == 0 && cuEventSynchronize(event) == 0 && cuEventQuery(event) == 0);
    CHECK(copy.floats()[255] == 1.0f);
    CHECK(cuEventDestroy_v2(event) == 0 && cuStreamDestroy_v2(other) == 0);
}

struct Fork {
    void *other, *fork, *join, *graph = nullptr, *execution = nullptr;
    Fork() {
        CHECK(cuStreamCreate(&other, 1) == 0 && cuEventCreate(&fork, 2) == 0 && cuEventCreate(&join, 2) == 0);
    }
    ~Fork() {
        cuEventDestroy_v2(fork), cuEventDestroy_v2(join), cuStreamDestroy_v2(other);
        if (graph) cuGraphDestroy(graph);
        if (execution) cuGraphExecDestroy(execution);
    }
};

void graphs() {
    Device device;
    Fork fork;
    Buffer a(1024), b(1024), c(1024);
    int n = 256, calls = 0, capturing = 0;
    for (Buffer *buffer : {&a, &b, &c}) CHECK(cuMemsetD32_v2(buffer->pointer, 0, 256) == 0);
    CHECK(cuStreamBeginCapture_v2(device.stream, 1) == 0);
    CHECK(device.launch("add_one", 1, 256, {&a.pointer, &n}) == 0);
    CHECK(cuEventRecord(fork.fork, device.stream) == 0 && cuStreamWaitEvent(fork.other, fork.fork, 0) == 0);
    CHECK(cuStreamIsCapturing(fork.other, &capturing) == 0 && capturing == 1);
    CHECK(device.launch("add_one", 1, 256, {&b.pointer, &n}, 0, fork.other) == 0);
    CHECK(device.launch("add_one", 1, 256, {&a.pointer, &n}) == 0);
    CHECK(cuEventRecord(fork.join, fork.other) == 0 && cuStreamWaitEvent(device.stream, fork.join, 0) == 0);
    CHECK(device.launch("scale", 1, 256, {&c.pointer, &b.pointer, &n}) == 0);
    CHECK(cuLaunchHostFunc(device.stream, [](void *count) { ++*static_cast<int *>(count); }, &calls) == 0);
    CHECK(cuStreamEndCapture(device.stream, &fork.graph) == 0 && fork.graph);
    CHECK(cuGraphInstantiateWithFlags(&fork.execution, fork.graph, 0) == 0);
    CHECK(cuStreamSynchronize(device.stream) == 0 && calls == 0 && a.floats()[0] == 0.0f);  // nothing ran yet
    n = 0;  // parameters were copied
    for (int i = 0; i < 50; ++i) CHECK(cuGraphLaunch(fork.execution, device.stream) == 0);
    CHECK(cuStreamSynchronize(device.stream) == 0);
    CHECK(calls == 50 && a.floats()[255] == 100.0f && b.floats()[0] == 50.0f && c.floats()[7] == 150.0f);
}

void capture_errors() {
    Device device;
    Fork fork;
    Buffer a(1024);
    int n = 256;
    void *graph = nullptr;
    CUdeviceptr pointer;
    CHECK(cuStreamBeginCapture_v2(device.stream, 1) == 0);
    CHECK(cuMemAlloc_v2(&pointer, 16) == 900);  // forbidden, and ends the capture
    CHECK(device.launch("add_one", 1, 256, {&a.pointer, &n}) == 901);
    CHECK(cuStreamEndCapture(device.stream, &graph) == 901 && !graph);
    CHECK(cuStreamBeginCapture_v2(device.stream, 1) == 0);
    CHECK(cuStreamSynchronize(device.stream) == 900);
    CHECK(cuStreamEndCapture(device.stream, &graph) == 901);
    CHECK(cuStreamBeginCapture_v2(device.stream, 1) == 0);  // forked and not joined
    CHECK(cuEventRecord(fork.fork, device.stream) == 0 && cuStreamWaitEvent(fork.other, fork.fork, 0) == 0);
    CHECK(device.launch("add_one", 1, 256, {&a.pointer, &n}, 0, fork.other) == 0);
    CHECK(cuStreamEndCapture(device.stream, &graph) == 904);
    CHECK(cuEventRecord(fork.join, fork.other) == 0);  // outside any capture
    CHECK(cuStreamBeginCapture_v2(device.stream, 1) == 0);
    CHECK(cuStreamWaitEvent(device.stream, fork.join, 0) == 905);
    CHECK(cuStreamEndCapture(device.stream, &graph) == 901);
}

/// Two streams that should be ordered by an event and are not.
void missing_dependency(bool ordered, bool expected_right) {
    Device device;
    Fork fork;
    Buffer a(4096), b(4096);
    int n = 1024, right = 0;
    for (int i = 0; i < 20; ++i) {
        CHECK(cuMemsetD32_v2(a.pointer, 0, 1024) == 0);
        CHECK(device.launch("add_one", 4, 256, {&a.pointer, &n}) == 0);
        CHECK(cuEventRecord(fork.fork, device.stream) == 0);
        if (ordered) CHECK(cuStreamWaitEvent(fork.other, fork.fork, 0) == 0);
        CHECK(device.launch("scale", 4, 256, {&b.pointer, &a.pointer, &n}, 0, fork.other) == 0);
        right += b.floats()[1023] == 3.0f;
    }
    CHECK((right == 20) == expected_right);
}

void failure_in_graph() {
    Device device;
    Fork fork;
    Buffer a(1024);
    int n = 256;
    CHECK(cuStreamBeginCapture_v2(device.stream, 1) == 0);
    CHECK(device.launch("add_one", 1, 256, {&a.pointer, &n}) == 0);
    CHECK(cuStreamEndCapture(device.stream, &fork.graph) == 0);
    CHECK(cuGraphInstantiateWithFlags(&fork.execution, fork.graph, 0) == 0);
    CHECK(cuGraphLaunch(fork.execution, device.stream) == 0 && cuStreamSynchronize(device.stream) == 0);
    CHECK(cuGraphLaunch(fork.execution, device.stream) == 0 && cuStreamSynchronize(device.stream) == 719);
}

void null_stream_order() {
    Device device(false);
    Gate gate;
    void *blocking;
    CHECK(cuStreamCreate(&blocking, 0) == 0);
    Buffer a(4), b(4);
    CHECK(cuMemsetD32_v2(a.pointer, 1, 1) == 0);
    CHECK(cuLaunchHostFunc(blocking, Gate::wait, &gate) == 0);
    CHECK(cuMemsetD8Async(a.pointer, 2, 4, nullptr) == 0);  // waits for the blocking stream
    CHECK(cuMemcpyDtoDAsync_v2(b.pointer, a.pointer, 4, blocking) == 0);  // and this for that
    usleep(10000);
    CHECK(cuStreamQuery(nullptr) == 600);
    gate.open = true;
    CHECK(cuStreamSynchronize(blocking) == 0 && b.words()[0] == 0x02020202u);
    CHECK(cuStreamDestroy_v2(blocking) == 0);
}

}  // namespace

void stream_tests() {
    using Environment = std::vector<std::pair<std::string, std::string>>;
    const Environment jitter = {{"CRYOSPLAT_EMULATOR_JITTER", "2000"}};
    test("copies run when they run", {}, asynchronous);
    test("events across streams", {}, events);
    test("the null stream's order", {}, null_stream_order);
    test("graphs: fork, join, replay", {}, graphs);
    test("graphs under jitter", {0, "", jitter}, graphs);
    test("capture errors", {0, "recorded outside the capture"}, capture_errors);
    test("an ordered pair under jitter", {0, "", jitter}, [] { missing_dependency(true, true); });
    test("a missing dependency shows under jitter", {0, "", jitter}, [] { missing_dependency(false, false); });
    test("fail: a launch in a graph's replay", {0, "made to fail", {{"CRYOSPLAT_EMULATOR_FAIL", "launch:add_one:2"}}}, failure_in_graph);
    test("a host function that calls CUDA", {0, "which CUDA forbids"}, [] {
        Device device(false);
        static int result = 0;
        CHECK(cuLaunchHostFunc(device.stream, [](void *) { result = cuCtxSynchronize(); }, nullptr) == 0);
        CHECK(cuStreamSynchronize(device.stream) == 0 && result == 800);
    });
}
