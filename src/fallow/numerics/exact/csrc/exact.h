/* Exact products: what the parts of the kernel share. See docs/spec/exact-arithmetic.md; the numbers in brackets are its sections.

   Everything here gives the same bits for every instruction set, thread count and blocking. Sums are of integers; what is rounded
   is rounded by single IEEE operations in the default mode, never contracted: compile with -ffp-contract=off, never with -ffast-math. */
#ifndef FALLOW_EXACT_H
#define FALLOW_EXACT_H

#include <stddef.h>
#include <stdint.h>

#define PANEL 32 /* columns of a packed panel: panels are [n / PANEL][pairs][PANEL][2] int16, zeros around */
#define ROWS 6   /* rows of a tile: 6 x 32 sums in registers */
#define FLUSH 16 /* pairs of terms that fit an int32: 32 * 8127^2 + 2^16 < 2^31 */
#define POISON INT64_MIN
#define WIDTH 48 /* columns that are quantised together: eight tiles */

/* What each instruction set does its own way, or is merely compiled for. */
struct kernels {
    const char *name;
    /* out[i][j] (+)= sum over pairs of a[i] . b[j]: a is read at i * row + p * pair (int16 units), b is a panel. */
    void (*tile)(const int16_t *a, ptrdiff_t row, ptrdiff_t pair, int rows, const int16_t *b, int64_t pairs, int add,
                 double *out);
    /* [3.1]: one row of k numbers, times fold where given. */
    void (*quantise_row)(const float *x, const float *fold, int64_t k, int16_t *q, float *step);
    /* [3.1] down `width` <= WIDTH columns; q is written like x, pairs of rows side by side when `paired`. */
    void (*quantise_columns)(const float *x, int64_t row, const float *fold, int64_t k, int width, int16_t *q,
                             int64_t q_row, int paired, float *step);
    /* One panel from `columns` <= PANEL rows of k terms each, `row` apart; or from k rows of `columns` entries. */
    void (*pack_rows)(const int16_t *q, int64_t row, int columns, int64_t k, int16_t *panel);
    void (*pack_terms)(const int16_t *q, int64_t term, int columns, int64_t k, int16_t *panel);
    /* Pairs of rows side by side: out[p][j] = (q[2p][j], q[2p + 1][j]), `out_pair` int16 apart. */
    void (*pack_pairs)(const int16_t *q, int64_t term, int64_t columns, int64_t k, int16_t *out, int64_t out_pair);
    /* [3.2]: a tile's sums times their steps, rounded once; columns from `visible` on are +0. */
    void (*store)(const double *tile, int columns, double a_step, const float *b_step, float *out, int visible);
    /* [3.4]: onto the gradient grid and onto `sums`; and these onto the total, where poison stays. */
    void (*onto_grid)(const double *tile, double step, int64_t *sums);
    void (*accumulate)(const int64_t *sums, int columns, int poisoned, int64_t *total);
};

extern const struct kernels fallow_portable, fallow_avx2, fallow_avx512bw, fallow_avx512vnni;

/* The best of them that this processor has, up to level `cap`: 0 portable, 1 AVX2, 2 AVX-512BW, 3 AVX-512 VNNI. */
const struct kernels *fallow_kernels(int cap);

void fallow_quantise(const float *x, int64_t x_row, const float *fold, int64_t group, int64_t rows, int64_t k, int16_t *q,
                     float *step, int threads, int cap);

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

#endif
