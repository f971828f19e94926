/* [3.4] weight gradients, each sequence's on the gradient grid, added up. */
#include <string.h>

#include "exact.h"

#define POISON INT64_MIN
#define GROUP 8 /* rows of tiles for which X's panels stay in the cache */

struct gradient {
    const float *dy; /* (sequences, tokens, n) */
    const int16_t *x; /* (sequences, tokens, k) */
    const float *x_step; /* (sequences, tokens) */
    int64_t *total; /* (n, k) */
    int64_t sequences, tokens, n, k;
    int16_t *scratch;
    int64_t scratch_size; /* int16 */
    int64_t threads, cap;
};

static int64_t pairs_of(const struct gradient *job) { return (job->tokens + 1) / 2; }
static int64_t panels_of(const struct gradient *job) { return (job->k + PANEL - 1) / PANEL; }
static int64_t left_size(const struct gradient *job) { return pairs_of(job) * 2 * job->n; }
static int64_t right_size(const struct gradient *job) { return panels_of(job) * pairs_of(job) * 2 * PANEL; }

/* int16 of scratch: dY by columns in pairs, X in panels, and dY's steps. */
int64_t fallow_gradient_scratch(const struct gradient *job) {
    return job->sequences * (left_size(job) + right_size(job) + 2 * job->n);
}

static void prepare(const struct kernels *kernels, const struct gradient *job, int64_t task, int64_t blocks, int16_t *left,
                    int16_t *right, float *steps) {
    int64_t one = task / (blocks + panels_of(job)), part = task % (blocks + panels_of(job));
    if (part < blocks) {
        int64_t j = part * WIDTH;
        kernels->quantise_columns(job->dy + one * job->tokens * job->n + j, job->n, job->x_step + one * job->tokens,
                                  job->tokens, (int)smaller(WIDTH, job->n - j), left + one * left_size(job) + 2 * j,
                                  2 * job->n, 1, steps + one * job->n + j);
        return;
    }
    int64_t j = (part - blocks) * PANEL;
    kernels->pack_terms(job->x + one * job->tokens * job->k + j, job->k, (int)smaller(PANEL, job->k - j), job->tokens,
                        right + one * right_size(job) + j * 2 * pairs_of(job));
}

static void add_tile(const struct kernels *kernels, const struct gradient *job, int64_t i, int64_t panel, const int16_t *left,
                     const int16_t *right, const float *steps) {
    _Alignas(64) double tile[ROWS * PANEL];
    _Alignas(64) int64_t sums[ROWS * PANEL] = {0};
    int rows = (int)smaller(ROWS, job->n - i), columns = (int)smaller(PANEL, job->k - panel * PANEL);
    int poisoned[ROWS] = {0};
    for (int64_t one = 0; one < job->sequences; one++) {
        kernels->tile(left + one * left_size(job) + 2 * i, 2, 2 * job->n, rows,
                      right + one * right_size(job) + panel * 2 * PANEL * pairs_of(job), pairs_of(job), 0, tile);
        for (int r = 0; r < rows; r++) {
            float step = steps[one * job->n + i + r];
            if (step != step)
                poisoned[r] = 1;
            else
                kernels->onto_grid(tile + r * PANEL, step, sums + r * PANEL);
        }
    }
    for (int r = 0; r < rows; r++) {
        int64_t *to = job->total + (i + r) * job->k + panel * PANEL;
        for (int j = 0; j < columns; j++)
            to[j] = poisoned[r] || to[j] == POISON ? POISON : (int64_t)((uint64_t)to[j] + (uint64_t)sums[r * PANEL + j]);
    }
}

int fallow_add_gradient(const struct gradient *job) {
    if (job->scratch_size < fallow_gradient_scratch(job)) return 1;
    if (job->sequences * job->n * job->k == 0) return 0;
    const struct kernels *kernels = fallow_kernels((int)job->cap);
    int threads = (int)job->threads;
    int16_t *left = job->scratch, *right = left + job->sequences * left_size(job);
    float *steps = (float *)(right + job->sequences * right_size(job));
    int64_t blocks = (job->n + WIDTH - 1) / WIDTH, tiles = (job->n + ROWS - 1) / ROWS, groups = (tiles + GROUP - 1) / GROUP;
    int64_t tasks = panels_of(job) * groups, next = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t task = 0; task < job->sequences * (blocks + panels_of(job)); task++)
            prepare(kernels, job, task, blocks, left, right, steps);
        for (;;) {
            int64_t task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
            if (task >= tasks) break;
            int64_t panel = task / groups, group = task % groups;
            for (int64_t t = group * GROUP; t < smaller((group + 1) * GROUP, tiles); t++)
                add_tile(kernels, job, t * ROWS, panel, left, right, steps);
        }
    }
    return 0;
}
