/* Channels that stand for the others (kept_stands, kern/lowrank_stands.h), against projections in
 * double. */
#include "lowrank_rig.h"

/* Projections of random vectors of n layers on r directions: the channels that are kept say all. */
static void check_stands(int n, int D, int r, const float *const *u)
{
    kept_stands *x[4];
    bool seen[MOST] = {false};
    CHECK(kept_stands_new(n, u, D, r, x));
    for (int t = 0; t < 8; t++) {
        double in[4][MOST], a[MOST] = {0}, out[4][MOST] = {{0}}, worst = 0;
        float c[MOST] = {0};
        for (int l = 0; l < n; l++)
            for (int d = 0; d < D; d++)
                in[l][d] = uniform();
        for (int k = 0; k < r; k++)
            for (int l = 0; l < n; l++)
                for (int d = 0; d < D; d++)
                    a[k] += (double)u[l][k * D + d] * in[l][d];
        for (int l = 0; l < n; l++)
            for (int d = 0; d < D; d++)
                for (int k = 0; k < r; k++)
                    out[l][d] += a[k] * (double)u[l][k * D + d];
        for (int i = 0; i < r; i++)
            for (int l = 0; l < n; l++)
                for (int d = 0; d < D; d++)
                    c[i] += x[l]->into[i * D + d] * (float)in[l][d];
        for (int l = 0; l < n; l++) {
            CHECK_INT(x[l]->n_own + x[l]->n_rest, D);
            for (int k = 0; k < x[l]->n_own; k++) {
                seen[x[l]->from[k]] = true;
                worst = fmax(worst, fabs((double)c[x[l]->from[k]] - out[l][x[l]->own[k]]));
            }
            for (int k = 0; k < x[l]->n_rest; k++) {
                double sum = 0;
                for (int i = 0; i < r; i++) {
                    sum += (double)x[l]->mix[k * r + i] * (double)c[i];
                    CHECK(fabsf(x[l]->mix[k * r + i]) < 1.2f);
                }
                worst = fmax(worst, fabs(sum - out[l][x[l]->rest[k]]));
            }
        }
        CHECK(worst < 2e-5);
    }
    for (int i = 0; i < r; i++)
        CHECK(seen[i] || r > 16); /* those of 0 are tested with more */
    for (int l = 0; l < n; l++)
        free(x[l]);
}

static void stands(void)
{
    static float zero[2][64 * 64];
    start(64, 64, true);
    for (int r = 16; r <= 64; r += 16) {
        check_stands(1, 64, r, (const float *const[]){the.u[2][KEPT_BASIS_LOW][0]});
        check_stands(
            2, 64, r,
            (const float *const[]){the.u[0][KEPT_BASIS_PAIR][0], the.u[1][KEPT_BASIS_PAIR][0]});
        check_stands(
            4, 64, r,
            (const float *const[]){the.u[0][KEPT_BASIS_QUAD][0], the.u[1][KEPT_BASIS_QUAD][0],
                                   the.u[2][KEPT_BASIS_QUAD][0], the.u[3][KEPT_BASIS_QUAD][0]});
    }
    /* Fewer directions than it says, and none: what is not there is 0. */
    memcpy(zero[0], the.u[0][KEPT_BASIS_LOW][0], 20 * 64 * sizeof(float));
    check_stands(1, 64, 32, (const float *const[]){zero[0]});
    check_stands(1, 64, 32, (const float *const[]){zero[1]});
    stop();
}

int main(void)
{
    RUN(stands);
    TEST_END();
}
