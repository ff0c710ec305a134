/* Products with integer codes of 2 to 8 bits, straight from the packed codes. Knows nothing of steps or threads.

   They meet x as 16-bit integers, one step size a block of 16, 32 or 64 inputs: exact products and sums, and an x that errs by
   2^-16 of the block's largest. What a block adds to an output is then step * scale * (codes . n) + offset * sum, in fp32. */
#pragma once
#include "weight.h"

/* What T tokens bring to a product, rows `stride` apart; there are rows for a multiple of four of them. */
typedef struct {
    float *x;            /* [T][stride] */
    int16_t *n;          /* [T][stride]: x = step * n; eights in the order 0 4 1 5 2 6 3 7, as pairs of codes come */
    float *step, *sum;   /* [T][stride / 16]: of each block its step size, and what step * n adds up to */
    int32_t stride, block;
} Inputs;

#define LARGEST 32767.0f

INLINE int blocks_of(int stride) { return stride / LANES; }  /* places for them: at most so many */

/* Fill the integers of one token from its x[0..width): the activations quantized, a step size a block. */
static void quantize_activations(const Inputs *in, int token, int width) {
    const float *x = in->x + (size_t)token * in->stride;
    int16_t *to = in->n + (size_t)token * in->stride;
    float *step = in->step + (size_t)token * blocks_of(in->stride), *sum = in->sum + (size_t)token * blocks_of(in->stride);
    for (int start = 0; start < width; start += in->block, step++, sum++) {
        Floats top = {0};
        for (int i = 0; i < in->block; i += LANES) {
            Floats v = load(x + start + i);
            top = larger(top, larger(v, -v));
        }
        float most = largest(top), inverse = most > 0 ? LARGEST / most : 0;
        Words whole = {0};  /* inputs that are no numbers make integers that overflow */
        for (int i = 0; i < in->block; i += LANES) {
            Floats v = load(x + start + i) * inverse;
            Ints n = ints(v + as_floats((as_ints(v) & (int32_t)0x80000000) | 0x3f000000));
            whole += (Words)n;
            n = __builtin_shuffle(n, (Ints){0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15});
            store_shorts(to + start + i, n);
        }
        *step = most / LARGEST;
        *sum = *step * (float)total_of_ints(whole);
    }
}

INLINE int32_t pair(const int16_t *n) { int32_t v; memcpy(&v, n, sizeof v); return v; }

/* Codes lie in runs of 32 inputs, `bits` vectors of sixteen rows' 32-bit words each. A run's half has its codes' lower four bits
   in two words, the next two bits in one; what is left of an odd number of bits comes last, of both halves in one word. Eight
   bits are bytes: of each eight inputs the even ones, then the odd. */
typedef struct { Words lower, upper, last; } Eight;

/* What holds the codes of eight inputs, the `i`th eight of a row. */
INLINE Eight eight_of(const Ints *codes, unsigned i, const int bits) {
    if (bits == 4) return (Eight){.lower = (Words)codes[i]};
    if (bits == 8) return (Eight){.lower = (Words)codes[2 * i], .upper = (Words)codes[2 * i + 1]};
    const unsigned run = i / 4 * (unsigned)bits, half = run + i % 4 / 2 * (bits / 2);
    Eight v = {{0}, {0}, {0}};
    if (bits & 4) v.lower = (Words)codes[half + i % 2];
    if (bits & 2) v.upper = (Words)codes[half + (bits & 4 ? 2 : 0)] >> (i % 2 * 8);
    if (bits & 1) v.last = (Words)codes[run + bits - 1] >> (i % 4 * 4);
    return v;
}

/* Some bits of each half word of `v`, from bit `from` on, moved to bit `to`. */
INLINE Words moved(Words v, const int from, const int to, const uint32_t mask) {
    return (from > to ? v >> (from - to) : v << (to - from)) & mask << to;
}

/* Inputs `j` and `j` + 4 of eight, as 16-bit numbers of sixteen rows. */
INLINE Ints pairs(Eight v, const int j, const int kind, Words table) {
    const int bits = bits_of(kind);
    if (bits == 8) return (Ints)((j % 2 ? v.upper : v.lower) >> (j / 2 * 8) & 0x00ff00ff);
    Words code = {0};
    if (bits & 4) code = v.lower >> (4 * j) & 0x000f000f;
    if (bits & 2) code |= moved(v.upper, 2 * j, bits & 4, 0x00030003);
    if (bits & 1) code |= moved(v.last, j, bits - 1, 0x00010001);
    return kind == TABLE4 ? look_up_bytes(table, code) : (Ints)code;
}

/* A kernel's sums must stay in registers: compilers keep named variables there, arrays they do not. So the kernels name
   the sums of four tokens, T = 4, and leave out those that a single one, T = 1, does not need. */

/* The integer products of one block, eights `i` to `end` of one tile with one token: four sums, so that no product waits for
   another. */
INLINE Ints block_1x1(const Ints *codes, unsigned i, unsigned end, const int16_t *n, const int kind, Words table) {
    Ints s0 = {0}, s1 = s0, s2 = s0, s3 = s0;
#pragma GCC unroll 2
    for (; i < end; i++, n += 8) {
        const Eight v = eight_of(codes, i, bits_of(kind));
        s0 = dot(s0, pairs(v, 0, kind, table), pair(n));
        s1 = dot(s1, pairs(v, 1, kind, table), pair(n + 2));
        s2 = dot(s2, pairs(v, 2, kind, table), pair(n + 4));
        s3 = dot(s3, pairs(v, 3, kind, table), pair(n + 6));
    }
    return (s0 + s1) + (s2 + s3);
}

/* The same of four tiles with four or six tokens: each number of either, once loaded, meets all of the other. Six, where there
   are registers for 24 sums: a code is unpacked less often. */
#define FOUR(OF) OF(0) OF(1) OF(2) OF(3)
#define SIX(OF) FOUR(OF) OF(4) OF(5)
#define BEGIN(t)                                              \
    Ints a##t = {0}, b##t = {0}, c##t = {0}, d##t = {0};      \
    const int16_t *n##t = n + (t) * stride;
#define MULTIPLY_ADD(t)                       \
    {                                         \
        const int32_t x = pair(n##t + k);     \
        a##t = dot(a##t, p, x);               \
        b##t = dot(b##t, q, x);               \
        c##t = dot(c##t, r, x);               \
        d##t = dot(d##t, s, x);               \
    }
#define MULTIPLY_ADD_PAIRS(j, TOKENS)                                                           \
    {                                                                                           \
        const Ints p = pairs(a, j, kind, table), q = pairs(b, j, kind, table);                  \
        const Ints r = pairs(c, j, kind, table), s = pairs(d, j, kind, table);                  \
        const int k = 8 * (int)(i - from) + 2 * (j);                                            \
        TOKENS(MULTIPLY_ADD)                                                                    \
    }
#define ADD_ONE(r, t, v) y[(r) * T + (t)] = fused(scale[r] * step, floats(v), fused(offset[r], sum, y[(r) * T + (t)]));
#define ADD(t)                                                                          \
    {                                                                                   \
        const Floats step = all(steps[(t) * blocks]), sum = all(sums[(t) * blocks]);    \
        ADD_ONE(0, t, a##t) ADD_ONE(1, t, b##t) ADD_ONE(2, t, c##t) ADD_ONE(3, t, d##t) \
    }
#define BLOCK(name, TOKENS, TOKEN_COUNT)                                                                                   \
    INLINE void name(const Ints *const codes[4], unsigned from, unsigned end, const int16_t *n, int stride,                \
                     const int kind, Words table, const Floats *scale, const Floats *offset, const float *steps,           \
                     const float *sums, int blocks, Floats *y) {                                                           \
        enum { T = TOKEN_COUNT };                                                                                          \
        const int bits = bits_of(kind);                                                                                    \
        TOKENS(BEGIN)                                                                                                      \
        for (unsigned i = from; i < end; i++) {                                                                            \
            const Eight a = eight_of(codes[0], i, bits), b = eight_of(codes[1], i, bits);                                  \
            const Eight c = eight_of(codes[2], i, bits), d = eight_of(codes[3], i, bits);                                  \
            MULTIPLY_ADD_PAIRS(0, TOKENS) MULTIPLY_ADD_PAIRS(1, TOKENS)                                                    \
            MULTIPLY_ADD_PAIRS(2, TOKENS) MULTIPLY_ADD_PAIRS(3, TOKENS)                                                    \
        }                                                                                                                  \
        TOKENS(ADD)                                                                                                        \
    }
BLOCK(block_4x4, FOUR, 4)
BLOCK(block_4x6, SIX, 6)
#undef BEGIN
#undef MULTIPLY_ADD
#undef MULTIPLY_ADD_PAIRS

/* y[R][T] = the products of integer codes: R tiles with T tokens, one with one or four with four or six. Where there are no
   four tiles any more the last one is done again. */
INLINE void integer_tiles(const Weight *w, int tile, int last, const Inputs *in, int token, Floats *y, const int kind,
                          const int R, const int T) {
    const int spans = w->width / w->span, per_span = w->span / w->group, groups = w->width / w->group;
    const int per_group = w->group / in->block, blocks = blocks_of(in->stride);
    const unsigned eights = (unsigned)in->block / 8;
    const Words table = kind == TABLE4 ? bytes_of(w->levels) : (Words){0};
    int at[4];
    const Ints *codes[4];
    for (int r = 0; r < R; r++) {
        at[r] = tile + r < last ? tile + r : last;
        codes[r] = (const Ints *)w->codes + (size_t)at[r] * w->width * bits_of(kind) / 32;
    }
    for (int t = 0; t < R * T; t++) y[t] = all(0);
    const int16_t *n = in->n + (size_t)token * in->stride;
    const float *steps = in->step + (size_t)token * blocks, *sums = in->sum + (size_t)token * blocks;
    unsigned i = 0;
    for (int s = 0, g = 0; s < spans; s++) {
        Floats of_span[4], added[4];
        for (int r = 0; r < R; r++) {
            const size_t place = ((size_t)at[r] * spans + s) * LANES;
            of_span[r] = scale_of(w, place);
            added[r] = w->offset ? numbers_of(w, w->offset, place) : all(0);
        }
        for (const int stop = g + per_span; g < stop; g++) {
            Floats scale[4], offset[4];
            for (int r = 0; r < R; r++) {
                const size_t of_group = ((size_t)at[r] * groups + g) * LANES;
                scale[r] = grouped(of_span[r], w->scale_factor, of_group);
                offset[r] = offset_of(w, added[r], scale[r], of_group);
            }
            for (int b = 0; b < per_group; b++, i += eights, n += in->block, steps++, sums++) {
                const unsigned end = i + eights;
                if (R == 1) {
                    const Ints found = block_1x1(codes[0], i, end, n, kind, table);
                    const Floats step = all(*steps), sum = all(*sums);
                    ADD_ONE(0, 0, found)
                } else if (T == 4) {
                    block_4x4(codes, i, end, n, in->stride, kind, table, scale, offset, steps, sums, blocks, y);
                } else {
                    block_4x6(codes, i, end, n, in->stride, kind, table, scale, offset, steps, sums, blocks, y);
                }
            }
        }
    }
}
#undef ADD
#undef ADD_ONE

/* The code of input k in one lane of a tile, dequantizing one row. */
static int integer_at(const Weight *w, int tile, int k, int lane) {
    const int bits = bits_of(w->kind), half = k / 16, p = k % 16 / 8 * 4 + k % 4, upper = k % 8 / 4 * 16;
    const uint32_t *words = (const uint32_t *)w->codes + (size_t)tile * w->width / 32 * bits * LANES + lane;
#define WORD(at) words[(size_t)(at) * LANES]
    if (bits == 8) return (int)(WORD(k / 8 * 2 + k % 2) >> (k % 8 / 2 * 8) & 255);
    const size_t first = (size_t)(half / 2) * (size_t)bits + (size_t)(half % 2 * (bits / 2));
    uint32_t code = 0;
    if (bits & 4) code = WORD(first + (size_t)(p / 4)) >> (p % 4 * 4 + upper) & 15;
    if (bits & 2) code |= (WORD(first + (bits & 4 ? 2 : 0)) >> (2 * p + upper) & 3) << (bits & 4);
    if (bits & 1) code |= (WORD(half / 2 * bits + bits - 1) >> (half % 2 * 8 + p + upper) & 1) << (bits - 1);
#undef WORD
    return (int)code;
}
