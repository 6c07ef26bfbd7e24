// Scans the preprocessed text for the attributes that cuda_language.h produces. Strings, characters and line
// markers are stepped over; comments are gone by then.
#include "prepare.h"

#include <cctype>
#include <cstring>

namespace emulator {
namespace {

const char KERNEL[] = "__attribute__((emulator_kernel))";
const char BOUNDS[] = "__attribute__((emulator_launch_bounds(";
const char SHARED[] = "__attribute__((emulator_shared)) thread_local";

bool is_word(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }

struct Scanner {
    const std::string &text;
    size_t at = 0;

    bool comes(const char *what) const { return text.compare(at, strlen(what), what) == 0; }
    /// Past a string, a character or a line marker that begins here; false if none does.
    bool step_over_opaque() {
        char c = text[at];
        if (c == '#' && (at == 0 || text[at - 1] == '\n')) {
            at = text.find('\n', at);
            if (at == std::string::npos) at = text.size();
            return true;
        }
        if (c != '"' && c != '\'') return false;
        if (c == '\'' && at > 0 && is_word(text[at - 1])) return false;  // a digit separator
        for (++at; at < text.size() && text[at] != c; ++at)
            if (text[at] == '\\') ++at;
        ++at;
        return true;
    }
    /// The text up to the bracket that closes the one already open, which is stepped over.
    std::string inside(char open, char close) {
        size_t from = at;
        for (int depth = 1; at < text.size(); ++at) {
            if (text[at] == open) ++depth;
            if (text[at] == close && --depth == 0) break;
        }
        return text.substr(from, at++ - from);
    }
};

std::string first_argument(const std::string &arguments) {
    int depth = 0;
    for (size_t i = 0; i < arguments.size(); ++i) {
        depth += arguments[i] == '(' || arguments[i] == '<';
        depth -= arguments[i] == ')' || arguments[i] == '>';
        if (arguments[i] == ',' && depth == 0) return arguments.substr(0, i);
    }
    return arguments;
}

std::string trimmed(const std::string &text) {
    size_t from = text.find_first_not_of(" \t\n"), to = text.find_last_not_of(" \t\n");
    return from == std::string::npos ? "" : text.substr(from, to - from + 1);
}

/// `alignas` may not follow thread_local, the GNU attribute may.
std::string with_gnu_alignment(std::string declaration) {
    for (size_t from = 0; (from = declaration.find("alignas(", from)) != std::string::npos;) {
        int depth = 0;
        size_t to = from + 7;
        do {
            depth += declaration[to] == '(';
            depth -= declaration[to] == ')';
            ++to;
        } while (depth > 0 && to < declaration.size());
        std::string argument = declaration.substr(from + 8, to - from - 9);
        std::string replacement = "__attribute__((aligned(" + argument + ")))";
        declaration.replace(from, to - from, replacement);
        from += replacement.size();
    }
    return declaration;
}

/// `extern __shared__ T name[];` as a pointer to the block's dynamic shared memory.
bool dynamic_array(const std::string &declaration, bool in_function, std::string *result) {
    std::string kept = declaration;
    for (size_t from; (from = kept.find("__attribute__((aligned(")) != std::string::npos;) {
        size_t to = kept.find(")))", from);
        if (to == std::string::npos) return false;
        kept.erase(from, to + 3 - from);
    }
    size_t bracket = kept.find('[');
    if (bracket == std::string::npos || trimmed(kept.substr(bracket)).compare(0, 1, "[") != 0) return false;
    size_t end = kept.find_last_not_of(" \t\n", bracket - 1), begin = end;
    while (begin > 0 && is_word(kept[begin - 1])) --begin;
    std::string name = kept.substr(begin, end + 1 - begin), type = trimmed(kept.substr(0, begin));
    if (name.empty() || type.empty()) return false;
    *result = in_function ? type + " *const " + name + " = static_cast<" + type + " *>(emulator_thread->block->dynamic_shared)"
                          : "static const emulator::DynamicShared<" + type + "> " + name + " = {}";
    return true;
}

}  // namespace

Prepared prepare(const std::string &text) {
    Prepared result;
    std::string &out = result.source;
    std::vector<std::pair<std::string, std::string>> kernels;  // name and launch bound
    std::vector<bool> braces;                                  // whether each open one is a function's or a class's
    Scanner scanner{text};
    size_t &at = scanner.at;
    bool in_kernel_head = false;
    std::string bound = "0";
    while (at < text.size()) {
        size_t from = at;
        if (scanner.step_over_opaque()) {
            out.append(text, from, at - from);
        } else if (scanner.comes(KERNEL)) {
            at += strlen(KERNEL);
            in_kernel_head = true;
            bound = "0";
        } else if (scanner.comes(BOUNDS)) {
            at += strlen(BOUNDS);
            std::string arguments = scanner.inside('(', ')');
            at += 2;
            if (in_kernel_head) bound = first_argument(arguments);
        } else if (scanner.comes(SHARED)) {
            at += strlen(SHARED);
            size_t end = text.find(';', at);
            if (end == std::string::npos) end = text.size();
            std::string declaration = with_gnu_alignment(text.substr(at, end - at)), replaced;
            at = end;
            // Was `extern` the word before? Then it is the launch's dynamic shared memory.
            size_t last = out.find_last_not_of(" \t\n");
            if (last != std::string::npos && last >= 5 && out.compare(last - 5, 6, "extern") == 0) {
                out.erase(last - 5);
                bool in_function = false;
                for (bool inner : braces) in_function |= inner;
                if (!dynamic_array(declaration, in_function, &replaced)) {
                    result.error = "not understood as a dynamic shared array: extern __shared__" + declaration;
                    return result;
                }
                out += replaced;
            } else {
                out += "thread_local " + declaration;
            }
        } else if (in_kernel_head && text[at] == '(') {
            size_t end = out.find_last_not_of(" \t\n"), begin = end;
            while (begin > 0 && is_word(out[begin - 1])) --begin;
            std::string name = out.substr(begin, end + 1 - begin);
            if (name != "__attribute__") {
                bool known = false;  // declared before it is defined
                for (auto &kernel : kernels) known |= kernel.first == name;
                if (!known) kernels.push_back({name, bound});
                in_kernel_head = false;
            }
            out += text[at++];
        } else {
            if (text[at] == '{') {
                size_t last = out.find_last_not_of(" \t\n");
                size_t line = out.find_last_of(";{}", last);
                std::string head = trimmed(out.substr(line == std::string::npos ? 0 : line + 1));
                const std::string linkage = "extern \"C\"";
                bool outer = head.find("namespace") != std::string::npos ||
                             (head.size() >= linkage.size() && head.compare(head.size() - linkage.size(), linkage.size(), linkage) == 0);
                braces.push_back(!outer);
            }
            if (text[at] == '}' && !braces.empty()) braces.pop_back();
            out += text[at++];
        }
    }
    out += "\nnamespace emulator {\nstatic const Kernel kernels[] = {\n";
    for (auto &kernel : kernels) {
        out += "    describe<&::" + kernel.first + ">(\"" + kernel.first + "\", " + kernel.second + "),\n";
        result.kernels.push_back(kernel.first);
    }
    if (kernels.empty()) out += "    {nullptr, nullptr, 0, nullptr, 0},\n";
    out += "};\n}\nextern \"C\" __attribute__((visibility(\"default\"))) const emulator::Module emulator_module = {\n    "
           "emulator::MODULE_VERSION, " + std::to_string(kernels.size()) +
           ", emulator::kernels, emulator::attach, emulator::shared_anchor, emulator::set_thread};\n";
    return result;
}

}  // namespace emulator
