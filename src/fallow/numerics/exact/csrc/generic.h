/* The parts that are plain C, compiled once for each instruction set. Define NAME(x), TARGET and `tile` before including it. */

#include <string.h>

#define TOP_MANTISSA ((8127u - 4096u) << 11)
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS uint32_t NAME(bits)(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

ALWAYS float NAME(number)(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* [3.1]: from the bits of the largest magnitude, the scale 2^s (0 where all integers are 0) and the step 2^-s. */
ALWAYS float NAME(scale)(uint32_t largest, float *step) {
    if (largest >= 0x7f800000u) {
        *step = NAME(number)(0x7fc00000u);
        return 0.0f;
    }
    if (largest == 0) {
        *step = 0.0f;
        return 0.0f;
    }
    uint32_t exponent = largest >> 23, spills = 0;
    if (exponent < 27)
        exponent = 27;
    else
        spills = (largest & 0x7fffffu) > TOP_MANTISSA;
    uint32_t up = 2 * 127 + 12 - exponent - spills;
    *step = NAME(number)((254 - up) << 23);
    return NAME(number)(up << 23);
}

/* rint of |v| <= 8128: adding 1.5 * 2^23 leaves the integer, ties to even, in the low bits. */
ALWAYS int16_t NAME(rounded)(float v) { return (int16_t)NAME(bits)(v + 12582912.0f); }

TARGET static void NAME(quantise_row)(const float *x, const float *fold, int64_t k, int16_t *q, float *step) {
    uint32_t largest = 0;
    if (fold)
        for (int64_t i = 0; i < k; i++) {
            uint32_t u = NAME(bits)(x[i] * fold[i]) & 0x7fffffffu;
            largest = u > largest ? u : largest;
        }
    else
        for (int64_t i = 0; i < k; i++) {
            uint32_t u = NAME(bits)(x[i]) & 0x7fffffffu;
            largest = u > largest ? u : largest;
        }
    float scale = NAME(scale)(largest, step);
    if (scale == 0.0f)
        memset(q, 0, (size_t)k * sizeof *q);
    else if (fold)
        for (int64_t i = 0; i < k; i++) q[i] = NAME(rounded)(x[i] * fold[i] * scale);
    else
        for (int64_t i = 0; i < k; i++) q[i] = NAME(rounded)(x[i] * scale);
}

/* Not a number and infinity come here with scale 0, and leave as 0. */
ALWAYS int16_t NAME(rounded_or_zero)(float v, float scale) {
    int16_t q = NAME(rounded)(v * scale);
    return scale == 0.0f ? 0 : q;
}

TARGET static void NAME(quantise_columns)(const float *x, int64_t row, const float *fold, int64_t k, int width, int16_t *q,
                                          int64_t q_row, int paired, float *step) {
    uint32_t largest[WIDTH] = {0};
    float scale[WIDTH];
    for (int64_t t = 0; t < k; t++) {
        const float *line = x + t * row;
        float factor = fold ? fold[t] : 1.0f;
        for (int j = 0; j < width; j++) {
            uint32_t u = NAME(bits)(line[j] * factor) & 0x7fffffffu;
            largest[j] = u > largest[j] ? u : largest[j];
        }
    }
    for (int j = 0; j < width; j++) scale[j] = NAME(scale)(largest[j], step + j);
    if (!paired) {
        for (int64_t t = 0; t < k; t++) {
            const float *line = x + t * row;
            float factor = fold ? fold[t] : 1.0f;
            int16_t *out = q + t * q_row;
            for (int j = 0; j < width; j++) out[j] = NAME(rounded_or_zero)(line[j] * factor, scale[j]);
        }
        return;
    }
    for (int64_t t = 0; t < k; t += 2) {
        const float *line = x + t * row, *next = t + 1 < k ? line + row : line;
        float factor = fold ? fold[t] : 1.0f, after = t + 1 < k ? (fold ? fold[t + 1] : 1.0f) : 0.0f;
        int16_t *out = q + (t / 2) * q_row;
        for (int j = 0; j < width; j++) {
            out[2 * j] = NAME(rounded_or_zero)(line[j] * factor, scale[j]);
            out[2 * j + 1] = NAME(rounded_or_zero)(next[j] * after, scale[j]);
        }
    }
}

TARGET static void NAME(pack_rows)(const int16_t *q, int64_t row, int columns, int64_t k, int16_t *panel) {
    int64_t whole = k / 2;
    if (columns < PANEL || (k & 1)) memset(panel, 0, (size_t)((k + 1) / 2) * 2 * PANEL * sizeof *panel);
    int64_t start = 0;
#ifdef TURN
    for (; columns == PANEL && start + 16 <= whole; start += 16) {
        TURN(q + 2 * start, row, panel + start * 2 * PANEL);
        TURN(q + 16 * row + 2 * start, row, panel + start * 2 * PANEL + PANEL);
    }
#endif
    for (; start < whole; start += 16) { /* 16 pairs of a row are one cache line */
        int64_t end = smaller(start + 16, whole);
        for (int j = 0; j < columns; j++)
            for (int64_t p = start; p < end; p++) memcpy(panel + (p * PANEL + j) * 2, q + j * row + 2 * p, 4);
    }
    if (k & 1)
        for (int j = 0; j < columns; j++) panel[(whole * PANEL + j) * 2] = q[j * row + k - 1];
}

ALWAYS void NAME(interleave)(const int16_t *q, const int16_t *next, int64_t columns, int16_t *out) {
    for (int64_t j = 0; j < columns; j++) {
        out[2 * j] = q[j];
        out[2 * j + 1] = next[j];
    }
}

ALWAYS void NAME(interleave_last)(const int16_t *q, int64_t columns, int16_t *out) {
    for (int64_t j = 0; j < columns; j++) {
        out[2 * j] = q[j];
        out[2 * j + 1] = 0;
    }
}

TARGET static void NAME(pack_pairs)(const int16_t *q, int64_t term, int64_t columns, int64_t k, int16_t *out,
                                    int64_t out_pair) {
    for (int64_t t = 0; t + 1 < k; t += 2) NAME(interleave)(q + t * term, q + (t + 1) * term, columns, out + t / 2 * out_pair);
    if (k & 1) NAME(interleave_last)(q + (k - 1) * term, columns, out + k / 2 * out_pair);
}

TARGET static void NAME(pack_terms)(const int16_t *q, int64_t term, int columns, int64_t k, int16_t *panel) {
    if (columns == PANEL) {
        for (int64_t t = 0; t + 1 < k; t += 2) NAME(interleave)(q + t * term, q + (t + 1) * term, PANEL, panel + t * PANEL);
        if (k & 1) NAME(interleave_last)(q + (k - 1) * term, PANEL, panel + (k - 1) * PANEL);
        return;
    }
    memset(panel, 0, (size_t)((k + 1) / 2) * 2 * PANEL * sizeof *panel);
    NAME(pack_pairs)(q, term, columns, k, panel, 2 * PANEL);
}

TARGET static void NAME(store)(const double *tile, int columns, double a_step, const float *b_step, float *out, int visible) {
    int end = visible < columns ? visible : columns;
    if (end == PANEL && b_step)
        for (int j = 0; j < PANEL; j++) out[j] = (float)(tile[j] * a_step * (double)b_step[j]);
    else if (b_step)
        for (int j = 0; j < end; j++) out[j] = (float)(tile[j] * a_step * (double)b_step[j]);
    else
        for (int j = 0; j < end; j++) out[j] = (float)(tile[j] * a_step);
    for (int j = end < 0 ? 0 : end; j < columns; j++) out[j] = 0.0f;
}

#ifndef ONTO_GRID
/* rint(v * 2^40) of |v| <= 2^13 as an integer: the whole part and the rest, each exactly. Adding 1.5 * 2^52 makes an integer of
   |v| < 2^51, so the 2^53 here goes in two halves. */
ALWAYS int64_t NAME(grid_integer)(double v) {
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    int64_t high, low;
    double up = v * 0.00000095367431640625 + magic; /* v * 2^-20, rounded to an integer */
    memcpy(&high, &up, 8);
    double rest = v - (up - magic) * 1048576.0 + magic; /* exact difference, |rest| <= 2^19, then rounded */
    memcpy(&low, &rest, 8);
    return (high - 0x4338000000000000) * 1048576 + (low - 0x4338000000000000);
}

TARGET static void NAME(onto_grid)(const double *tile, double step, int64_t *sums) {
    const double limit = 9007199254740992.0, scale = step * 1099511627776.0; /* 2^13 * 2^40; 2^40 */
    for (int j = 0; j < PANEL; j++) {
        double v = tile[j] * scale;
        v = v > limit ? limit : v;
        v = v < -limit ? -limit : v;
        sums[j] += NAME(grid_integer)(v);
    }
}
#endif

ALWAYS int64_t NAME(plus)(int64_t total, int64_t sum) {
    return total == POISON ? POISON : (int64_t)((uint64_t)total + (uint64_t)sum);
}

TARGET static void NAME(accumulate)(const int64_t *sums, int columns, int poisoned, int64_t *total) {
    if (poisoned)
        for (int j = 0; j < columns; j++) total[j] = POISON;
    else if (columns == PANEL)
        for (int j = 0; j < PANEL; j++) total[j] = NAME(plus)(total[j], sums[j]);
    else
        for (int j = 0; j < columns; j++) total[j] = NAME(plus)(total[j], sums[j]);
}

const struct kernels NAME(fallow) = {
    TEXT,
    NAME(tile),
    NAME(quantise_row),
    NAME(quantise_columns),
    NAME(pack_rows),
    NAME(pack_terms),
    NAME(pack_pairs),
    NAME(store),
    NAME(onto_grid),
    NAME(accumulate),
};
