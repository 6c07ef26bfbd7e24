// NCCL's calls.
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <random>
#include <unistd.h>
#include <unordered_map>
#include <vector>

#include "../common/injection.h"
#include "communicator.h"

EMULATOR_EXPORT Result cuStreamIsCapturing(void *stream, int *status);
EMULATOR_EXPORT Result cuCtxGetCurrent(void **context);
EMULATOR_EXPORT Result cuCtxSetCurrent(void *context);
EMULATOR_EXPORT Result cuDevicePrimaryCtxRetain(void **context, int device);

using namespace emulator;

namespace {

struct UniqueId {
    char bytes[128];
};
/// The head of ncclConfig_t, which is the same in all versions.
struct Config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

std::mutex mutex;
std::unordered_map<const void *, std::shared_ptr<Communicator>> &communicators() {
    static auto *all = new std::unordered_map<const void *, std::shared_ptr<Communicator>>;
    return *all;
}
std::shared_ptr<Communicator> find(const void *handle, bool take = false) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = communicators().find(handle);
    if (found == communicators().end()) return nullptr;
    auto communicator = found->second;
    if (take) communicators().erase(found);
    return communicator;
}

thread_local int group_depth = 0;
thread_local std::vector<std::function<int()>> group_calls;
thread_local std::vector<std::shared_ptr<Communicator>> group_beginnings;
char last_error[512];

/// Now, or at the end of the group.
int call(std::function<int()> what) {
    if (group_depth == 0) return what();
    group_calls.push_back(std::move(what));
    return NCCL_SUCCESS;
}

int start(void **handle, int ranks, const UniqueId &id, int rank, bool blocking) {
    if (!handle || ranks < 1 || ranks > MAX_RANKS || rank < 0 || rank >= ranks) return NCCL_INVALID_ARGUMENT;
    if (strncmp(id.bytes, "/cryosplat-emulator-", 20) != 0) {
        set_last_error("not a unique id of the emulated NCCL");
        return NCCL_INVALID_ARGUMENT;
    }
    auto created = std::make_shared<Communicator>();
    created->ranks = ranks, created->rank = rank, created->blocking = blocking;
    created->name = std::string(id.bytes, strnlen(id.bytes, sizeof id.bytes));
    if (emulator_driver_interface()->current_device(&created->device, &created->uuid) != SUCCESS) {
        set_last_error("no current CUDA context");
        return NCCL_UNHANDLED_CUDA_ERROR;
    }
    {
        std::lock_guard<std::mutex> lock(mutex);
        communicators()[created.get()] = created;
    }
    emulator_driver_interface()->count("NCCL communicators", 1);
    *handle = created.get();
    if (group_depth > 0) {
        group_beginnings.push_back(created);
        return NCCL_SUCCESS;
    }
    if (!blocking) {
        created->beginning = std::thread([created] { created->begin(); });
        return NCCL_IN_PROGRESS;
    }
    int result = created->begin();
    if (result != NCCL_SUCCESS) {
        find(created.get(), true);
        emulator_driver_interface()->count("NCCL communicators", -1);
        *handle = nullptr;
    }
    return result;
}

struct Payload {
    std::shared_ptr<Communicator> communicator;
    Collective collective;
    bool once;  // not captured: counted as in flight until it has run
};

int enqueue(void *handle, const Collective &collective, void *stream) {
    auto communicator = find(handle);
    if (!communicator || !reducible(collective.type, collective.operation) || collective.root < 0 ||
        collective.root >= communicator->ranks) {
        set_last_error(communicator ? "a type, operation or root that the emulated NCCL does not know" : "no such communicator");
        return NCCL_INVALID_ARGUMENT;
    }
    if (communicator->state == NCCL_IN_PROGRESS) {
        set_last_error("a collective before the communicator is ready");
        return NCCL_INVALID_USAGE;
    }
    if (communicator->state != NCCL_SUCCESS) return communicator->state;
    return call([=] {
        int capturing = 0;
        if (cuStreamIsCapturing(stream, &capturing) != SUCCESS) return int(NCCL_UNHANDLED_CUDA_ERROR);
        auto *payload = new Payload{communicator, collective, capturing == 0};
        ++(payload->once ? communicator->in_flight : communicator->captured);
        Result (*body)(void *) = [](void *data) { return static_cast<Payload *>(data)->communicator->run(static_cast<Payload *>(data)->collective); };
        auto release = [](void *data) {
            Payload *payload = static_cast<Payload *>(data);
            --(payload->once ? payload->communicator->in_flight : payload->communicator->captured);
            delete payload;
        };
        bool good = emulator_driver_interface()->enqueue(stream, "NCCL", body, payload, release) == SUCCESS;
        return int(good ? NCCL_SUCCESS : NCCL_UNHANDLED_CUDA_ERROR);
    });
}

int end(void *handle, bool abort) {
    auto communicator = find(handle, true);
    if (!communicator) return NCCL_INVALID_ARGUMENT;
    if (abort) communicator->aborted = true;
    if (communicator->beginning.joinable()) communicator->beginning.join();
    if (communicator->captured > 0) fprintf(stderr, "emulator: NCCL waits for the graphs that captured its work\n");
    while (communicator->captured > 0) usleep(200);
    // What was enqueued before the end still runs (after an abort: ends at once).
    if (!abort)
        while (communicator->in_flight > 0) usleep(200);
    std::lock_guard<std::mutex> lock(communicator->running);
    communicator->destroyed = !abort;
    // An aborted rank stays silent: as with the real one, the others must find out for themselves.
    if (!abort && communicator->state == NCCL_SUCCESS) communicator->segment.leave(RankState::Left);
    emulator_driver_interface()->count("NCCL communicators", -1);
    return NCCL_SUCCESS;
}

}  // namespace

namespace emulator {

int version() { return int(environment_number("CRYOSPLAT_EMULATOR_NCCL_VERSION", 22906)); }
void set_last_error(const std::string &text) { snprintf(last_error, sizeof last_error, "%s", text.c_str()); }

}  // namespace emulator

EMULATOR_EXPORT int ncclGetVersion(int *result) {
    *result = version();
    return NCCL_SUCCESS;
}

EMULATOR_EXPORT int ncclGetUniqueId(UniqueId *id) {
    std::random_device random;
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "/cryosplat-emulator-%08x%08x-%d", random(), random(), int(getpid()));
    return NCCL_SUCCESS;
}

EMULATOR_EXPORT const char *ncclGetErrorString(int result) {
    switch (result) {
    case NCCL_SUCCESS: return "no error";
    case NCCL_UNHANDLED_CUDA_ERROR: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case NCCL_SYSTEM_ERROR: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case NCCL_INTERNAL_ERROR: return "internal error - please report this issue to the NCCL developers";
    case NCCL_INVALID_ARGUMENT: return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case NCCL_INVALID_USAGE: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case NCCL_REMOTE_ERROR: return "remote process exited or there was a network error";
    case NCCL_IN_PROGRESS: return "NCCL operation in progress";
    default: return "unknown result code";
    }
}
EMULATOR_EXPORT const char *ncclGetLastError(void *) { return last_error; }

EMULATOR_EXPORT int ncclCommInitRank(void **communicator, int ranks, UniqueId id, int rank) { return start(communicator, ranks, id, rank, true); }
EMULATOR_EXPORT int ncclCommInitRankConfig(void **communicator, int ranks, UniqueId id, int rank, Config *config) {
    return start(communicator, ranks, id, rank, !config || config->blocking != 0);
}
EMULATOR_EXPORT int ncclGroupStart() {
    ++group_depth;
    return NCCL_SUCCESS;
}
EMULATOR_EXPORT int ncclGroupEnd() {
    if (group_depth == 0) return NCCL_INVALID_USAGE;
    if (--group_depth > 0) return NCCL_SUCCESS;
    int result = NCCL_SUCCESS;
    // Communicators begun in one group wait for each other, so each begins on a thread of its own.
    for (auto &communicator : group_beginnings) communicator->beginning = std::thread([communicator] { communicator->begin(); });
    for (auto &communicator : group_beginnings) {
        if (!communicator->blocking) {
            result = result == NCCL_SUCCESS ? NCCL_IN_PROGRESS : result;
            continue;
        }
        communicator->beginning.join();
        if (communicator->state != NCCL_SUCCESS) result = communicator->state;
    }
    group_beginnings.clear();
    auto calls = std::move(group_calls);
    group_calls.clear();
    for (auto &one : calls)
        if (int error = one()) result = error;
    return result;
}
EMULATOR_EXPORT int ncclCommInitAll(void **communicators, int count, const int *devices) {
    UniqueId id;
    void *before = nullptr, *context = nullptr;
    ncclGetUniqueId(&id);
    cuCtxGetCurrent(&before);
    ncclGroupStart();
    int result = NCCL_SUCCESS;
    for (int i = 0; i < count && result == NCCL_SUCCESS; ++i) {
        bool current = cuDevicePrimaryCtxRetain(&context, devices ? devices[i] : i) == SUCCESS && cuCtxSetCurrent(context) == SUCCESS;
        result = current ? ncclCommInitRank(&communicators[i], count, id, i) : int(NCCL_UNHANDLED_CUDA_ERROR);
    }
    int ended = ncclGroupEnd();
    cuCtxSetCurrent(before);
    return result != NCCL_SUCCESS ? result : ended;
}

EMULATOR_EXPORT int ncclCommGetAsyncError(void *handle, int *error) {
    auto communicator = find(handle);
    if (!communicator) return NCCL_INVALID_ARGUMENT;
    bool held = communicator->finalizing && communicator->captured > 0;
    *error = held && communicator->state == NCCL_SUCCESS ? int(NCCL_IN_PROGRESS) : int(communicator->state);
    return NCCL_SUCCESS;
}
EMULATOR_EXPORT int ncclCommCount(void *handle, int *count) {
    auto communicator = find(handle);
    if (!communicator) return NCCL_INVALID_ARGUMENT;
    *count = communicator->ranks;
    return NCCL_SUCCESS;
}
EMULATOR_EXPORT int ncclCommUserRank(void *handle, int *rank) {
    auto communicator = find(handle);
    if (!communicator) return NCCL_INVALID_ARGUMENT;
    *rank = communicator->rank;
    return NCCL_SUCCESS;
}
EMULATOR_EXPORT int ncclCommCuDevice(void *handle, int *device) {
    auto communicator = find(handle);
    if (!communicator) return NCCL_INVALID_ARGUMENT;
    *device = communicator->device;
    return NCCL_SUCCESS;
}
EMULATOR_EXPORT int ncclCommFinalize(void *handle) {
    auto communicator = find(handle);
    if (!communicator) return NCCL_INVALID_ARGUMENT;
    communicator->finalizing = true;
    while (communicator->blocking && communicator->captured > 0) usleep(200);
    return communicator->captured > 0 ? NCCL_IN_PROGRESS : NCCL_SUCCESS;
}
EMULATOR_EXPORT int ncclCommDestroy(void *handle) { return end(handle, false); }
EMULATOR_EXPORT int ncclCommAbort(void *handle) { return end(handle, true); }

EMULATOR_EXPORT int ncclAllReduce(const void *send, void *receive, size_t count, int type, int operation, void *communicator, void *stream) {
    return enqueue(communicator, {Kind::AllReduce, send, receive, count, type, operation, 0}, stream);
}
EMULATOR_EXPORT int ncclBroadcast(const void *send, void *receive, size_t count, int type, int root, void *communicator, void *stream) {
    return enqueue(communicator, {Kind::Broadcast, send, receive, count, type, 0, root}, stream);
}
EMULATOR_EXPORT int ncclBcast(void *data, size_t count, int type, int root, void *communicator, void *stream) {
    return ncclBroadcast(data, data, count, type, root, communicator, stream);
}
EMULATOR_EXPORT int ncclReduce(const void *send, void *receive, size_t count, int type, int operation, int root, void *communicator, void *stream) {
    return enqueue(communicator, {Kind::Reduce, send, receive, count, type, operation, root}, stream);
}
EMULATOR_EXPORT int ncclAllGather(const void *send, void *receive, size_t count, int type, void *communicator, void *stream) {
    return enqueue(communicator, {Kind::AllGather, send, receive, count, type, 0, 0}, stream);
}
