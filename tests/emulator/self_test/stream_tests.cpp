#include "harness.h"
void stream_tests() {}
