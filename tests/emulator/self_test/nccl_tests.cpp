// NCCL between processes: results, graphs, and ranks that fail in each way.
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "harness.h"

namespace {

constexpr int FLOAT32 = 7, UINT64 = 5, SUM = 0, MAX = 2, RANKS = 4;

/// One rank: its device, its communicator.
struct Rank {
    Device device;
    void *communicator = nullptr;
    int rank;
    Rank(int rank_, const UniqueId &id, bool with_kernels = false) : device(with_kernels, rank_), rank(rank_) {
        CHECK(ncclCommInitRank(&communicator, RANKS, id, rank) == 0);
    }
    int all_reduce(Buffer &buffer, size_t count) {
        void *data = reinterpret_cast<void *>(uintptr_t(buffer.pointer));
        return ncclAllReduce(data, data, count, FLOAT32, SUM, communicator, device.stream);
    }
};

/// Runs `body` in four processes and returns their exit statuses.
std::vector<int> in_ranks(const std::function<void(int, const UniqueId &)> &body) {
    UniqueId id;
    CHECK(ncclGetUniqueId(&id) == 0);
    setenv("CRYOSPLAT_EMULATOR_DEVICES", "4", 0);
    std::vector<pid_t> children;
    for (int rank = 0; rank < RANKS; ++rank) {
        pid_t child = fork();
        if (child == 0) {
            alarm(30);
            body(rank, id);
            exit(0);
        }
        children.push_back(child);
    }
    std::vector<int> statuses;
    for (pid_t child : children) {
        int status = 0;
        waitpid(child, &status, 0);
        statuses.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    return statuses;
}

void all_good(const std::function<void(int, const UniqueId &)> &body) {
    for (int status : in_ranks(body)) CHECK(status == 0);
}

void reductions() {
    all_good([](int index, const UniqueId &id) {
        Rank rank(index, id);
        const size_t count = 700001;  // several chunks and a rest
        Buffer buffer(count * 4), words(16);
        std::vector<float> values(count);
        for (int round = 0; round < 3; ++round) {
            for (size_t i = 0; i < count; ++i) values[i] = float(i % 1000) * 0.1f + float(index) * 0.37f;
            buffer.set(values);
            CHECK(rank.all_reduce(buffer, count) == 0);
            auto sums = buffer.floats();
            for (size_t i = 0; i < count; i += 997) {
                float expected = 0.0f;
                for (int r = 0; r < RANKS; ++r) {
                    float part = float(i % 1000) * 0.1f + float(r) * 0.37f;
                    expected = r == 0 ? part : expected + part;  // in the order of the ranks, to the bit
                }
                CHECK(sums[i] == expected);
            }
        }
        uint64_t number[2] = {uint64_t(index) << 40, 1};
        CHECK(cuMemcpyHtoD_v2(words.pointer, number, 16) == 0);
        void *data = reinterpret_cast<void *>(uintptr_t(words.pointer));
        CHECK(ncclAllReduce(data, data, 1, UINT64, MAX, rank.communicator, rank.device.stream) == 0);
        CHECK(cuStreamSynchronize(rank.device.stream) == 0);
        CHECK(cuMemcpyDtoH_v2(number, words.pointer, 16) == 0 && number[0] == 3ull << 40);
        number[0] = uint64_t(index) + 5;
        CHECK(cuMemcpyHtoD_v2(words.pointer, number, 16) == 0);
        CHECK(ncclBroadcast(data, data, 2, UINT64, 2, rank.communicator, rank.device.stream) == 0);
        CHECK(cuStreamSynchronize(rank.device.stream) == 0);
        CHECK(cuMemcpyDtoH_v2(number, words.pointer, 16) == 0 && number[0] == 7);
        CHECK(ncclCommFinalize(rank.communicator) == 0 && ncclCommDestroy(rank.communicator) == 0);
    });
}

void in_graph() {
    all_good([](int index, const UniqueId &id) {
        Rank rank(index, id, true);
        Buffer buffer(1024);
        int n = 256;
        void *graph = nullptr, *execution = nullptr;
        buffer.set(std::vector<float>(256, 0.0f));
        CHECK(cuStreamBeginCapture_v2(rank.device.stream, 1) == 0);
        CHECK(rank.device.launch("add_one", 1, 256, {&buffer.pointer, &n}) == 0);
        CHECK(rank.all_reduce(buffer, 256) == 0);
        CHECK(cuStreamEndCapture(rank.device.stream, &graph) == 0 && cuGraphInstantiateWithFlags(&execution, graph, 0) == 0);
        for (int i = 0; i < 5; ++i) CHECK(cuGraphLaunch(execution, rank.device.stream) == 0);
        float expected = 0.0f;
        for (int i = 0; i < 5; ++i) expected = (expected + 1.0f) * RANKS;
        CHECK(buffer.floats()[100] == expected);
        CHECK(cuGraphDestroy(graph) == 0 && cuGraphExecDestroy(execution) == 0 && ncclCommDestroy(rank.communicator) == 0);
    });
}

void non_blocking() {
    all_good([](int index, const UniqueId &id) {
        Device device(false, index);
        if (index == 3) usleep(100000);
        void *communicator;
        NcclConfig config;
        config.blocking = 0;
        CHECK(ncclCommInitRankConfig(&communicator, RANKS, id, index, &config) == 7);
        int state = 7, waits = 0;
        for (; state == 7; ++waits) CHECK(ncclCommGetAsyncError(communicator, &state) == 0 && usleep(1000) == 0);
        CHECK(state == 0 && (index == 3 || waits > 20));
        CHECK(ncclCommDestroy(communicator) == 0);
    });
}

/// All ranks reduce twice; the second of rank 2 fails in some way. Returns on success of what `then` checks.
void second_fails(const std::function<void(Rank &, Buffer &)> &then, const std::vector<int> &expected) {
    auto statuses = in_ranks([&](int index, const UniqueId &id) {
        Rank rank(index, id);
        Buffer buffer(64);
        buffer.set(std::vector<float>(16, 1.0f));
        CHECK(rank.all_reduce(buffer, 16) == 0 && cuStreamSynchronize(rank.device.stream) == 0);
        CHECK(rank.all_reduce(buffer, 16) == 0);
        then(rank, buffer);
    });
    for (int rank = 0; rank < RANKS; ++rank) CHECK(statuses[size_t(rank)] == expected[size_t(rank)]);
}

void remote_error(Rank &rank, int own) {
    CHECK(cuStreamSynchronize(rank.device.stream) == 719);
    int state = 0;
    CHECK(ncclCommGetAsyncError(rank.communicator, &state) == 0 && state == (rank.rank == 2 ? own : 6));
    CHECK(ncclCommAbort(rank.communicator) == 0);
}

void vanish() {
    second_fails(
        [](Rank &rank, Buffer &buffer) {
            usleep(300000);
            CHECK(cuStreamQuery(rank.device.stream) == 600);  // it hangs, as the real one does
            int state = 1;
            CHECK(ncclCommGetAsyncError(rank.communicator, &state) == 0 && state == 0);
            std::thread watchdog([&] { CHECK(ncclCommAbort(rank.communicator) == 0); });
            CHECK(cuStreamSynchronize(rank.device.stream) == 0);
            watchdog.join();
            CHECK(std::isnan(buffer.floats()[0]));
        },
        {0, 0, 0, 0});
}

void duplicate() {
    all_good([](int index, const UniqueId &id) {
        Device device(false, index == 3 ? 1 : index);
        void *communicator = nullptr;
        int result = ncclCommInitRank(&communicator, RANKS, id, index);
        bool shared = getenv("NCCL_MULTI_RANK_GPU_ENABLE") != nullptr;
        if (shared) CHECK(result == 0 && ncclCommDestroy(communicator) == 0);
        else CHECK(result == (index == 1 || index == 3 ? 5 : 6));
    });
}

void mismatch() {
    all_good([](int index, const UniqueId &id) {
        Rank rank(index, id);
        Buffer buffer(64);
        CHECK(rank.all_reduce(buffer, index == 1 ? 15 : 16) == 0);
        CHECK(cuStreamSynchronize(rank.device.stream) == 719);
        CHECK(ncclCommAbort(rank.communicator) == 0);
    });
}

}  // namespace

void nccl_tests() {
    auto fail = [](const char *what) { return std::vector<std::pair<std::string, std::string>>{{"CRYOSPLAT_EMULATOR_FAIL", what}}; };
    test("NCCL: reductions, broadcast", {}, reductions);
    test("NCCL: in a graph", {}, in_graph);
    test("NCCL: non-blocking initialisation", {}, non_blocking);
    test("NCCL: differing counts", {0, "differs between ranks"}, mismatch);
    test("NCCL: two ranks on a device", {0, "Duplicate GPU detected"}, duplicate);
    test("NCCL: two ranks on a device, allowed",
         {0, "", {{"CRYOSPLAT_EMULATOR_NCCL_VERSION", "23000"}, {"NCCL_MULTI_RANK_GPU_ENABLE", "1"}}}, duplicate);
    test("NCCL: a rank dies", {0, "rank 2 (process", fail("nccl-die:2:2")},
         [] { second_fails([](Rank &rank, Buffer &) { remote_error(rank, 0); }, {0, 0, 128 + SIGKILL, 0}); });
    test("NCCL: a rank reports an error", {0, "has failed", fail("nccl-error:2:2")},
         [] { second_fails([](Rank &rank, Buffer &) { remote_error(rank, 2); }, {0, 0, 0, 0}); });
    test("NCCL: a rank vanishes, watchdogs abort", {0, "made to fail: nccl-vanish 2", fail("nccl-vanish:2:2")}, vanish);
    test("NCCL: initialisation fails", {0, "initialisation: rank 1", fail("nccl-init:1")}, [] {
        all_good([](int index, const UniqueId &id) {
            Device device(false, index);
            void *communicator;
            CHECK(ncclCommInitRank(&communicator, RANKS, id, index) == (index == 1 ? 2 : 6));
        });
    });
    test("NCCL: a communicator left over", {0, "leaked 1 NCCL communicators"}, [] {
        all_good([](int index, const UniqueId &id) {
            Rank rank(index, id);
            if (index > 0) CHECK(ncclCommDestroy(rank.communicator) == 0);
        });
    });
}
