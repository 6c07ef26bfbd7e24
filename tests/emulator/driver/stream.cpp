// Streams: each has a system thread of its own, so that missing synchronisation shows.
#include <ctime>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "driver.h"
#include "sanitizer.h"

namespace emulator {
namespace {

std::atomic<uint64_t> streams_created{0};

/// A pause before an operation, of a length that differs from one to the next but repeats from run to run.
void jitter(uint64_t &state) {
    static const long long longest = environment_number("CRYOSPLAT_EMULATOR_JITTER", 0);
    if (longest <= 0) return;
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    long long microseconds = (long long)((state >> 33) % uint64_t(longest + 1));
    timespec pause = {time_t(microseconds / 1000000), long(microseconds % 1000000 * 1000)};
    nanosleep(&pause, nullptr);
}

/// A stack for signal handlers, so that a kernel thread's overflown stack can be reported.
void give_signal_stack() {
    constexpr size_t bytes = 128 * 1024;
    static thread_local bool given = false;
    if (given || sanitizing()) return;  // the sanitizer gives each thread one itself, and takes it back
    given = true;
    stack_t stack = {};
    stack.ss_sp = new char[bytes];
    stack.ss_size = bytes;
    sigaltstack(&stack, nullptr);
}

/// Looks a few times whether `ready`, letting others run in between: waking a sleeping thread takes far longer than most
/// operations here.
template <class Ready>
void linger(Ready ready) {
    for (int i = 0; i < 40 && !ready(); ++i) sched_yield();
}

}  // namespace

void Completion::set() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        time_ = std::chrono::steady_clock::now();
        done_.store(true, std::memory_order_release);
    }
    changed_.notify_all();
}

void Completion::wait() {
    if (done()) return;
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return done(); });
}

std::shared_ptr<Stream> Stream::create(Context *context, bool blocking, bool is_null) {
    auto stream = std::make_shared<Stream>();
    stream->context = context;
    stream->blocking = blocking;
    stream->is_null = is_null;
    stream->number = ++streams_created;
    // Signals sent to the program (to checkpoint, to end) are for its own threads.
    sigset_t all, before;
    sigfillset(&all);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([stream] { stream->serve(); }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return stream;
}

void Stream::serve() {
    give_signal_stack();
    current_context = context;
    uint64_t pause_state = number * 7919;
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
        if (queue.empty() && !closing) {
            lock.unlock();
            linger([this] { return enqueued != finished; });
            lock.lock();
        }
        changed.wait(lock, [this] { return !queue.empty() || closing; });
        if (queue.empty()) return;
        auto [label, work] = std::move(queue.front());
        queue.pop_front();
        lock.unlock();
        jitter(pause_state);
        // After a failure nothing runs any more, but what waits for this operation must be let go.
        Result result = work();
        if (result != SUCCESS) context->break_with(result, std::string(label) + " failed with error " + std::to_string(result));
        work = nullptr;
        lock.lock();
        ++finished;
        changed.notify_all();
    }
}

uint64_t Stream::append(const char *label, Work work) {
    std::lock_guard<std::mutex> lock(mutex);
    queue.emplace_back(label, std::move(work));
    changed.notify_all();
    return ++enqueued;
}

void Stream::wait_until(uint64_t ticket) {
    linger([&] { return finished >= ticket; });
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return finished >= ticket; });
}

void Stream::wait_idle() { wait_until(enqueued); }

bool Stream::idle() {
    std::lock_guard<std::mutex> lock(mutex);
    return finished == enqueued;
}

void Stream::close() {
    std::lock_guard<std::mutex> lock(mutex);
    closing = true;
    changed.notify_all();
}

Result Stream::submit(const char *label, Work work) {
    Context *its = context;
    Work guarded = [its, work = std::move(work)] { return its->error == SUCCESS ? work() : SUCCESS; };
    {
        std::lock_guard<std::mutex> lock(driver().captures_mutex);
        if (capture) {
            if (capture->invalid) return STREAM_CAPTURE_INVALIDATED;
            capture->nodes.push_back(Node{label, std::move(guarded), tail, number});
            tail.assign(1, int(capture->nodes.size()) - 1);
            return SUCCESS;
        }
        if (is_null)
            for (auto &other : driver().captures)
                for (Stream *stream : other->streams)
                    if (stream->blocking && stream->context == context) {
                        other->invalid = true;
                        return STREAM_CAPTURE_IMPLICIT;
                    }
    }
    // The null stream waits for all blocking streams, and they for it.
    std::vector<std::shared_ptr<Stream>> before;
    if (is_null) {
        std::lock_guard<std::mutex> lock(context->mutex);
        for (auto &stream : context->streams)
            if (stream->blocking) before.push_back(stream);
    } else if (blocking) {
        before.push_back(context->null_stream);
    }
    for (auto &other : before) {
        uint64_t ticket;
        {
            std::lock_guard<std::mutex> lock(other->mutex);
            if (other->finished == other->enqueued) continue;
            ticket = other->enqueued;
        }
        append("implicit wait", [other, ticket] {
            other->wait_until(ticket);
            return SUCCESS;
        });
    }
    append(label, std::move(guarded));
    return SUCCESS;
}

std::shared_ptr<Stream> stream_of(void *handle) {
    if (uintptr_t(handle) <= 2) return current_context ? current_context->null_stream : nullptr;
    auto stream = driver().streams.find(handle);
    return stream && stream->context == current_context ? stream : nullptr;
}

Result enqueue_host_function(Stream &stream, void (*function)(void *), void *data) {
    return stream.submit("host function", [function, data] {
        in_host_function = true;
        function(data);
        in_host_function = false;
        return SUCCESS;
    });
}

}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT Result cuStreamCreate(void **stream, unsigned flags) {
    if (Result error = usable()) return error;
    if (flags > 1) return INVALID_VALUE;
    if (fails_now("stream")) return OUT_OF_MEMORY;
    auto created = Stream::create(current_context, flags == 0, false);
    {
        std::lock_guard<std::mutex> lock(current_context->mutex);
        current_context->streams.insert(created);
    }
    driver().streams.add(created.get(), created);
    *stream = created.get();
    return SUCCESS;
}

EMULATOR_EXPORT Result cuStreamCreateWithPriority(void **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

EMULATOR_EXPORT Result cuStreamDestroy_v2(void *handle) {
    if (!initialised()) return NOT_INITIALIZED;
    auto stream = driver().streams.take(handle);
    if (!stream) return INVALID_HANDLE;
    {
        // A stream destroyed while captured ends the capture.
        std::lock_guard<std::mutex> lock(driver().captures_mutex);
        if (stream->capture) {
            stream->capture->invalid = true;
            stream->capture->streams.erase(stream.get());
            if (stream->capture->origin == stream.get()) stream->capture->origin = nullptr;
            stream->capture = nullptr;
        }
    }
    {
        std::lock_guard<std::mutex> lock(stream->context->mutex);
        stream->context->streams.erase(stream);
    }
    stream->close();  // what is queued still runs
    return Result(stream->context->error.load());
}

EMULATOR_EXPORT Result cuStreamSynchronize(void *handle) {
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (Result error = forbidden_on(*stream)) return error;
    stream->wait_idle();
    return Result(current_context->error.load());
}

EMULATOR_EXPORT Result cuStreamQuery(void *handle) {
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (Result error = forbidden_on(*stream)) return error;
    bool idle = stream->idle();
    if (int error = current_context->error) return Result(error);
    return idle ? SUCCESS : NOT_READY;
}

EMULATOR_EXPORT Result cuStreamGetCtx(void *handle, Context **context) {
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *context = stream->context;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuStreamGetPriority(void *handle, int *priority) {
    *priority = 0;
    return stream_of(handle) ? usable() : INVALID_HANDLE;
}

EMULATOR_EXPORT Result cuStreamGetFlags(void *handle, unsigned *flags) {
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *flags = stream->blocking ? 0 : 1;
    return usable();
}

EMULATOR_EXPORT Result cuLaunchHostFunc(void *handle, void (*function)(void *), void *data) {
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (!function) return INVALID_VALUE;
    return enqueue_host_function(*stream, function, data);
}
