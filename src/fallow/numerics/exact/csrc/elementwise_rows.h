/* Operators on spans and rows of binary32: docs/spec/exact-arithmetic.md, sections 4 and 7 to 13. Sums are of whole numbers below 2^53, in
   lanes, so that their order does not matter. Included after elementwise_math.h, once for each instruction set. */

INLINE W NAME(load)(const float *x, int64_t count) {
    if (__builtin_expect(count >= LANES, 1)) return WIDEN(*(const NAME(loose) *)x);
    N t = {0};
    __builtin_memcpy(&t, x, (size_t)count * sizeof *x);
    return WIDEN(t);
}

INLINE void NAME(put)(float *y, N t, int64_t count) {
    if (__builtin_expect(count >= LANES, 1))
        *(NAME(loose) *)y = t;
    else
        __builtin_memcpy(y, &t, (size_t)count * sizeof *y);
}

INLINE void NAME(store)(float *y, W v, int64_t count) { NAME(put)(y, __builtin_convertvector(v, N), count); }

/* All ones in the first `count` lanes. */
INLINE I NAME(first)(int64_t count) {
    I lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return lane < count;
}

INLINE double NAME(total)(W v) {
    double sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

/* The largest lane; NaN are passed over. */
INLINE double NAME(largest)(W v, double start) {
    for (int i = 0; i < LANES; i++) start = v[i] > start ? v[i] : start;
    return start;
}

INLINE W NAME(larger)(W a, W b) { return NAME(pick)(a > b, a, b); }

/* [4]: the factor that brings terms up to `largest` onto their grid of 2^36 steps, and the value of a step; clamped where the sum is 0 or
   NaN whatever its terms are. */
INLINE double NAME(grid)(double largest, double *step) {
    uint64_t bits;
    __builtin_memcpy(&bits, &largest, 8);
    int64_t exponent = (int64_t)(bits >> 52) - 1023;
    exponent = exponent < -900 ? -900 : exponent > 900 ? 900 : exponent;
    uint64_t up = (uint64_t)(1023 + 35 - exponent) << 52, down = (uint64_t)(1023 + exponent - 35) << 52;
    double scale;
    __builtin_memcpy(&scale, &up, 8);
    __builtin_memcpy(step, &down, 8);
    return scale;
}

/* [4]: the sum, given its whole number of steps. A NaN term has made `points` NaN. */
INLINE double NAME(gridsum)(double points, double largest, double step) {
    if (points != points || largest >= 0x1p900) return __builtin_nan("");
    return largest < 0x1p-900 ? 0.0 : points * step;
}

TARGET static void NAME(silu_mul)(const float *gate, const float *up, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        NAME(store)(out + i, NAME(silu64)(NAME(load)(gate + i, n - i)) * NAME(load)(up + i, n - i), n - i);
}

TARGET static void NAME(silu_mul_backward)(const float *dy, const float *gate, const float *up, float *d_gate, float *d_up,
                                           int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        W silu, slope = NAME(load)(dy + i, n - i), above = NAME(load)(up + i, n - i);
        W slant = NAME(silu_slope64)(NAME(load)(gate + i, n - i), &silu);
        NAME(store)(d_gate + i, (slope * above) * slant, n - i);
        NAME(store)(d_up + i, slope * silu, n - i);
    }
}

/* One vector of weights e^(scale x - most), and their grid points. */
INLINE W NAME(weigh)(const float *x, float *out, int64_t count, double scale, double most) {
    N weight = __builtin_convertvector(NAME(exp64)(NAME(load)(x, count) * scale - most), N);
    if (out) NAME(put)(out, weight, count);
    return NAME(rint)(WIDEN(weight) * 0x1p32);
}

/* [7]: e^(scale x - largest) of n numbers into `out`, which may be NULL or x; returns their sum in steps of 2^-32, and the largest. */
INLINE double NAME(weights)(const float *x, float *out, int64_t n, double scale, double *largest) {
    W top = NAME(all)(-__builtin_inf()), sum = {0};
    const int64_t whole = n - n % LANES, rest = n - whole;
    for (int64_t i = 0; i < whole; i += LANES) top = NAME(larger)(NAME(load)(x + i, LANES), top);
    if (rest) top = NAME(larger)(NAME(pick)(NAME(first)(rest), NAME(load)(x + whole, rest), top), top);
    double most = NAME(largest)(top, -__builtin_inf()) * scale;
    for (int64_t i = 0; i < whole; i += LANES) sum += NAME(weigh)(x + i, out ? out + i : 0, LANES, scale, most);
    if (rest) sum += (W)((I)NAME(weigh)(x + whole, out ? out + whole : 0, rest, scale, most) & NAME(first)(rest));
    *largest = most;
    return NAME(total)(sum);
}

TARGET static void NAME(softmax_row)(const float *x, float *p, int64_t n, int64_t start, int64_t stop, double scale) {
    double largest;
    start = start < 0 ? 0 : start > n ? n : start;
    stop = stop < start ? start : stop > n ? n : stop;
    if (start) __builtin_memset(p, 0, (size_t)start * sizeof *p);
    if (stop < n) __builtin_memset(p + stop, 0, (size_t)(n - stop) * sizeof *p);
    double total = NAME(weights)(x + start, p + start, stop - start, scale, &largest), r = 1.0 / (total * 0x1p-32);
    for (int64_t i = start; i < stop; i += LANES) NAME(store)(p + i, NAME(load)(p + i, stop - i) * r, stop - i);
}

TARGET static void NAME(softmax_back_row)(const float *p, const float *dp, float *dx, int64_t n, int64_t start, int64_t stop,
                                          double scale) {
    start = start < 0 ? 0 : start > n ? n : start;
    stop = stop < start ? start : stop > n ? n : stop;
    if (start) __builtin_memset(dx, 0, (size_t)start * sizeof *dx);
    if (stop < n) __builtin_memset(dx + stop, 0, (size_t)(n - stop) * sizeof *dx);
    W top = {0}, sum = {0};
    for (int64_t i = start; i < stop; i += LANES) {
        W w = NAME(load)(p + i, stop - i), t = w * NAME(load)(dp + i, stop - i);
        top = NAME(larger)(NAME(size)((W)((I)t & (w != 0.0))), top);
    }
    double largest = NAME(largest)(top, 0.0), step, up = NAME(grid)(largest, &step);
    for (int64_t i = start; i < stop; i += LANES) {
        W w = NAME(load)(p + i, stop - i), t = w * NAME(load)(dp + i, stop - i);
        sum += NAME(rint)((W)((I)t & (w != 0.0)) * up);
    }
    double centre = NAME(gridsum)(NAME(total)(sum), largest, step);
    for (int64_t i = start; i < stop; i += LANES) {
        W w = NAME(load)(p + i, stop - i), t = (w * (NAME(load)(dp + i, stop - i) - centre)) * scale;
        NAME(store)(dx + i, (W)((I)t & (w != 0.0)), stop - i);
    }
}

/* [11]: the loss of one token, and into `slope`, which may be NULL or x, the gradient. */
TARGET static float NAME(cross_entropy_row)(const float *x, int64_t n, int64_t target, float *slope) {
    if (target < 0) {
        if (slope) __builtin_memset(slope, 0, (size_t)n * sizeof *slope);
        return 0.0f;
    }
    double largest, chosen = x[target], total = NAME(weights)(x, slope, n, 1.0, &largest);
    double loss = NAME(log64)(NAME(all)(total * 0x1p-32))[0] - (chosen - largest);
    if (slope) {
        double r = 1.0 / (total * 0x1p-32), weight = slope[target];
        for (int64_t i = 0; i < n; i += LANES) NAME(store)(slope + i, NAME(load)(slope + i, n - i) * r, n - i);
        slope[target] = (float)(weight * r - 1.0);
    }
    return (float)loss;
}

/* [9] */
TARGET static double NAME(rms_norm_row)(const float *x, const float *weight, float *y, int64_t n, double eps) {
    W top = {0}, sum = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        W v = NAME(load)(x + i, n - i);
        top = NAME(larger)(NAME(size)(v), top);
    }
    double most = NAME(largest)(top, 0.0), largest = most * most, step, up = NAME(grid)(largest, &step);
    for (int64_t i = 0; i < n; i += LANES) {
        W v = NAME(load)(x + i, n - i);
        sum += NAME(rint)((v * v) * up);
    }
    double mean = NAME(gridsum)(NAME(total)(sum), largest, step) / (double)n, r = 1.0 / __builtin_sqrt(mean + eps);
    for (int64_t i = 0; i < n; i += LANES)
        NAME(store)(y + i, (NAME(load)(x + i, n - i) * r) * NAME(load)(weight + i, n - i), n - i);
    return r;
}

TARGET static void NAME(rms_norm_back_row)(const float *dy, const float *x, const float *weight, double r, float *dx, int64_t n) {
    W top = {0}, sum = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        W g = NAME(load)(dy + i, n - i) * NAME(load)(weight + i, n - i);
        top = NAME(larger)(NAME(size)(g * NAME(load)(x + i, n - i)), top);
    }
    double largest = NAME(largest)(top, 0.0), step, up = NAME(grid)(largest, &step);
    for (int64_t i = 0; i < n; i += LANES) {
        W g = NAME(load)(dy + i, n - i) * NAME(load)(weight + i, n - i);
        sum += NAME(rint)((g * NAME(load)(x + i, n - i)) * up);
    }
    double a = ((NAME(gridsum)(NAME(total)(sum), largest, step) * r) * r) / (double)n;
    for (int64_t i = 0; i < n; i += LANES) {
        W g = NAME(load)(dy + i, n - i) * NAME(load)(weight + i, n - i);
        NAME(store)(dx + i, (g - NAME(load)(x + i, n - i) * a) * r, n - i);
    }
}

/* [3.4, 9]: a sequence's gradient of columns of the weight. A term's grid points n, up to 2^62, are summed as high * 2^32 + low: whole
   numbers below 2^48 in binary64, whatever the order. */
TARGET static void NAME(rms_norm_weight_columns)(const float *dy, const float *x, const double *r, int64_t tokens, int64_t row,
                                                 int64_t columns, double bound, int64_t *out) {
    for (int64_t j = 0; j < columns; j += LANES) {
        W high = {0}, low = {0};
        for (int64_t t = 0; t < tokens; t++) {
            W v = (NAME(load)(dy + t * row + j, columns - j) * NAME(load)(x + t * row + j, columns - j)) * r[t];
            v = NAME(most)(NAME(least)(v, -bound), bound) * 0x1p40;
            W up = NAME(rint)(v * 0x1p-32);
            high += up;
            low += NAME(rint)(v - up * 0x1p32);
        }
        for (int i = 0; i < LANES && j + i < columns; i++) out[j + i] = onto_grid(high[i], low[i]);
    }
}

/* [10]: the pairs of `heads` heads turned by one token's angles; `turn` is 1 or -1. */
TARGET static void NAME(rotate_token)(const float *x, const float *cos, const float *sin, float *y, int64_t heads, int64_t half,
                                      float turn) {
    for (int64_t head = 0; head < heads; head++, x += 2 * half, y += 2 * half)
        for (int64_t i = 0; i < half; i++) {
            float first = x[i], second = x[half + i], s = sin[i] * turn;
            y[i] = first * cos[i] - second * s;
            y[half + i] = second * cos[i] + first * s;
        }
}

/* One step of AdamW in binary32, every operation rounded. */
TARGET static void NAME(adamw)(float *p, float *mean, float *square, const float *g, int64_t n, const float *settings) {
    const float b1 = settings[0], c1 = settings[1], b2 = settings[2], c2 = settings[3];
    const float down = settings[4], eps = settings[5], up = settings[6], keep = settings[7];
    for (int64_t i = 0; i < n; i++) {
        float m = mean[i] * b1 + g[i] * c1, s = square[i] * b2 + (g[i] * g[i]) * c2;
        mean[i] = m;
        square[i] = s;
        p[i] = p[i] * keep - (m * up) / (__builtin_sqrtf(s) * down + eps);
    }
}

/* [3.4]: the mean over tokens of sums on the gradient grid. */
TARGET static void NAME(gradient_mean)(const int64_t *total, float *mean, int64_t n, double tokens) {
    for (int64_t i = 0; i < n; i++) {
        double v = (double)total[i] * 0x1p-40 / tokens;
        mean[i] = total[i] == POISON ? __builtin_nanf("") : (float)v;
    }
}

/* The bits of the largest magnitude: what is not finite is above all that is. */
TARGET static uint32_t NAME(largest_bits)(const float *x, int64_t n) {
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        __builtin_memcpy(&bits, x + i, 4);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return most;
}

/* [6.5]: the sum of squares times `factor`, each rounded to a whole number of at most 2^37: adding 1.5 * 2^52 leaves it, ties to
   even, in the low bits. */
TARGET static int64_t NAME(squares)(const float *x, int64_t n, double factor) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double wide = x[i], v = wide * wide * factor + 0x1.8p52;
        uint64_t bits;
        __builtin_memcpy(&bits, &v, 8);
        sum += bits - 0x4338000000000000;
    }
    return (int64_t)sum;
}

/* [13]: Philox4x32-10 of LANES counters, and Gumbel noise from its words. */
INLINE void NAME(philox)(NAME(bits) c[4], uint32_t low, uint32_t high) {
    for (int i = 0; i < 10; i++) {
        NAME(bits) left = c[0] * 0xd2511f53u, right = c[2] * 0xcd9e8d57u;
        c[0] = (right >> 32) ^ c[1] ^ low;
        c[1] = right & 0xffffffffu;
        c[2] = (left >> 32) ^ c[3] ^ high;
        c[3] = left & 0xffffffffu;
        low += 0x9e3779b9u;
        high += 0xbb67ae85u;
    }
}

INLINE W NAME(gumbel64)(NAME(bits) word) {
    W u = NAME(number)((I)word) * 0x1p-32 + 0x1p-33;
    return -NAME(log64)(-NAME(log64)(u));
}

/* Indices 4 block ... of one position, `n` of them, block a multiple of LANES. */
TARGET static void NAME(gumbel_span)(uint64_t seed, uint32_t stream, uint32_t position, uint64_t block, double *out, int64_t n) {
    NAME(bits) lane;
    for (int i = 0; i < LANES; i++) lane[i] = (uint64_t)i;
    for (int64_t i = 0; i < n; i += 4 * LANES, block += LANES) {
        NAME(bits) at = lane + block, c[4] = {at & 0xffffffffu, (NAME(bits)){0} + position, (NAME(bits)){0} + stream, at >> 32};
        double four[LANES * 4];
        NAME(philox)(c, (uint32_t)seed, (uint32_t)(seed >> 32));
        for (int k = 0; k < 4; k++) {
            W g = NAME(gumbel64)(c[k]);
            for (int l = 0; l < LANES; l++) four[4 * l + k] = g[l];
        }
        __builtin_memcpy(out + i, four, sizeof(double) * (size_t)(n - i < 4 * LANES ? n - i : 4 * LANES));
    }
}

static const struct elementwise NAME(elementwise) = {
    NAME(silu_mul),
    NAME(silu_mul_backward),
    NAME(softmax_row),
    NAME(softmax_back_row),
    NAME(cross_entropy_row),
    NAME(rms_norm_row),
    NAME(rms_norm_back_row),
    NAME(rms_norm_weight_columns),
    NAME(rotate_token),
    NAME(adamw),
    NAME(gumbel_span),
    NAME(gradient_mean),
    NAME(largest_bits),
    NAME(squares),
};

#undef INLINE
#undef W
#undef I
#undef N
#undef NAME
#undef TARGET
#undef LANES
#undef WIDEN
