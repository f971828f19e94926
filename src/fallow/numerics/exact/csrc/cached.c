/* [16] attention of new tokens over cached keys and values, which lie packed for `tile`: nothing is packed twice. A block of
   query rows goes all the way, from scores to mixed values, while its part of the cache is at hand. */
#include <stdlib.h>
#include <string.h>

#include "exact.h"

#define STRETCH 16 /* pairs of keys that are left out together where nobody weighs them */

struct text { /* one text's cache in one layer, with room for `room` tokens, of which `past` are there and `count` come now */
    int16_t *keys;       /* (heads, room / PANEL, pairs of a head's entries, PANEL, 2) */
    float *key_steps;    /* (heads, room) */
    int16_t *values;     /* (heads, panels of a head's entries, room / 2, PANEL, 2) */
    float *value_steps;  /* (heads, room) */
    int64_t room, past, count;
};

struct attention {
    const float *q; /* (tokens of all texts, heads, group, size) */
    const float *k; /* (tokens, heads, size) */
    const float *v;
    float *out; /* as q */
    const struct text *texts;
    int64_t text_count, heads, group, size, window; /* window 0: all keys are seen */
    double scale;
    int64_t threads, cap;
};

struct space { /* a thread's own */
    float *scores;    /* (ROWS, keys) */
    int16_t *weights; /* (ROWS, keys, even) */
    int16_t *queries; /* (ROWS, size, even) */
    uint8_t *heavy;   /* of each stretch: whether any row weighs it */
};

void fallow_softmax(const float *x, float *p, int64_t rows, int64_t n, const int64_t *bounds, int64_t period, double scale,
                    int threads, int cap);

static int64_t even(int64_t n) { return (n + 1) / 2 * 2; }
static int64_t panels_of(int64_t n) { return (n + PANEL - 1) / PANEL; }

/* The new keys and values of one head onto their grids and into the panels; `first` is the text's first token in k and v. */
static void append(const struct kernels *kernels, const struct attention *job, const struct text *text, int64_t first,
                   int64_t head, int16_t *row) {
    int64_t size = job->size, pairs = even(size) / 2;
    for (int64_t t = 0; t < text->count; t++) {
        int64_t from = ((first + t) * job->heads + head) * size, at = text->past + t;
        kernels->quantise_row(job->k + from, NULL, size, row, text->key_steps + head * text->room + at);
        if (size & 1) row[size] = 0;
        int16_t *key = text->keys + (head * text->room + at / PANEL * PANEL) * 2 * pairs + at % PANEL * 2;
        for (int64_t p = 0; p < pairs; p++) memcpy(key + p * 2 * PANEL, row + 2 * p, 4);
        kernels->quantise_row(job->v + from, NULL, size, row, text->value_steps + head * text->room + at);
        int16_t *value = text->values + head * panels_of(size) * PANEL * text->room + at / 2 * 2 * PANEL + at % 2;
        for (int64_t c = 0; c < size; c++) value[c / PANEL * PANEL * text->room + c % PANEL * 2] = row[c];
    }
}

/* Which stretches of keys have a weight in any of `rows` rows. */
static void weigh(const int16_t *weights, int64_t width, int rows, uint8_t *heavy) {
    for (int64_t s = 0; s * 2 * STRETCH < width; s++) {
        int64_t end = smaller((s + 1) * 2 * STRETCH, width);
        uint16_t any = 0;
        for (int r = 0; r < rows; r++)
            for (int64_t t = s * 2 * STRETCH; t < end; t++) any |= (uint16_t)weights[r * width + t];
        heavy[s] = any != 0;
    }
}

/* Weights times one panel of values, over the stretches that weigh something. */
static void mix(const struct kernels *kernels, const struct space *space, int64_t width, int rows, const int16_t *values,
                double *tile) {
    int64_t stretches = (width + 2 * STRETCH - 1) / (2 * STRETCH), s = 0;
    int add = 0;
    while (s < stretches) {
        if (!space->heavy[s]) {
            s++;
            continue;
        }
        int64_t from = s * STRETCH;
        while (s < stretches && space->heavy[s]) s++;
        int64_t end = smaller(s * STRETCH, width / 2);
        kernels->tile(space->weights + 2 * from, width, 2, rows, values + from * 2 * PANEL, end - from, add, tile);
        add = 1;
    }
    if (!add) memset(tile, 0, (size_t)rows * PANEL * sizeof *tile);
}

/* Query rows [i, i + rows) of one head of one text: row i is of token i / group. */
static void attend(const struct kernels *kernels, const struct attention *job, const struct text *text, int64_t first,
                   int64_t head, int64_t i, int rows, const struct space *space) {
    _Alignas(64) double tile[ROWS * PANEL];
    int64_t size = job->size, wide = even(size), group = job->group, heads = job->heads, where[ROWS], sees[ROWS];
    float q_step[ROWS], w_step[ROWS];
    for (int r = 0; r < rows; r++) {
        int64_t token = (i + r) / group;
        where[r] = (((first + token) * heads + head) * group + (i + r) % group) * size;
        sees[r] = text->past + token + 1;
        kernels->quantise_row(job->q + where[r], NULL, size, space->queries + r * wide, q_step + r);
        if (size & 1) space->queries[r * wide + size] = 0;
    }
    int64_t n = sees[rows - 1], width = even(n);
    int64_t start = job->window && sees[0] > job->window ? (sees[0] - job->window) / PANEL * PANEL : 0;
    for (int64_t j = start; j < n; j += PANEL) {
        kernels->tile(space->queries, wide, 2, rows, text->keys + (head * text->room + j) * wide, wide / 2, 0, tile);
        int columns = (int)smaller(PANEL, n - j);
        for (int r = 0; r < rows; r++)
            kernels->store(tile + r * PANEL, columns, q_step[r], text->key_steps + head * text->room + j,
                           space->scores + r * n + j, (int)smaller(columns, sees[r] > j ? sees[r] - j : 0));
    }
    for (int r = 0; r < rows; r++) {
        float *row = space->scores + r * n;
        int64_t bounds[2] = {job->window && sees[r] > job->window ? sees[r] - job->window : 0, sees[r]};
        fallow_softmax(row, row, 1, sees[r], bounds, 1, job->scale, 1, (int)job->cap);
        kernels->quantise_row(row, text->value_steps + head * text->room, sees[r], space->weights + r * width, w_step + r);
        memset(space->weights + r * width + sees[r], 0, (size_t)(width - sees[r]) * sizeof *space->weights);
    }
    weigh(space->weights, width, rows, space->heavy);
    for (int64_t c = 0; c < size; c += PANEL) {
        mix(kernels, space, width, rows, text->values + (head * panels_of(size) * PANEL + c) * text->room, tile);
        int columns = (int)smaller(PANEL, size - c);
        for (int r = 0; r < rows; r++)
            kernels->store(tile + r * PANEL, columns, w_step[r], NULL, job->out + where[r] + c, columns);
    }
}

/* Returns 2 when there is no memory. The caller counts `past` on. */
int fallow_attend(const struct attention *job) {
    const struct kernels *kernels = fallow_kernels((int)job->cap);
    int threads = (int)job->threads, failed = 0;
    int64_t longest = 0;
    for (int64_t t = 0; t < job->text_count; t++)
        if (job->texts[t].past + job->texts[t].count > longest) longest = job->texts[t].past + job->texts[t].count;
    size_t keys = (size_t)even(longest), wide = (size_t)even(job->size);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct space space = {
            .scores = malloc(ROWS * keys * sizeof(float)),
            .weights = malloc(ROWS * keys * sizeof(int16_t)),
            .queries = malloc(ROWS * wide * sizeof(int16_t)),
            .heavy = malloc(keys / (2 * STRETCH) + 1),
        };
        int lacks = !space.scores || !space.weights || !space.queries || !space.heavy;
        if (lacks) failed = 2;
        int64_t first = 0;
        for (int64_t t = 0; t < job->text_count; t++) {
#pragma omp for schedule(static)
            for (int64_t head = 0; head < job->heads; head++)
                if (!lacks) append(kernels, job, job->texts + t, first, head, space.queries);
            first += job->texts[t].count;
        }
        first = 0;
        for (int64_t t = 0; t < job->text_count; t++) {
            const struct text *text = job->texts + t;
            int64_t total = text->count * job->group, blocks = (total + ROWS - 1) / ROWS;
#pragma omp for schedule(dynamic) nowait
            for (int64_t one = 0; one < job->heads * blocks; one++) {
                int64_t i = one % blocks * ROWS;
                if (!lacks)
                    attend(kernels, job, text, first, one / blocks, i, (int)smaller(ROWS, total - i), &space);
            }
            first += text->count;
        }
        free(space.scores);
        free(space.weights);
        free(space.queries);
        free(space.heavy);
    }
    return failed;
}
