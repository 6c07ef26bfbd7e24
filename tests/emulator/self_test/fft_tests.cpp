#include "harness.h"
void fft_tests() {}
