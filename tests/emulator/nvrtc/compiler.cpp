// Preprocess, prepare, compile: three steps in a temporary folder. What was compiled is kept beside the library, named by a
// hash of all that went into it, so that tests which start many processes compile each source once.
#include "compiler.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/cuda_types.h"
#include "../common/injection.h"
#include "prepare.h"

extern char **environ;

namespace emulator {
namespace {

std::string read_file(const std::string &path) {
    std::string text;
    if (FILE *file = fopen(path.c_str(), "rb")) {
        char part[65536];
        for (size_t got; (got = fread(part, 1, sizeof part, file)) > 0;) text.append(part, got);
        fclose(file);
    }
    return text;
}

bool write_file(const std::string &path, const std::string &text) {
    FILE *file = fopen(path.c_str(), "wb");
    if (!file) return false;
    bool good = fwrite(text.data(), 1, text.size(), file) == text.size();
    return fclose(file) == 0 && good;
}

/// Where this library lies; the kernel-side headers are in `kernel/` beside it.
std::string library_folder() {
    Dl_info information;
    dladdr(reinterpret_cast<void *>(&compile), &information);
    std::string path = information.dli_fname;
    char *real = realpath(path.c_str(), nullptr);
    if (real) path = real, free(real);
    size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

void make_parents(const std::string &path) {
    for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1))
        mkdir(path.substr(0, slash).c_str(), 0777);
}

void remove_tree(const std::string &folder) {
    if (DIR *open = opendir(folder.c_str())) {
        while (dirent *entry = readdir(open)) {
            std::string name = entry->d_name, path = folder + "/" + name;
            struct stat status;
            if (name == "." || name == ".." || lstat(path.c_str(), &status) != 0) continue;
            if (S_ISDIR(status.st_mode)) remove_tree(path);
            else unlink(path.c_str());
        }
        closedir(open);
    }
    rmdir(folder.c_str());
}

int run(const std::vector<std::string> &command, const std::string &folder, std::string *log) {
    std::vector<char *> arguments;
    for (const std::string &word : command) arguments.push_back(const_cast<char *>(word.c_str()));
    arguments.push_back(nullptr);
    // The compiler is no part of the program under test: it must not be sanitised with it.
    std::vector<char *> environment;
    for (char **entry = environ; *entry; ++entry)
        if (strncmp(*entry, "LD_PRELOAD=", 11) != 0 && strncmp(*entry, "LD_LIBRARY_PATH=", 16) != 0) environment.push_back(*entry);
    environment.push_back(nullptr);
    std::string output = folder + "/emulator_log";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    // From within the folder, so that messages name files as the program does and not by where they lie today.
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    pid_t child;
    int status = -1, error = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
        *log += "cannot run the host compiler " + command[0] + ": " + strerror(error) + "\n";
        return -1;
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) break;
    *log += read_file(output);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// NVRTC's -D, -U, -I and --std in all the ways they may be written.
std::vector<std::string> host_options(const std::vector<std::string> &options) {
    static const std::pair<const char *, const char *> spellings[] = {
        {"--define-macro", "-D"}, {"-D", "-D"}, {"--undefine-macro", "-U"}, {"-U", "-U"}, {"--include-path", "-I"}, {"-I", "-I"}};
    std::vector<std::string> result;
    for (size_t i = 0; i < options.size(); ++i)
        for (auto [spelling, meaning] : spellings) {
            size_t length = strlen(spelling);
            if (options[i].compare(0, length, spelling) != 0) continue;
            std::string value = options[i].substr(length);
            if (value.empty() && i + 1 < options.size()) value = options[++i];
            else if (!value.empty() && value[0] == '=') value.erase(0, 1);
            result.push_back(meaning + value);
            break;
        }
    return result;
}

std::string hash_of(const std::vector<std::string> &parts) {
    uint64_t a = 1469598103934665603ull, b = 0x9E3779B97F4A7C15ull;
    auto mix = [&](unsigned char byte) {
        a = (a ^ byte) * 1099511628211ull;
        b = (b + byte) * 0xD6E8FEB86659FD93ull;
        b ^= b >> 29;
    };
    for (const std::string &part : parts) {
        for (char byte : part) mix(static_cast<unsigned char>(byte));
        for (int i = 0; i < 8; ++i) mix(static_cast<unsigned char>(part.size() >> 8 * i));
    }
    char text[40];
    snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)a, (unsigned long long)b);
    return text;
}

struct Temporary {
    std::string path;
    Temporary() {
        const char *parent = getenv("TMPDIR");
        path = std::string(parent && *parent ? parent : "/tmp") + "/cryosplat-emulator-nvrtc-XXXXXX";
        if (!mkdtemp(&path[0])) path.clear();
    }
    ~Temporary() {
        if (!path.empty()) remove_tree(path);
    }
};

Compiled build(const Source &source, std::vector<std::string> flags, const std::string &kernel_folder) {
    Compiled result;
    Temporary folder;
    if (folder.path.empty()) {
        result.log = "cannot make a temporary folder\n";
        return result;
    }
    const char *chosen = getenv("CRYOSPLAT_EMULATOR_COMPILER");
    std::string compiler = chosen && *chosen ? chosen : "g++", main = source.name.empty() ? "default_program" : source.name;
    main.erase(0, main.find_first_not_of("/"));
    bool written = true;
    auto put = [&](const std::string &name, const std::string &text) {
        make_parents(folder.path + "/" + name);
        written = write_file(folder.path + "/" + name, text) && written;
    };
    put(main, source.text);
    // Headers lie beside the source: an #include finds them by their names there, and from one another too.
    for (auto &header : source.headers) put(header.first, header.second);
    std::vector<std::string> command = {compiler, "-E", "-x", "c++", "-std=c++17", "-I", ".", "-I", kernel_folder, "-include", "cuda_language.h"};
    command.insert(command.end(), flags.begin(), flags.end());
    command.insert(command.end(), {"-o", "emulator_preprocessed.ii", main});
    if (!written || run(command, folder.path, &result.log) != 0) return result;
    Prepared prepared = prepare(read_file(folder.path + "/emulator_preprocessed.ii"));
    if (!prepared.error.empty()) {
        result.log += "error: " + prepared.error + "\n";
        return result;
    }
    put("emulator_prepared.ii", prepared.source);
    // No contraction into fused multiply-adds: what is not written as fma is not computed as one. Unique symbols and the
    // usual lookup would share static variables between modules.
    command = {compiler, "-x", "c++-cpp-output", "-std=c++17", "-O2", "-g1", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno",
               "-fno-gnu-unique", "-Wl,-Bsymbolic", "-fvisibility=hidden", "-fno-strict-aliasing", "-fno-exceptions", "-fstack-clash-protection",
               "-Wno-attributes", "-Wno-register",
#if defined(__x86_64__)
               "-ffixed-r15",
#endif
#if defined(__SANITIZE_ADDRESS__)
               "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
#endif
               "-o", "emulator_kernels.so", "emulator_prepared.ii"};
    if (run(command, folder.path, &result.log) != 0) return result;
    result.library = read_file(folder.path + "/emulator_kernels.so");
    result.good = !result.library.empty();
    return result;
}

}  // namespace

Compiled compile(const Source &source, const std::vector<std::string> &options) {
    std::string folder = library_folder(), kernel_folder = folder + "/kernel";
    std::vector<std::string> flags = host_options(options);
    if (fails_now("compile")) {
        Compiled failed;
        failed.log = "made to fail by CRYOSPLAT_EMULATOR_FAIL\n";
        return failed;
    }
    const char *setting = getenv("CRYOSPLAT_EMULATOR_CACHE");
    std::string cache = setting && *setting ? setting : folder + "/compiled";
    if (cache == "0") return build(source, flags, kernel_folder);
    std::vector<std::string> parts = {source.name, source.text, read_file(folder + "/identity")};
    for (auto &header : source.headers) parts.push_back(header.first), parts.push_back(header.second);
    parts.insert(parts.end(), flags.begin(), flags.end());
    mkdir(cache.c_str(), 0777);
    std::string entry = cache + "/" + hash_of(parts);
    // Of several ranks which want the same, one compiles and the others wait for it.
    int lock = open((entry + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock >= 0) flock(lock, LOCK_EX);
    Compiled result;
    result.library = read_file(entry);
    result.good = !result.library.empty();
    if (!result.good) {
        result = build(source, flags, kernel_folder);
        std::string part = entry + "." + std::to_string(getpid());
        if (result.good && (!write_file(part, result.library) || rename(part.c_str(), entry.c_str()) != 0)) unlink(part.c_str());
    }
    if (lock >= 0) close(lock);
    return result;
}

}  // namespace emulator
