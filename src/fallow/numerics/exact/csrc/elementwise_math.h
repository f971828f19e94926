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
INLINE W NAME(signed)(W size, W sign) { return (W)((I)size | ((I)sign & INT64_MIN)); }
INLINE W NAME(rint)(W x) { return (x + ROUND) - ROUND; }

INLINE W NAME(root)(W x) {
    W y;
    for (int i = 0; i < LANES; i++) y[i] = __builtin_sqrt(x[i]);
    return y;
}

/* e^x = (1 + q) * s for |x| clamped to 700. */
INLINE W NAME(exp_parts)(W x, W *s) {
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
    *s = (W)(((I)t << 52) + ONE_BITS);
    return (p * r) * r + r;
}

INLINE W NAME(exp64)(W x) {
    W s, q = NAME(exp_parts)(x, &s);
    return (q + 1.0) * s;
}

INLINE W NAME(expm1_64)(W x) {
    W s, q = NAME(exp_parts)(x, &s);
    return q * s + (s - 1.0);
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

INLINE W NAME(tanh64)(W x) {
    W a = NAME(size)(x), p = NAME(expm1_64)(a + a);
    return NAME(signed)(p / (p + 2.0), x);
}

INLINE W NAME(sigmoid64)(W x) { return 1.0 / (NAME(exp64)(-x) + 1.0); }

INLINE W NAME(erfc64)(W x) {
    x = NAME(most)(x, 26.0);
    W t = (x - 3.75) / (x + 3.75);
    W p = t * 0x1.38cf6cbfb5e30p-26 + 0x1.244b99ea9fb27p-27;
    p = p * t + -0x1.d346b6e1176ccp-23;
    p = p * t + -0x1.db252f5fcc52ep-26;
    p = p * t + 0x1.c924d0c129d20p-20;
    p = p * t + -0x1.0eb9b1a0f4a0cp-20;
    p = p * t + -0x1.7ec9cc7ce1183p-17;
    p = p * t + 0x1.77fb2c16e9ae4p-16;
    p = p * t + 0x1.b11ea9cb53c2cp-15;
    p = p * t + -0x1.3042f54c4b0fbp-12;
    p = p * t + 0x1.33fc8c69f49ddp-12;
    p = p * t + 0x1.cc3a4e35d032fp-10;
    p = p * t + -0x1.3f603e3d0cde6p-7;
    p = p * t + 0x1.d0b002c407c62p-6;
    p = p * t + -0x1.e0d0fa60f7ef8p-5;
    p = p * t + 0x1.7a14188f3f508p-4;
    p = p * t + -0x1.bda9309a7557bp-4;
    p = p * t + 0x1.510169d05fb8ap-4;
    p = p * t + 0x1.d5f294817b41bp-9;
    p = p * t + -0x1.1f367683f83b0p-3;
    p = p * t + 0x1.3ccda0b5d5dc2p+0;
    return (NAME(exp64)(-(x * x)) * p) / ((x + x) + 1.0);
}

INLINE W NAME(erf64)(W x) {
    W a = NAME(size)(x), z = a * a;
    W p = z * 0x1.fcc5720624c1cp-27 + -0x1.5f742ec43e71ap-23;
    p = p * z + 0x1.b9e6c9dc651a3p-20;
    p = p * z + -0x1.f4d25c3e0c2ebp-17;
    p = p * z + 0x1.f9a326f9b89b7p-14;
    p = p * z + -0x1.c02db40040b86p-11;
    p = p * z + 0x1.565bcd0e6a53fp-8;
    p = p * z + -0x1.b82ce31288b51p-6;
    p = p * z + 0x1.ce2f21a042be2p-4;
    p = p * z + -0x1.812746b0379e7p-2;
    p = p * z + 0x1.20dd750429b6dp+0;
    return NAME(signed)(NAME(pick)(a < 0.5, p * a, 1.0 - NAME(erfc64)(a)), x);
}

/* Sine and cosine of r + k pi/2, the quadrant k in the low bits of `bits`. */
INLINE W NAME(quadrants)(W r, I bits, W *cosine) {
    W z = r * r;
    W s = z * (-1.0 / 1307674368000.0) + 1.0 / 6227020800.0;
    s = s * z + -1.0 / 39916800.0;
    s = s * z + 1.0 / 362880.0;
    s = s * z + -1.0 / 5040.0;
    s = s * z + 1.0 / 120.0;
    s = s * z + -1.0 / 6.0;
    s = (s * z) * r + r;
    W c = z * (1.0 / 20922789888000.0) + -1.0 / 87178291200.0;
    c = c * z + 1.0 / 479001600.0;
    c = c * z + -1.0 / 3628800.0;
    c = c * z + 1.0 / 40320.0;
    c = c * z + -1.0 / 720.0;
    c = c * z + 1.0 / 24.0;
    c = c * z + -1.0 / 2.0;
    c = c * z + 1.0;
    I odd = (bits & 1) == 1, low = (bits & 2) == 2, turned = ((bits + 1) & 2) == 2;
    W sine = NAME(pick)(odd, c, s);
    *cosine = NAME(pick)(odd, s, c);
    *cosine = (W)((I)*cosine ^ (turned & INT64_MIN));
    return (W)((I)sine ^ (low & INT64_MIN));
}

INLINE W NAME(sincos64)(W x, W *cosine) {
    W a = NAME(size)(x);
    a = NAME(pick)(a <= 4194304.0, a, NAME(all)(__builtin_nan("")));
    W t = a * 0x1.45f306dc9c883p-1 + ROUND, k = t - ROUND;
    W r = ((a - k * 0x1.921fb54400000p+0) - k * 0x1.0b4611a400000p-34) - k * 0x1.13198a2e03707p-65;
    W sine = NAME(quadrants)(r, (I)t, cosine);
    return (W)((I)sine ^ ((I)x & INT64_MIN));
}

INLINE W NAME(silu64)(W x) { return NAME(least)(x, -FAR) / (NAME(exp64)(-x) + 1.0); }

INLINE W NAME(silu_slope64)(W x, W *silu) {
    W e = NAME(exp64)(-x) + 1.0, s = 1.0 / e;
    *silu = NAME(least)(x, -FAR) / e;
    return s * (NAME(most)(NAME(least)(x, -FAR), FAR) * (1.0 - s) + 1.0);
}

INLINE W NAME(normal_cdf64)(W x) {
    W tail = NAME(erfc64)(NAME(size)(x) * 0x1.6a09e667f3bcdp-1) * 0.5;
    return NAME(pick)(x < 0.0, tail, 1.0 - tail);
}

INLINE W NAME(gelu_slope64)(W x) {
    W near = NAME(most)(NAME(least)(x, -FAR), FAR);
    W density = NAME(exp64)((near * near) * -0.5) * 0x1.9884533d43651p-2;
    return NAME(normal_cdf64)(x) + near * density;
}

INLINE W NAME(twice_u)(W x) { return (((x * x) * 0.044715 + 1.0) * x) * 0x1.9884533d43651p+0; }

INLINE W NAME(gelu_tanh64)(W x) {
    W near = NAME(least)(x, -FAR);
    return near / (NAME(exp64)(-NAME(twice_u)(near)) + 1.0);
}

INLINE W NAME(gelu_tanh_slope64)(W x) {
    W near = NAME(most)(NAME(least)(x, -FAR), FAR);
    W s = NAME(sigmoid64)(NAME(twice_u)(near));
    W du = ((near * near) * (3.0 * 0.044715) + 1.0) * 0x1.9884533d43651p+0;
    return s * ((near * (1.0 - s)) * du + 1.0);
}
