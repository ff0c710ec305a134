/* Sixteen numbers at once, in GCC's vector types: AVX-512, AVX2 and NEON come from the same lines. Only what those types
   cannot say has a variant for each processor. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define LANES 16
#ifdef __AVX512F__
#define MOST_AT_ONCE 6  /* tokens that four tiles meet at once: there are registers for their 24 sums */
#else
#define MOST_AT_ONCE 4  /* compilers take minutes over more, which would not help */
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef int8_t SignedBytes __attribute__((vector_size(16)));
typedef uint16_t Shorts __attribute__((vector_size(32)));
typedef int16_t SignedShorts __attribute__((vector_size(32)));

INLINE Floats load(const float *from) { Floats v; memcpy(&v, from, sizeof v); return v; }
INLINE void store(float *to, Floats v) { memcpy(to, &v, sizeof v); }
INLINE Floats all(float number) { return number - (Floats){0}; }
INLINE Floats floats(Ints v) { return __builtin_convertvector(v, Floats); }
INLINE Ints ints(Floats v) { return __builtin_convertvector(v, Ints); }  /* towards zero */
INLINE Floats as_floats(Ints v) { Floats f; memcpy(&f, &v, sizeof f); return f; }
INLINE Ints as_ints(Floats v) { Ints i; memcpy(&i, &v, sizeof i); return i; }

/* Compilers take __builtin_convertvector apart here, byte by byte. */
INLINE Ints load_bytes(const uint8_t *from) {
#if defined(__AVX512F__)
    return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
#elif defined(__AVX2__)
    union { __m256i half[2]; Ints whole; } v;
    v.half[0] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from));
    v.half[1] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(from + 8)));
    return v.whole;
#else
    Bytes b;
    memcpy(&b, from, sizeof b);
    return __builtin_convertvector(b, Ints);
#endif
}

INLINE Ints load_signed_bytes(const int8_t *from) {
#if defined(__AVX512F__)
    return (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from));
#elif defined(__AVX2__)
    union { __m256i half[2]; Ints whole; } v;
    v.half[0] = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from));
    v.half[1] = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(from + 8)));
    return v.whole;
#else
    SignedBytes b;
    memcpy(&b, from, sizeof b);
    return __builtin_convertvector(b, Ints);
#endif
}

/* fp16 -> fp32 */
INLINE Floats load_halves(const uint16_t *from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__F16C__)
    union { __m256 half[2]; Floats whole; } v;
    v.half[0] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
    v.half[1] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 8)));
    return v.whole;
#else
    Floats v;
    for (int i = 0; i < LANES; i++) { _Float16 h; memcpy(&h, from + i, 2); v[i] = (float)h; }
    return v;
#endif
}

/* fp32 -> fp16, to nearest */
INLINE void store_halves(uint16_t *to, Floats v) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    for (int i = 0; i < LANES; i++) { _Float16 h = (_Float16)v[i]; memcpy(to + i, &h, 2); }
#endif
}

/* bf16 -> fp32 */
INLINE Floats load_bf16(const uint16_t *from) {
#if defined(__AVX512F__)
    return as_floats((Ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)) << 16);
#else
    Shorts s;
    memcpy(&s, from, sizeof s);
    return as_floats(__builtin_convertvector(s, Ints) << 16);
#endif
}

/* The lower halves of sixteen integers. */
INLINE void store_shorts(int16_t *to, Ints v) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16((__m512i)v));
#else
    SignedShorts halves = __builtin_convertvector(v, SignedShorts);
    memcpy(to, &halves, sizeof halves);
#endif
}

/* FP8 E4M3 codes -> 2^-8 of what they stand for: the same bits are an fp16 whose exponent counts from 15 instead of 7. */
INLINE Floats load_float8(const uint8_t *from) {
    Bytes b;
    memcpy(&b, from, sizeof b);
    Shorts s = __builtin_convertvector(b, Shorts), halves = ((s & 0x80) << 8) | ((s & 0x7f) << 7);
    uint16_t kept[LANES];
    memcpy(kept, &halves, sizeof kept);
    return load_halves(kept);
}

/* levels[code & 15] of each lane; what stands above those four bits does not matter. */
INLINE Floats look_up(const float *levels, Floats table, Ints codes) {
#if defined(__AVX512F__)
    (void)levels;
    return (Floats)_mm512_permutexvar_ps((__m512i)codes, (__m512)table);
#else
    (void)table;
    Floats v;
    for (int i = 0; i < LANES; i++) v[i] = levels[codes[i] & 15];
    return v;
#endif
}

/* Sixteen levels as bytes, four times over: what look_up_bytes looks up in. Those that no byte holds are cut. */
INLINE Words bytes_of(const float *levels) {
    uint8_t bytes[4 * LANES];
    for (int i = 0; i < 4 * LANES; i++) {
        const float level = levels[i % LANES];
        bytes[i] = level > 0 ? level < 255 ? (uint8_t)level : 255 : 0;
    }
    Words v;
    memcpy(&v, bytes, sizeof v);
    return v;
}

/* table[code] of each lane's two halves, whose codes are 0 to 15. */
INLINE Ints look_up_bytes(Words table, Words codes) {
#if defined(__AVX512BW__)
    return (Ints)_mm512_shuffle_epi8((__m512i)table, (__m512i)(codes | 0x80008000));  /* a byte with that bit gives 0 */
#elif defined(__AVX2__)
    union { Words whole; __m256i half[2]; } t = {table}, c = {codes | 0x80008000};
    for (int i = 0; i < 2; i++) c.half[i] = _mm256_shuffle_epi8(t.half[i], c.half[i]);
    return (Ints)c.whole;
#else
    uint8_t bytes[LANES];
    memcpy(bytes, &table, sizeof bytes);
    Ints v;
    for (int i = 0; i < LANES; i++) v[i] = bytes[codes[i] & 15] | bytes[codes[i] >> 16 & 15] << 16;
    return v;
#endif
}

/* sum + the two products of each lane's 16-bit halves, which are not negative here, with the two signed ones of `two` */
INLINE Ints dot(Ints sum, Ints halves, int32_t two) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)halves, _mm512_set1_epi32(two));
#elif defined(__AVX2__)
    union { Ints whole; __m256i half[2]; } s = {sum}, h = {halves};
    for (int i = 0; i < 2; i++)
        s.half[i] = _mm256_add_epi32(s.half[i], _mm256_madd_epi16(h.half[i], _mm256_set1_epi32(two)));
    return s.whole;
#else
    return sum + (halves & 0xffff) * (int32_t)(int16_t)two + (halves >> 16) * (two >> 16);
#endif
}

/* a * b + c, rounded once where the processor can */
INLINE Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    union { Floats whole; __m256 half[2]; } x = {a}, y = {b}, z = {c};
    for (int i = 0; i < 2; i++) z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
    return z.whole;
#else
    return a * b + c;
#endif
}

INLINE Floats larger(Floats a, Floats b) {
    Ints takes = a > b;
    return as_floats((as_ints(a) & takes) | (as_ints(b) & ~takes));
}

/* Fold sixteen lanes into one, halves upon halves. */
#define FOLDED(v, of)                                                                                        \
    v = of(v, __builtin_shuffle(v, (Ints){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}));           \
    v = of(v, __builtin_shuffle(v, (Ints){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11}));           \
    v = of(v, __builtin_shuffle(v, (Ints){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13}));           \
    v = of(v, __builtin_shuffle(v, (Ints){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14}));
#define ADDED(a, b) ((a) + (b))

INLINE float total(Floats v) { FOLDED(v, ADDED) return v[0]; }
INLINE int32_t total_of_ints(Words v) { FOLDED(v, ADDED) return (int32_t)v[0]; }  /* modulo 2^32 */
INLINE float largest(Floats v) { FOLDED(v, larger) return v[0]; }

/* e^v within 2 units in the last place: 2^n times a polynomial on [-ln2/2, ln2/2] (coefficients of Cephes' expf) */
INLINE Floats exponential(Floats v) {
    v = larger(v, all(-87.0f));
    v = -larger(-v, all(-88.0f));
    Floats scaled = v * 1.44269504088896341f;
    Ints n = ints(scaled + as_floats((as_ints(scaled) & (int32_t)0x80000000) | 0x3f000000));  /* half away from zero */
    Floats r = v - floats(n) * 0.693359375f + floats(n) * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.0f) * as_floats((n + 127) << 23);
}
