#include "harness.h"
void fault_tests() {}
