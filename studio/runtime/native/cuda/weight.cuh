/* A weight in the order in which tensor cores take it: tiles of sixteen rows, in blocks that a warp reads in one go, 16 bytes
   a lane. Knows nothing of what it is multiplied with.

   A step is the sixteen inputs of one m16n8k16 product, a span the PER steps that share a scale, a block the STEPS of which a
   lane's 16 bytes hold its part. Lane 4 * g + t has, of rows g and g + 8, the inputs t * 4 * PER .. (t + 1) * 4 * PER - 1 of a
   span, four to a step: which inputs a step calls its first is free, as long as both factors agree.

   Unpacked numbers are exact: integers less the middle of their range, 3- and 4-bit ones 16 or 256 above their codes, small
   floats times a power of two that `factor` takes back. */
#pragma once

#define FULL 0xffffffffu
#define NOTHING __int_as_float(0xff800000) /* minus infinity */

enum Kind { HALF, BF16, INTEGER2, INTEGER3, INTEGER4, INTEGER8, LEVELS4, FLOAT4, FLOAT8 };

__device__ constexpr int steps_of(int kind) {
    return kind <= BF16 ? 1 : kind == INTEGER8 || kind == FLOAT8 ? 2 : kind == INTEGER2 ? 8 : 4;
}

/* What unpacked numbers without zero points have to lose, of rows g and g + 8. */
__device__ constexpr float excess_of(int kind, int below) {
    return kind == INTEGER4 ? (below ? 264 : 24) : kind == INTEGER3 ? (below ? 260 : 20) : 0;
}

/* The first of the four inputs that lane t has of a step of a block. */
template <int STEPS, int PER> __device__ inline int input_at(int block, int step, int t) {
    return 16 * (block * STEPS + step / PER * PER) + 4 * (t * PER + step % PER);
}

struct Weight {
    const uint4 *codes;          /* [tiles][blocks][32] */
    const unsigned char *scale;  /* [tiles][spans, or 1][8] records: of rows g and g + 8 the scales, fp16 or bf16, and where
                                    there are zero points what unpacked numbers have to lose, fp16 */
    const float *bias;           /* [tiles * 16] or none */
    const unsigned *levels;      /* fp16 [16]: four words of low bytes, then four of high ones */
    float factor;
    int rows, tiles, blocks;
};

/* The sort of a weight, which kernels are compiled for. PER steps share a scale; WHOLE: all of a row do. */
template <int KIND_, int PER_, bool WHOLE_, bool HAS_ZERO_, bool IS_BF16_SCALE_> struct Sort {
    static constexpr int KIND = KIND_, PER = PER_, STEPS = steps_of(KIND), SPANS = STEPS / PER, SPAN = 16 * PER;
    static constexpr bool WHOLE = WHOLE_, HAS_ZERO = HAS_ZERO_, IS_BF16_SCALE = IS_BF16_SCALE_;
    static constexpr bool IS_BF16 = KIND == BF16, IS_PACKED = KIND > BF16, IS_GROUPED = IS_PACKED && !WHOLE;
    static constexpr float EXCESS = excess_of(KIND, 0), EXCESS_BELOW = excess_of(KIND, 1);
    static constexpr bool HAS_EXCESS = excess_of(KIND, 0) != 0;
    static constexpr int RECORD = HAS_ZERO ? 8 : 4, RECORDS = IS_GROUPED ? SPANS * 8 * RECORD : 0; /* bytes; of a block */
};

__device__ inline unsigned subtract(unsigned a, unsigned b) {
    unsigned d;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

/* (v & mask) | bits, in one instruction. */
__device__ inline unsigned picked(unsigned v, unsigned mask, unsigned bits) {
    unsigned d;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(v), "r"(mask), "r"(bits));
    return d;
}

__device__ inline unsigned halves(float low, float high) {
    unsigned d;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
}

__device__ inline unsigned bf16s(float low, float high) {
    unsigned d;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
}

__device__ inline float half_low(unsigned pair) {
    float f;
    asm("{.reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, a;}" : "=f"(f) : "r"(pair));
    return f;
}

__device__ inline float half_high(unsigned pair) {
    float f;
    asm("{.reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, b;}" : "=f"(f) : "r"(pair));
    return f;
}

__device__ inline float bf16_low(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ inline float bf16_high(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

template <bool IS_BF16> __device__ inline float low_of(unsigned pair) {
    return IS_BF16 ? bf16_low(pair) : half_low(pair);
}
template <bool IS_BF16> __device__ inline float high_of(unsigned pair) {
    return IS_BF16 ? bf16_high(pair) : half_high(pair);
}

/* Weights are read once a token: past the first cache. */
__device__ inline uint4 stream(const uint4 *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
    return v;
}

struct Levels { unsigned byte[8]; };

template <int KIND> __device__ inline Levels levels_of(const Weight &w) {
    Levels levels = {};
    if (KIND == LEVELS4)
        for (int i = 0; i < 8; i++) levels.byte[i] = w.levels[i];
    return levels;
}

/* One byte of each of four nibbles' levels. */
__device__ inline unsigned looked_up(const unsigned *byte, unsigned nibbles) {
    unsigned within = nibbles & 0x7777, upper = ((nibbles >> 1) & 0x4444) | 0x3210;
    return __byte_perm(__byte_perm(byte[0], byte[1], within), __byte_perm(byte[2], byte[3], within), upper);
}

/* The numbers of one step in pairs: a[0] of row g, its first two inputs, a[1] of row g + 8, a[2] and a[3] the next two. */
template <int KIND> __device__ inline void unpack(const uint4 &v, int step, const Levels &levels, unsigned a[4]) {
    const unsigned words[4] = {v.x, v.y, v.z, v.w};
    if (KIND <= BF16) {
        for (int i = 0; i < 4; i++) a[i] = words[i];
    } else if (KIND == INTEGER4 || KIND == INTEGER3) {
        /* A code n put into the sixth bit and up of fp16's 16 is 16 + n, into the second of its 256 it is 256 + n. */
        const unsigned word = words[step], turned = __byte_perm(word, 0, 0x2301);
        a[0] = picked(word, 0x03c003c0, 0x4c004c00);
        a[1] = picked(word, 0x003c003c, 0x5c005c00);
        a[2] = picked(turned, 0x03c003c0, 0x4c004c00);
        a[3] = picked(turned, 0x003c003c, 0x5c005c00);
    } else if (KIND == INTEGER2) {
        for (int i = 0; i < 4; i++)
            a[i] = subtract(picked(words[step / 2] >> (2 * i + 8 * (step & 1)), 0x00030003, 0x64006400), 0x64026402);
    } else if (KIND == INTEGER8) {
        for (int i = 0; i < 4; i++)
            a[i] = subtract(__byte_perm(words[2 * step + i / 2], 0x64646464, i & 1 ? 0x4342 : 0x4140), 0x64806480);
    } else if (KIND == LEVELS4) {
        for (int i = 0; i < 4; i += 2) {
            const unsigned nibbles = words[step] >> (8 * i);
            const unsigned low = looked_up(levels.byte, nibbles), high = looked_up(levels.byte + 4, nibbles);
            a[i] = __byte_perm(low, high, 0x5140);
            a[i + 1] = __byte_perm(low, high, 0x7362);
        }
    } else if (KIND == FLOAT4) {  /* sign, two bits of exponent, one of mantissa: times 2^-14 */
        for (int i = 0; i < 4; i++) {
            const unsigned sign = words[step] << (12 - 4 * i);
            a[i] = (sign & 0x80008000) | ((sign >> 3) & 0x0e000e00);
        }
    } else {  /* E4M3: times 2^-8 */
        for (int i = 0; i < 4; i++) {
            const unsigned high = __byte_perm(words[2 * step + i / 2], 0, i & 1 ? 0x3424 : 0x1404);
            a[i] = (high & 0x80008000) | ((high & 0x7f007f00) >> 1);
        }
    }
}
