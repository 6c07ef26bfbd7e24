// Modules: loading a compiled kernel library, its functions and their limits.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include "../common/container.h"
#include "driver.h"
#include "fibers.h"
#include "sanitizer.h"

namespace emulator {
namespace {

struct Symbols {
    std::vector<SharedSpan> shared;  // offsets within the thread-local block
    struct Variable {
        std::string name;
        size_t offset, bytes;
    };
    std::vector<Variable> variables;
};

/// Thread-local symbols are shared variables; data objects under a name of C are __constant__ and __device__ variables.
Symbols read_symbols(const std::string &library) {
    Symbols result;
    const char *base = library.data();
    const auto *header = reinterpret_cast<const Elf64_Ehdr *>(base);
    const auto *sections = reinterpret_cast<const Elf64_Shdr *>(base + header->e_shoff);
    for (unsigned i = 0; i < header->e_shnum; ++i) {
        if (sections[i].sh_type != SHT_SYMTAB) continue;
        const auto *symbols = reinterpret_cast<const Elf64_Sym *>(base + sections[i].sh_offset);
        const char *names = base + sections[sections[i].sh_link].sh_offset;
        for (size_t k = 0; k < sections[i].sh_size / sizeof(Elf64_Sym); ++k) {
            const Elf64_Sym &symbol = symbols[k];
            std::string name = names + symbol.st_name;
            if (symbol.st_shndx == SHN_UNDEF) continue;
            if (ELF64_ST_TYPE(symbol.st_info) == STT_TLS)
                result.shared.push_back({name, ptrdiff_t(symbol.st_value), symbol.st_size});
            else if (ELF64_ST_TYPE(symbol.st_info) == STT_OBJECT && symbol.st_size > 0 && name[0] != '_' && name.compare(0, 9, "emulator_") != 0)
                result.variables.push_back({name, symbol.st_value, symbol.st_size});
        }
    }
    return result;
}

Result load(const void *image, void **handle) {
    if (Result error = usable()) return error;
    if (Result error = forbidden_in_capture()) return error;
    if (fails_now("load")) return SHARED_OBJECT_INIT_FAILED;
    std::string library;
    if (!image || !unwrap(image, &library)) {
        report("module load: this is no module that the emulated NVRTC compiled");
        return INVALID_IMAGE;
    }
    const char *folder = getenv("TMPDIR");
    std::string path = std::string(folder && *folder ? folder : "/tmp") + "/cryosplat-emulator-module-XXXXXX";
    int file = mkstemp(&path[0]);
    bool written = file >= 0 && write(file, library.data(), library.size()) == ssize_t(library.size());
    if (file >= 0) close(file);
    void *opened = written ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!opened) report("module load: %s: %s", path.c_str(), written ? dlerror() : "cannot be written");
    if (!opened || !sanitizing()) unlink(path.c_str());  // the sanitizer reads source lines from it later
    if (!opened) return written ? INVALID_IMAGE : OPERATING_SYSTEM;
    const Module *description = static_cast<const Module *>(dlsym(opened, "emulator_module"));
    if (!description || description->version != MODULE_VERSION) {
        report("module load: compiled for another version of the emulator; empty the kernel cache");
        dlclose(opened);
        return INVALID_IMAGE;
    }
    description->attach(kernel_runtime());
    auto module = std::make_shared<LoadedModule>();
    module->context = current_context;
    module->library = opened;
    module->description = description;
    module->file = path;
    Symbols symbols = read_symbols(library);
    Dl_info loaded;
    char *base = dladdr(description, &loaded) ? static_cast<char *>(loaded.dli_fbase) : nullptr;
    for (auto &variable : symbols.variables) {
        char *address = base + variable.offset;
        current_context->device->memory.add_module_variable(address, variable.bytes);
        module->variables.push_back({variable.name, {address, variable.bytes}});
    }
    ptrdiff_t anchor = 0;
    for (auto &span : symbols.shared)
        if (span.name == "emulator_shared_anchor") anchor = span.offset;
    for (auto &span : symbols.shared) span.offset -= anchor;
    module->shared = std::move(symbols.shared);
    driver().modules.add(module.get(), module);
    *handle = module.get();
    return SUCCESS;
}

/// A function's own static variables are named _ZZ<length><function>....
bool belongs(const std::string &span, const char *kernel) {
    std::string prefix = "_ZZ" + std::to_string(strlen(kernel)) + kernel;
    return span.compare(0, prefix.size(), prefix) == 0;
}

}  // namespace
}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT Result cuModuleLoadData(void **module, const void *image) { return load(image, module); }
EMULATOR_EXPORT Result cuModuleLoadDataEx(void **module, const void *image, unsigned, void *, void **) { return load(image, module); }
EMULATOR_EXPORT Result cuModuleLoad(void **module, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return FILE_NOT_FOUND;
    std::string image;
    char part[65536];
    for (size_t got; (got = fread(part, 1, sizeof part, file)) > 0;) image.append(part, got);
    fclose(file);
    return load(image.c_str(), module);
}

EMULATOR_EXPORT Result cuModuleUnload(void *handle) {
    if (!initialised()) return NOT_INITIALIZED;
    auto module = driver().modules.take(handle);
    if (!module) return INVALID_HANDLE;
    module->context->wait_for_all();
    for (auto &variable : module->variables) module->context->device->memory.remove_module_variable(variable.second.first);
    if (sanitizing()) unlink(module->file.c_str());
    driver().functions.drop([&](const Function &function) { return function.module == module.get(); });
    // The library itself stays open: a captured graph may still name its kernels, and a stray launch is then an error
    // that can be reported.
    return Result(module->context->error.load());
}

EMULATOR_EXPORT Result cuModuleGetFunction(void **function, void *handle, const char *name) {
    if (Result error = usable()) return error;
    auto module = driver().modules.find(handle);
    if (!module) return INVALID_HANDLE;
    const Module &description = *module->description;
    for (uint32_t i = 0; i < description.kernel_count; ++i) {
        const Kernel &kernel = description.kernels[i];
        if (strcmp(kernel.name, name) != 0) continue;
        auto created = std::make_shared<Function>();
        created->module = module.get();
        created->kernel = &kernel;
        for (const SharedSpan &span : module->shared) {
            bool of_another = span.name == "emulator_shared_anchor";
            for (uint32_t k = 0; k < description.kernel_count; ++k)
                if (k != i && belongs(span.name, description.kernels[k].name)) of_another = true;
            if (of_another) continue;
            created->shared.push_back(span);
            // What a __device__ function declares is poisoned for each kernel, but counted for none: not all call it.
            if (belongs(span.name, name)) created->static_shared += span.bytes;
        }
        driver().functions.add(created.get(), created);
        *function = created.get();
        return SUCCESS;
    }
    return NOT_FOUND;
}

EMULATOR_EXPORT Result cuModuleGetGlobal_v2(DevicePointer *pointer, size_t *bytes, void *handle, const char *name) {
    if (Result error = usable()) return error;
    auto module = driver().modules.find(handle);
    if (!module) return INVALID_HANDLE;
    for (auto &variable : module->variables)
        if (variable.first == name) {
            if (pointer) *pointer = DevicePointer(uintptr_t(variable.second.first));
            if (bytes) *bytes = variable.second.second;
            return SUCCESS;
        }
    return NOT_FOUND;
}

EMULATOR_EXPORT Result cuFuncGetAttribute(int *value, int which, void *handle) {
    if (Result error = usable()) return error;
    auto function = driver().functions.find(handle);
    if (!function) return INVALID_HANDLE;
    switch (which) {
    case 0: *value = function->kernel->max_threads ? int(function->kernel->max_threads) : 1024; return SUCCESS;
    case 1: *value = int(function->static_shared); return SUCCESS;
    case 4: *value = 32; return SUCCESS;  // registers: a plausible number; the emulator has none
    case 5: case 6: *value = 90; return SUCCESS;
    case 8: *value = function->max_dynamic_shared; return SUCCESS;
    case 9: *value = function->carveout; return SUCCESS;
    default: *value = 0; return which >= 0 && which <= 15 ? SUCCESS : INVALID_VALUE;
    }
}

EMULATOR_EXPORT Result cuFuncSetAttribute(void *handle, int which, int value) {
    if (Result error = usable()) return error;
    auto function = driver().functions.find(handle);
    if (!function) return INVALID_HANDLE;
    if (which == 9) {
        function->carveout = value;
        return value >= -1 && value <= 100 ? SUCCESS : INVALID_VALUE;
    }
    if (which != 8 || value < 0 || size_t(value) + function->static_shared > 227 * 1024) return INVALID_VALUE;
    function->max_dynamic_shared = value;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuFuncSetCacheConfig(void *handle, int) { return driver().functions.find(handle) ? usable() : INVALID_HANDLE; }

EMULATOR_EXPORT Result cuFuncGetName(const char **name, void *handle) {
    auto function = driver().functions.find(handle);
    if (!function) return INVALID_HANDLE;
    *name = function->kernel->name;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *handle, int threads, size_t dynamic) {
    if (Result error = usable()) return error;
    auto function = driver().functions.find(handle);
    if (!function) return INVALID_HANDLE;
    if (threads < 1) return INVALID_VALUE;
    size_t shared = function->static_shared + dynamic + 1024;
    int by_threads = 2048 / ((threads + 31) / 32 * 32), by_shared = int(228 * 1024 / shared);
    *blocks = threads > 1024 ? 0 : std::min(32, std::min(by_threads, by_shared));
    return SUCCESS;
}
EMULATOR_EXPORT Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, void *function, int threads, size_t dynamic,
                                                                            unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, dynamic);
}
EMULATOR_EXPORT Result cuOccupancyAvailableDynamicSMemPerBlock(size_t *bytes, void *handle, int blocks, int) {
    auto function = driver().functions.find(handle);
    if (!function || blocks < 1) return INVALID_HANDLE;
    size_t each = 228 * 1024 / size_t(blocks), taken = function->static_shared + 1024;
    *bytes = std::min(each > taken ? each - taken : 0, size_t(227 * 1024));
    return usable();
}
EMULATOR_EXPORT Result cuOccupancyMaxPotentialBlockSize(int *grid, int *block, void *handle, size_t (*dynamic_of)(int), size_t dynamic,
                                                        int limit) {
    if (Result error = usable()) return error;
    auto function = driver().functions.find(handle);
    if (!function) return INVALID_HANDLE;
    int largest = function->kernel->max_threads ? int(function->kernel->max_threads) : 1024;
    if (limit > 0 && limit < largest) largest = limit;
    *block = largest;
    int blocks = 0;
    Result result = cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, handle, largest, dynamic_of ? dynamic_of(largest) : dynamic);
    *grid = blocks * 132;
    return result;
}
EMULATOR_EXPORT Result cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block, void *function, size_t (*dynamic_of)(int),
                                                                 size_t dynamic, int limit, unsigned) {
    return cuOccupancyMaxPotentialBlockSize(grid, block, function, dynamic_of, dynamic, limit);
}
