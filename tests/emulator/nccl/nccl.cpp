#include "../common/cuda_types.h"
