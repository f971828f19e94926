/* AVX-512 without VNNI: vpmaddwd and an addition. */
#include "exact.h"

#if defined(__x86_64__)
#define NAME(x) x##_avx512bw
#define TEXT "avx512bw"
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define DOT(sum, x, y) _mm512_add_epi32(sum, _mm512_madd_epi16(x, y))
#include "tile512.h"
#include "generic.h"
#endif
