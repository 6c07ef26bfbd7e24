// The memory that a communicator's ranks share, and waiting in it for each other.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "../common/cuda_types.h"

namespace emulator {

constexpr int MAX_RANKS = 128;
constexpr size_t CHUNK_BYTES = 512 * 1024;

enum class RankState : uint32_t { Absent, Present, Failed, Left };
enum class Waited { Done, Aborted, PeerGone };

/// What a rank is about to do; all ranks must be about to do the same.
struct Descriptor {
    uint64_t count;
    int32_t kind, type, operation, root;
};

struct RankSlot {
    std::atomic<RankState> state;
    int32_t process;
    uint64_t started;  // when the process began, so that a reused number is not taken for it
    Uuid device;
    std::atomic<uint64_t> arrived;  // number of meetings that this rank has reached
    Descriptor descriptor[2];       // of even and odd operations
};

class Segment {
  public:
    ~Segment();
    /// Maps the memory named by the unique id and takes the rank's place in it. An NCCL error number, and why in `*error`.
    int attach(const std::string &name, int ranks, int rank, const Uuid &device, std::string *error);
    /// Takes the name away: nobody else can attach.
    void unlink();

    RankSlot &slot(int rank) { return header_->ranks[rank]; }
    /// One of the two chunks of a rank; they take turns.
    char *chunk(int rank, uint64_t turn) { return data_ + (size_t(rank) * 2 + turn % 2) * CHUNK_BYTES; }
    int ranks() const { return count_; }

    /// Waits until every rank has come as often as this one, or `aborted` is set, or a rank is gone for good.
    Waited meet(const std::atomic<bool> &aborted, std::string *who);
    Waited wait_for_all_present(const std::atomic<bool> &aborted, std::string *who);
    void wake();
    void leave(RankState state);

  private:
    struct Header {
        std::atomic<uint32_t> ranks_wanted;
        std::atomic<uint32_t> signal;  // a futex: changes whenever anything did
        RankSlot ranks[MAX_RANKS];
    };
    template <class Ready>
    Waited wait(Ready ready, const std::atomic<bool> &aborted, std::string *who);
    bool gone(int rank, std::string *who);
    Header *header_ = nullptr;
    char *data_ = nullptr;
    size_t bytes_ = 0;
    std::string name_;
    int count_ = 0, rank_ = 0;
};

}  // namespace emulator
