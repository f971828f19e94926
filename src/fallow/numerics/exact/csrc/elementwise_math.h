/* Elementary functions on vectors of binary64: docs/spec/exact-arithmetic.md, section 6. Every line is IEEE operations in the order of
   the specification. Define NAME(x), TARGET, LANES and WIDEN (binary32 to binary64) before including it; it is included once for each instruction set. */

#define INLINE TARGET static inline __attribute__((always_inline))
typedef double NAME(wide) __attribute__((vector_size(LANES * 8)));
typedef int64_t NAME(whole) __attribute__((vector_size(LANES * 8)));
typedef uint64_t NAME(bits) __attribute__((vector_size(LANES * 8)));
typedef float NAME(narrow) __attribute__((vector_size(LANES * 4)));
/* The same anywhere in memory. */
typedef float NAME(loose) __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
#define W NAME(wide)
#define I NAME(whole)
#define N NAME(narrow)

/* Adding it leaves rint of |x| < 2^51 in the low bits, ties to even, and taking it away again leaves rint(x). */
#define ROUND 0x1.8p52
#define ONE_BITS 0x3ff0000000000000
#define MANTISSA 0x000fffffffffffff
#define SQRT_HALF_BITS 0x3fe6a09e00000000
#define FAR 700.0

INLINE W NAME(all)(double x) { return (W){0} + x; }
INLINE W NAME(pick)(I mask, W yes, W no) { return (W)(((I)yes & mask) | ((I)no & ~mask)); }
INLINE W NAME(least)(W x, double bound) { return NAME(pick)(x < bound, NAME(all)(bound), x); }
INLINE W NAME(most)(W x, double bound) { return NAME(pick)(x > bound, NAME(all)(bound), x); }
INLINE W NAME(size)(W x) { return (W)((I)x & INT64_MAX); }
INLINE W NAME(rint)(W x) { return (x + ROUND) - ROUND; }

/* e^x for |x| clamped to 700. */
INLINE W NAME(exp64)(W x) {
    x = NAME(most)(NAME(least)(x, -FAR), FAR);
    W t = x * 0x1.71547652b82fep+0 + ROUND, k = t - ROUND;
    W r = (x - k * 0x1.62e42fef00000p-1) - k * 0x1.473de6af278edp-34;
    W p = r * (1.0 / 39916800.0) + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 1.0 / 2.0;
    return ((p * r) * r + r + 1.0) * (W)(((I)t << 52) + ONE_BITS);
}

/* Whole numbers below 2^51 in magnitude as binary64. */
INLINE W NAME(number)(I k) { return (W)(k + (int64_t)0x4338000000000000) - ROUND; }

INLINE W NAME(log64)(W x) {
    I bits = (I)x + (int64_t)(ONE_BITS - SQRT_HALF_BITS);
    /* a logical shift, which every processor has: negative x are NaN in the end */
    I exponent = (I)((NAME(bits))bits >> 52) - 1023;
    W k = NAME(number)(exponent);
    W m = (W)((bits & (int64_t)MANTISSA) + (int64_t)SQRT_HALF_BITS);
    W s = (m - 1.0) / (m + 1.0), z = s * s;
    W p = z * (2.0 / 19.0) + 2.0 / 17.0;
    p = p * z + 2.0 / 15.0;
    p = p * z + 2.0 / 13.0;
    p = p * z + 2.0 / 11.0;
    p = p * z + 2.0 / 9.0;
    p = p * z + 2.0 / 7.0;
    p = p * z + 2.0 / 5.0;
    p = p * z + 2.0 / 3.0;
    W small = (p * z) * s + (s + s);
    W y = (k * 0x1.473de6af278edp-34 + small) + k * 0x1.62e42fef00000p-1;
    y = NAME(pick)(x == __builtin_inf(), x, y);
    y = NAME(pick)(x == 0.0, NAME(all)(-__builtin_inf()), y);
    return NAME(pick)(x >= 0.0, y, NAME(all)(__builtin_nan("")));
}

INLINE W NAME(silu64)(W x) { return NAME(least)(x, -FAR) / (NAME(exp64)(-x) + 1.0); }

INLINE W NAME(silu_slope64)(W x, W *silu) {
    W e = NAME(exp64)(-x) + 1.0, s = 1.0 / e;
    *silu = NAME(least)(x, -FAR) / e;
    return s * (NAME(most)(NAME(least)(x, -FAR), FAR) * (1.0 - s) + 1.0);
}
