/* The whole test framework: one program per file, exit 0 pass, 1 fail, 77 skip (with its reason). A
 * program prints "ok NAME" per case through TEST_DONE so that the runner can count cases. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_failed, test_cases;

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #cond);                   \
            test_failed = 1;                                                                       \
        }                                                                                          \
    } while (0)
#define CHECK_INT(a, b)                                                                            \
    do {                                                                                           \
        long long a_ = (long long)(a), b_ = (long long)(b);                                        \
        if (a_ != b_) {                                                                            \
            fprintf(stderr, "%s:%d: %s = %lld, expected %s = %lld\n", __FILE__, __LINE__, #a, a_,  \
                    #b, b_);                                                                       \
            test_failed = 1;                                                                       \
        }                                                                                          \
    } while (0)
#define CHECK_NEAR(a, b, tol)                                                                      \
    do {                                                                                           \
        double a_ = (double)(a), b_ = (double)(b);                                                 \
        if (!(fabs(a_ - b_) <= (tol))) {                                                           \
            fprintf(stderr, "%s:%d: %s = %.9g, expected %s = %.9g within %g\n", __FILE__,          \
                    __LINE__, #a, a_, #b, b_, (double)(tol));                                      \
            test_failed = 1;                                                                       \
        }                                                                                          \
    } while (0)
#define CHECK_STR(a, b)                                                                            \
    do {                                                                                           \
        const char *a_ = (a), *b_ = (b);                                                           \
        if (!a_ || !b_ || strcmp(a_, b_)) {                                                        \
            fprintf(stderr, "%s:%d: %s = \"%s\", expected \"%s\"\n", __FILE__, __LINE__, #a,       \
                    a_ ? a_ : "(null)", b_ ? b_ : "(null)");                                       \
            test_failed = 1;                                                                       \
        }                                                                                          \
    } while (0)
/* Runs one case and prints its verdict. */
#define RUN(fn)                                                                                    \
    do {                                                                                           \
        int before_ = test_failed;                                                                 \
        test_failed = 0;                                                                           \
        fn();                                                                                      \
        printf("%s %s\n", test_failed ? "FAIL" : "ok", #fn);                                       \
        fflush(stdout);                                                                            \
        test_cases++;                                                                              \
        test_failed |= before_;                                                                    \
    } while (0)
#define SKIP(reason)                                                                               \
    do {                                                                                           \
        printf("skip %s\n", reason);                                                               \
        return 77;                                                                                 \
    } while (0)
#define TEST_END() return test_failed ? 1 : 0

#endif
