/* Which instruction set. */
#include "exact.h"

const struct kernels *fallow_kernels(int cap) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    if (cap >= 3 && wide && __builtin_cpu_supports("avx512vnni")) return &fallow_avx512vnni;
    if (cap >= 2 && wide) return &fallow_avx512bw;
    if (cap >= 1 && __builtin_cpu_supports("avx2")) return &fallow_avx2;
#endif
    (void)cap;
    return &fallow_portable;
}

const char *fallow_isa(int cap) { return fallow_kernels(cap)->name; }
