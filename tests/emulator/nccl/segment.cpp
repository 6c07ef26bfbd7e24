// POSIX shared memory and a futex. A rank that waits looks every few milliseconds whether the others are still alive.
#include "segment.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace emulator {
namespace {

/// When a process was started, in the kernel's ticks; 0 if it has ended (also while nobody has waited for it yet).
uint64_t start_of(int process) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", process);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *after_name = strrchr(text, ')');
    char state = 0;
    unsigned long long started = 0;
    if (!after_name || sscanf(after_name + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state,
                              &started) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : started;
}

double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

}  // namespace

Segment::~Segment() {
    if (header_) munmap(header_, bytes_);
}

int Segment::attach(const std::string &name, int ranks, int rank, const Uuid &device, std::string *error) {
    name_ = name, count_ = ranks, rank_ = rank;
    size_t head = (sizeof(Header) + 4095) / 4096 * 4096;
    bytes_ = head + size_t(ranks) * 2 * CHUNK_BYTES;
    int file = shm_open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    // All ranks give it the same length, and new memory is all zeros, which is a valid beginning: nobody need be the first.
    if (file < 0 || ftruncate(file, off_t(bytes_)) != 0) {
        *error = "shared memory " + name + ": " + strerror(errno);
        if (file >= 0) close(file);
        return 2;
    }
    void *memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) {
        *error = "shared memory " + name + ": " + strerror(errno);
        return 2;
    }
    header_ = static_cast<Header *>(memory);
    data_ = static_cast<char *>(memory) + head;
    uint32_t none = 0;
    if (!header_->ranks_wanted.compare_exchange_strong(none, uint32_t(ranks)) && none != uint32_t(ranks)) {
        *error = "another rank of this unique id expects " + std::to_string(none) + " ranks, this one " + std::to_string(ranks);
        return 4;
    }
    RankSlot &mine = slot(rank);
    mine.process = int32_t(getpid());
    mine.started = start_of(mine.process);
    mine.device = device;
    RankState absent = RankState::Absent;
    if (!mine.state.compare_exchange_strong(absent, RankState::Present)) {
        *error = "rank " + std::to_string(rank) + " is taken";
        return 4;
    }
    wake();
    return 0;
}

void Segment::unlink() { shm_unlink(name_.c_str()); }

void Segment::wake() {
    header_->signal.fetch_add(1);
    syscall(SYS_futex, &header_->signal, FUTEX_WAKE, 1 << 30, nullptr, nullptr, 0);
}

void Segment::leave(RankState state) {
    if (!header_) return;
    slot(rank_).state = state;
    wake();
}

bool Segment::gone(int rank, std::string *who) {
    RankSlot &other = slot(rank);
    RankState state = other.state;
    const char *how = nullptr;
    if (state == RankState::Failed) how = "has failed";
    else if (state == RankState::Left) how = "has destroyed its communicator";
    else if (state == RankState::Present && start_of(other.process) != other.started) how = "has ended";
    if (!how) return false;
    *who = "rank " + std::to_string(rank) + " (process " + std::to_string(other.process) + ") " + how;
    return true;
}

template <class Ready>
Waited Segment::wait(Ready ready, const std::atomic<bool> &aborted, std::string *who) {
    double next_look = seconds() + 0.02;
    for (int round = 0;; ++round) {
        uint32_t seen = header_->signal;
        if (ready(-1)) return Waited::Done;
        if (aborted) return Waited::Aborted;
        if (round < 20) {  // the others are often just about to come
            sched_yield();
            continue;
        }
        if (seconds() >= next_look) {
            for (int rank = 0; rank < count_; ++rank)
                if (rank != rank_ && !ready(rank) && gone(rank, who)) return ready(rank) ? Waited::Done : Waited::PeerGone;
            next_look = seconds() + 0.02;
        }
        timespec pause = {0, 5000000};
        syscall(SYS_futex, &header_->signal, FUTEX_WAIT, seen, &pause, nullptr, 0);
    }
}

Waited Segment::meet(const std::atomic<bool> &aborted, std::string *who) {
    uint64_t meeting = slot(rank_).arrived.fetch_add(1) + 1;
    wake();
    // Of one rank, or (-1) of all: whether it has come.
    auto ready = [&](int which) {
        for (int rank = 0; rank < count_; ++rank)
            if ((which < 0 || rank == which) && slot(rank).arrived.load() < meeting) return false;
        return true;
    };
    return wait(ready, aborted, who);
}

Waited Segment::wait_for_all_present(const std::atomic<bool> &aborted, std::string *who) {
    auto ready = [&](int which) {
        for (int rank = 0; rank < count_; ++rank)
            if ((which < 0 || rank == which) && slot(rank).state == RankState::Absent) return false;
        return true;
    };
    Waited result = wait(ready, aborted, who);
    for (int rank = 0; rank < count_ && result == Waited::Done; ++rank)
        if (rank != rank_ && slot(rank).state == RankState::Failed && gone(rank, who)) result = Waited::PeerGone;
    return result;
}

}  // namespace emulator
