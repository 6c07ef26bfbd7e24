// Events, also across streams and inside captures.
#include "driver.h"

using namespace emulator;

EMULATOR_EXPORT Result cuEventCreate(void **event, unsigned flags) {
    if (Result error = usable()) return error;
    auto created = std::make_shared<Event>();
    created->timing = !(flags & 2);
    created->context = current_context;
    driver().events.add(created.get(), created);
    *event = created.get();
    return SUCCESS;
}

EMULATOR_EXPORT Result cuEventDestroy_v2(void *handle) {
    if (!initialised()) return NOT_INITIALIZED;
    auto event = driver().events.take(handle);
    if (!event) return INVALID_HANDLE;
    return Result(event->context->error.load());
}

EMULATOR_EXPORT Result cuEventRecord(void *handle, void *stream_handle) {
    if (Result error = usable()) return error;
    auto event = driver().events.find(handle);
    auto stream = stream_of(stream_handle);
    if (!event || !stream) return INVALID_HANDLE;
    {
        std::lock_guard<std::mutex> lock(driver().captures_mutex);
        std::lock_guard<std::mutex> event_lock(event->mutex);
        event->capture = stream->capture;
        if (stream->capture) {
            if (stream->capture->invalid) return STREAM_CAPTURE_INVALIDATED;
            event->nodes = stream->tail;
            return SUCCESS;
        }
    }
    auto completion = std::make_shared<Completion>();
    {
        std::lock_guard<std::mutex> lock(event->mutex);
        event->recorded = completion;
    }
    // Not through submit's guard: after a failure an event still completes, else its waiters would hang.
    if (stream->blocking || stream->is_null)
        if (Result error = stream->submit("implicit order", [] { return SUCCESS; })) return error;
    stream->append("event record", [completion] {
        completion->set();
        return SUCCESS;
    });
    return SUCCESS;
}

EMULATOR_EXPORT Result cuEventRecordWithFlags(void *event, void *stream, unsigned) { return cuEventRecord(event, stream); }

EMULATOR_EXPORT Result cuStreamWaitEvent(void *stream_handle, void *handle, unsigned) {
    if (Result error = usable()) return error;
    auto event = driver().events.find(handle);
    auto stream = stream_of(stream_handle);
    if (!event || !stream) return INVALID_HANDLE;
    std::shared_ptr<Completion> completion;
    {
        std::lock_guard<std::mutex> lock(driver().captures_mutex);
        std::lock_guard<std::mutex> event_lock(event->mutex);
        if (event->capture) {
            Capture *capture = event->capture;
            if (capture->ended) return CAPTURED_EVENT;
            if (capture->invalid) return STREAM_CAPTURE_INVALIDATED;
            if (stream->is_null) return STREAM_CAPTURE_IMPLICIT;
            if (stream->capture && stream->capture != capture) {
                capture->invalid = stream->capture->invalid = true;
                return STREAM_CAPTURE_MERGE;
            }
            if (!stream->capture) {
                // A wait for a captured event draws the stream into the capture.
                stream->capture = capture;
                stream->tail.clear();
                capture->streams.insert(stream.get());
            }
            for (int node : event->nodes)
                if (!contains(stream->tail, node)) stream->tail.push_back(node);
            return SUCCESS;
        }
        completion = event->recorded;
        if (stream->capture && completion) {
            report("a captured stream waits for an event recorded outside the capture");
            stream->capture->invalid = true;
            return STREAM_CAPTURE_ISOLATION;
        }
    }
    if (!completion) return SUCCESS;  // never recorded: nothing to wait for
    stream->append("event wait", [completion] {
        completion->wait();
        return SUCCESS;
    });
    return SUCCESS;
}

EMULATOR_EXPORT Result cuEventQuery(void *handle) {
    if (Result error = usable()) return error;
    auto event = driver().events.find(handle);
    if (!event) return INVALID_HANDLE;
    std::lock_guard<std::mutex> lock(event->mutex);
    if (event->capture) return CAPTURED_EVENT;
    return !event->recorded || event->recorded->done() ? SUCCESS : NOT_READY;
}

EMULATOR_EXPORT Result cuEventSynchronize(void *handle) {
    if (Result error = usable()) return error;
    auto event = driver().events.find(handle);
    if (!event) return INVALID_HANDLE;
    std::shared_ptr<Completion> completion;
    {
        std::lock_guard<std::mutex> lock(event->mutex);
        if (event->capture) return CAPTURED_EVENT;
        completion = event->recorded;
    }
    if (completion) completion->wait();
    return Result(current_context->error.load());
}

EMULATOR_EXPORT Result cuEventElapsedTime(float *milliseconds, void *from_handle, void *to_handle) {
    if (Result error = usable()) return error;
    auto from = driver().events.find(from_handle), to = driver().events.find(to_handle);
    if (!from || !to || !from->timing || !to->timing || !from->recorded || !to->recorded) return INVALID_HANDLE;
    if (!from->recorded->done() || !to->recorded->done()) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(to->recorded->time() - from->recorded->time()).count();
    return SUCCESS;
}
EMULATOR_EXPORT Result cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) {
    return cuEventElapsedTime(milliseconds, from, to);
}
