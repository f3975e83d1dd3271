/* The spec fuzzer's fixed run, so that every test run includes it. */
#define FUZZ_MAIN
#include "fuzz/fuzz_spec.c"
