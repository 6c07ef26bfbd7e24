// NVRTC's calls.
#include <cstring>
#include <mutex>
#include <set>

#include "../common/container.h"
#include "../common/cuda_types.h"
#include "compiler.h"

namespace {

enum NvrtcResult : int {
    NVRTC_SUCCESS = 0,
    NVRTC_ERROR_INVALID_INPUT = 3,
    NVRTC_ERROR_INVALID_PROGRAM = 4,
    NVRTC_ERROR_COMPILATION = 6,
    NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION = 9,
    NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID = 10,
};

struct Program {
    emulator::Source source;
    emulator::Compiled compiled;
    std::string cubin, ptx;
};

std::mutex programs_mutex;
std::set<const void *> &programs() {
    static auto *all = new std::set<const void *>;
    return *all;
}
bool known(const void *program) {
    std::lock_guard<std::mutex> lock(programs_mutex);
    return programs().count(program) != 0;
}

NvrtcResult size_of(const Program *program, const std::string Program::*text, size_t extra, size_t *size) {
    if (!known(program)) return NVRTC_ERROR_INVALID_PROGRAM;
    if (!program->compiled.good) return NVRTC_ERROR_INVALID_PROGRAM;
    *size = (program->*text).size() + extra;
    return NVRTC_SUCCESS;
}

}  // namespace

EMULATOR_EXPORT const char *nvrtcGetErrorString(int result) {
    switch (result) {
    case 0: return "NVRTC_SUCCESS";
    case 1: return "NVRTC_ERROR_OUT_OF_MEMORY";
    case 2: return "NVRTC_ERROR_PROGRAM_CREATION_FAILURE";
    case 3: return "NVRTC_ERROR_INVALID_INPUT";
    case 4: return "NVRTC_ERROR_INVALID_PROGRAM";
    case 5: return "NVRTC_ERROR_INVALID_OPTION";
    case 6: return "NVRTC_ERROR_COMPILATION";
    case 9: return "NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION";
    case 10: return "NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID";
    default: return "NVRTC_ERROR unknown";
    }
}

EMULATOR_EXPORT int nvrtcVersion(int *major, int *minor) {
    *major = 12, *minor = 9;
    return NVRTC_SUCCESS;
}

EMULATOR_EXPORT int nvrtcGetNumSupportedArchs(int *count) {
    *count = 3;
    return NVRTC_SUCCESS;
}

EMULATOR_EXPORT int nvrtcGetSupportedArchs(int *architectures) {
    architectures[0] = 80, architectures[1] = 90, architectures[2] = 100;
    return NVRTC_SUCCESS;
}

EMULATOR_EXPORT int nvrtcCreateProgram(Program **result, const char *text, const char *name, int count, const char *const *headers,
                                       const char *const *names) {
    if (!result || !text || count < 0) return NVRTC_ERROR_INVALID_INPUT;
    Program *program = new Program;
    program->source.text = text;
    program->source.name = name ? name : "";
    for (int i = 0; i < count; ++i) program->source.headers.push_back({names[i], headers[i]});
    std::lock_guard<std::mutex> lock(programs_mutex);
    programs().insert(program);
    *result = program;
    return NVRTC_SUCCESS;
}

EMULATOR_EXPORT int nvrtcDestroyProgram(Program **program) {
    {
        std::lock_guard<std::mutex> lock(programs_mutex);
        if (!program || programs().erase(*program) == 0) return NVRTC_ERROR_INVALID_PROGRAM;
    }
    // cudarc passes a pointer to a constant, so it is not set to null.
    delete *program;
    return NVRTC_SUCCESS;
}

EMULATOR_EXPORT int nvrtcCompileProgram(Program *program, int count, const char *const *options) {
    if (!known(program)) return NVRTC_ERROR_INVALID_PROGRAM;
    program->compiled = emulator::compile(program->source, std::vector<std::string>(options, options + count));
    if (!program->compiled.good) return NVRTC_ERROR_COMPILATION;
    program->cubin = emulator::wrap_cubin(program->compiled.library);
    program->ptx = emulator::wrap_ptx(program->compiled.library);
    return NVRTC_SUCCESS;
}

EMULATOR_EXPORT int nvrtcGetCUBINSize(Program *program, size_t *size) { return size_of(program, &Program::cubin, 0, size); }
EMULATOR_EXPORT int nvrtcGetCUBIN(Program *program, char *to) {
    if (!known(program) || !program->compiled.good) return NVRTC_ERROR_INVALID_PROGRAM;
    memcpy(to, program->cubin.data(), program->cubin.size());
    return NVRTC_SUCCESS;
}
EMULATOR_EXPORT int nvrtcGetPTXSize(Program *program, size_t *size) { return size_of(program, &Program::ptx, 1, size); }
EMULATOR_EXPORT int nvrtcGetPTX(Program *program, char *to) {
    if (!known(program) || !program->compiled.good) return NVRTC_ERROR_INVALID_PROGRAM;
    memcpy(to, program->ptx.c_str(), program->ptx.size() + 1);
    return NVRTC_SUCCESS;
}

EMULATOR_EXPORT int nvrtcGetProgramLogSize(Program *program, size_t *size) {
    if (!known(program)) return NVRTC_ERROR_INVALID_PROGRAM;
    *size = program->compiled.log.size() + 1;
    return NVRTC_SUCCESS;
}
EMULATOR_EXPORT int nvrtcGetProgramLog(Program *program, char *to) {
    if (!known(program)) return NVRTC_ERROR_INVALID_PROGRAM;
    memcpy(to, program->compiled.log.c_str(), program->compiled.log.size() + 1);
    return NVRTC_SUCCESS;
}

// Kernels are extern "C" here, so there is no name to look up.
EMULATOR_EXPORT int nvrtcAddNameExpression(Program *, const char *) { return NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID; }
EMULATOR_EXPORT int nvrtcGetLoweredName(Program *, const char *, const char **) {
    return NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION;
}
