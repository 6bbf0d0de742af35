#include "support/paths.h"

const char* const KVCAST_GOLDEN_DIR = PATH_OF_SOURCE "/tests/golden";
const char* const KVCAST_SOURCE_DIR = PATH_OF_SOURCE;
const char* const KVCAST_BINARY_DIR = PATH_OF_BINARY;
