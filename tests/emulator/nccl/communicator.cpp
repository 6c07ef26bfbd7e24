// Collectives over shared memory, in chunks. Each rank reduces all ranks' chunks for itself, always from rank 0 upwards.
#include "communicator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <signal.h>
#include <unistd.h>

#include "../common/injection.h"

namespace emulator {

int Communicator::fail(int error, const std::string &why) {
    int expected = state;
    while ((expected == NCCL_SUCCESS || expected == NCCL_IN_PROGRESS) && !state.compare_exchange_weak(expected, error)) {
    }
    set_last_error(why);
    report("NCCL rank %d of %d: %s", rank, ranks, why.c_str());
    return error;
}

int Communicator::begin() {
    std::string why;
    if (fails_now("nccl-init", std::to_string(rank))) {
        if (segment.attach(name, ranks, rank, uuid, &why) == 0) segment.leave(RankState::Failed);
        return fail(NCCL_SYSTEM_ERROR, "initialisation failed");
    }
    if (int error = segment.attach(name, ranks, rank, uuid, &why)) return fail(error, why);
    Waited waited = segment.wait_for_all_present(aborted, &why);
    segment.unlink();  // all have come, or it is over
    if (waited == Waited::Aborted) return fail(NCCL_INTERNAL_ERROR, "initialisation aborted");
    if (waited == Waited::PeerGone) {
        segment.leave(RankState::Failed);
        return fail(NCCL_REMOTE_ERROR, "initialisation: " + why);
    }
    const char *shared = getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    bool may_share = version() >= 23000 && shared && strcmp(shared, "1") == 0;
    for (int other = 0; other < ranks && !may_share; ++other)
        if (other != rank && memcmp(segment.slot(other).device.bytes, uuid.bytes, sizeof uuid.bytes) == 0)
            return fail(NCCL_INVALID_USAGE, "Duplicate GPU detected : rank " + std::to_string(rank) + " and rank " + std::to_string(other) +
                                                " both on CUDA device " + std::to_string(device));
    // Nobody may leave before all have looked.
    if (segment.meet(aborted, &why) != Waited::Done) return fail(NCCL_REMOTE_ERROR, "initialisation: " + why);
    state = NCCL_SUCCESS;
    return NCCL_SUCCESS;
}

Result Communicator::give_up(Waited waited, const Collective &collective, const std::string &who) {
    // The result is of no use, and shall not look as if it were.
    memset(collective.receive, 0xFF, collective.count * type_bytes(collective.type));
    if (waited == Waited::Aborted) return SUCCESS;  // as with the real one, an aborted collective simply ends
    segment.leave(RankState::Failed);
    fail(NCCL_REMOTE_ERROR, "collective " + std::to_string(operations) + ": " + who);
    return LAUNCH_FAILED;
}

Result Communicator::run(const Collective &collective) {
    std::lock_guard<std::mutex> lock(running);
    const DriverInterface &cuda = *emulator_driver_interface();
    size_t width = type_bytes(collective.type), bytes = collective.count * width;
    bool sends = collective.kind != Kind::Broadcast || rank == collective.root;
    bool receives = collective.kind != Kind::Reduce || rank == collective.root;
    if (destroyed) {
        report("NCCL rank %d: a collective of a destroyed communicator runs", rank);
        return LAUNCH_FAILED;
    }
    if (sends && cuda.check_range(collective.send, bytes, "NCCL send buffer")) return ILLEGAL_ADDRESS;
    if (receives && cuda.check_range(collective.receive, collective.kind == Kind::AllGather ? bytes * size_t(ranks) : bytes,
                                     "NCCL receive buffer"))
        return ILLEGAL_ADDRESS;
    if (aborted) return give_up(Waited::Aborted, collective, "");
    if (collective.kind == Kind::AllReduce) {
        std::string self = std::to_string(rank);
        if (fails_now("nccl-die", self)) kill(getpid(), SIGKILL);
        if (fails_now("nccl-error", self)) {
            segment.leave(RankState::Failed);
            fail(NCCL_SYSTEM_ERROR, "a collective failed");
            return LAUNCH_FAILED;
        }
        if (fails_now("nccl-vanish", self)) {
            while (!aborted) usleep(2000);
            return give_up(Waited::Aborted, collective, "");
        }
    }
    if (state != NCCL_SUCCESS) return LAUNCH_FAILED;

    std::string who;
    // All ranks first compare their calls: differing ones would exchange garbage.
    ++operations;
    Descriptor mine = {collective.count, int32_t(collective.kind), collective.type, collective.operation, collective.root};
    segment.slot(rank).descriptor[operations % 2] = mine;
    Waited waited = segment.meet(aborted, &who);
    if (waited != Waited::Done) return give_up(waited, collective, who);
    for (int other = 0; other < ranks; ++other)
        if (memcmp(&segment.slot(other).descriptor[operations % 2], &mine, sizeof mine) != 0) {
            const Descriptor &its = segment.slot(other).descriptor[operations % 2];
            fail(NCCL_INVALID_USAGE, "collective " + std::to_string(operations) + " differs between ranks: kind " + std::to_string(mine.kind) +
                                         ", count " + std::to_string(mine.count) + ", type " + std::to_string(mine.type) + " here, kind " +
                                         std::to_string(its.kind) + ", count " + std::to_string(its.count) + ", type " +
                                         std::to_string(its.type) + " on rank " + std::to_string(other));
            return LAUNCH_FAILED;
        }
    size_t step = CHUNK_BYTES / width;
    for (size_t first = 0; first < collective.count; first += step) {
        size_t count = std::min(step, collective.count - first);
        const char *from = static_cast<const char *>(collective.send) + first * width;
        char *to = static_cast<char *>(collective.receive) + first * width;
        // Two chunks take turns: a rank that fills one again has met all the others since they read it.
        ++turn;
        if (sends) memcpy(segment.chunk(rank, turn), from, count * width);
        waited = segment.meet(aborted, &who);
        if (waited != Waited::Done) return give_up(waited, collective, who);
        if (collective.kind == Kind::Broadcast) {
            memcpy(to, segment.chunk(collective.root, turn), count * width);
        } else if (collective.kind == Kind::AllGather) {
            for (int other = 0; other < ranks; ++other) memcpy(to + size_t(other) * bytes, segment.chunk(other, turn), count * width);
        } else if (receives) {
            const void *chunks[MAX_RANKS];
            for (int other = 0; other < ranks; ++other) chunks[other] = segment.chunk(other, turn);
            reduce(to, chunks, ranks, count, collective.type, collective.operation);
        }
    }
    return SUCCESS;
}

}  // namespace emulator
