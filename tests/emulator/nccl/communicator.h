// A communicator: its beginning, and the collectives as they run on a stream.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "segment.h"

namespace emulator {

enum NcclResult : int {
    NCCL_SUCCESS = 0,
    NCCL_UNHANDLED_CUDA_ERROR = 1,
    NCCL_SYSTEM_ERROR = 2,
    NCCL_INTERNAL_ERROR = 3,
    NCCL_INVALID_ARGUMENT = 4,
    NCCL_INVALID_USAGE = 5,
    NCCL_REMOTE_ERROR = 6,
    NCCL_IN_PROGRESS = 7,
};

enum class Kind : int32_t { AllReduce, Broadcast, Reduce, AllGather };

struct Collective {
    Kind kind;
    const void *send;
    void *receive;
    size_t count;
    int type, operation, root;
};

struct Communicator {
    int ranks, rank, device;
    Uuid uuid;
    bool blocking = true;
    std::string name;  // of the shared memory
    std::atomic<int> state{NCCL_IN_PROGRESS};  // result of ncclCommGetAsyncError
    std::atomic<bool> aborted{false}, destroyed{false};
    std::atomic<int> in_flight{0};
    std::atomic<int> captured{0};  // held by graphs: as with the real one, nothing of it ends before they do
    std::atomic<bool> finalizing{false};
    std::mutex running;  // one collective at a time
    std::thread beginning;
    Segment segment;
    uint64_t operations = 0, turn = 0;

    /// Meets the other ranks for the first time. Sets and returns `state`.
    int begin();
    /// Runs one collective to its end, on a stream's thread.
    Result run(const Collective &collective);
    int fail(int error, const std::string &why);

  private:
    Result give_up(Waited waited, const Collective &collective, const std::string &who);
};

/// The bytes of one element; 0 for a type the emulator does not reduce.
size_t type_bytes(int type);
/// Whether the type and the operation are supported.
bool reducible(int type, int operation);
/// to[i] = from[0][i] + from[1][i] + ... in this order (or another operation), so that results repeat to the bit.
void reduce(void *to, const void *const *from, int ranks, size_t count, int type, int operation);
int version();
void set_last_error(const std::string &text);

}  // namespace emulator
