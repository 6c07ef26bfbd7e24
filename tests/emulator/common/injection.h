// Failures on demand: CRYOSPLAT_EMULATOR_FAIL is a comma-separated list of what shall fail and at which call.
#pragma once
#include <cstdarg>
#include <string>

namespace emulator {

/// A whole number from the environment; `otherwise` where the variable is unset or no number.
long long environment_number(const char *name, long long otherwise);

/// One line on stderr, marked as the emulator's, with the MPI rank where there is one.
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/// Counts a call of this kind; true if the environment requests a failure of this call. An entry `kind` without
/// a number means each call, `kind:N` the N-th (from 1); where a kind takes a name (or a rank) the entry is `kind:NAME:N`.
bool fails_now(const char *kind);
bool fails_now(const char *kind, const std::string &name);

}  // namespace emulator
