/* A weight as it is given from outside: where its codes and scales lie, and what they stand for. Knows no product.

   A code of group g stands for (level - zero) * scale or level * scale + offset: level is the code itself, or what a table has
   for it. Scale and offset of a group are numbers of its own, or in two levels, as ggml's K-quants have them: a number of the
   span that the group lies in, times a small integer of the group's. Their product is exact in fp32, so that nothing is lost
   by keeping them apart, and memory is saved. */
#pragma once
#include "simd.h"

enum { HALF, BF16, FLOAT8, LEVELS4, TABLE4, INTEGER2, INTEGER3, INTEGER4, INTEGER5, INTEGER6, INTEGER8 };

typedef struct {
    int32_t kind;
    int32_t rows;                 /* N */
    int32_t width;                /* K, filled up with zeros to a multiple of 64 where a row has one scale */
    int32_t group;                /* inputs that share a scale */
    int32_t span;                 /* inputs that share its outer level: a group where there is one level */
    int32_t block;                /* 16, 32 or 64: inputs that share a step size, where codes are integers */
    int32_t wide_scale;           /* fp32 instead of fp16, offsets too */
    float middle;                 /* the zero point where there is no array of them and no offset */
    const void *codes;
    const void *scale;            /* [tiles][spans][16]; none at 16 bits */
    const void *offset;           /* the same, or none */
    const int8_t *scale_factor;   /* [tiles][groups][16], or none: what the span's scale is multiplied with */
    const int8_t *offset_factor;  /* the same for its offset */
    const uint8_t *zero;          /* [tiles][groups][16], or none */
    const float *levels;          /* sixteen, of codes that are looked up: whole numbers of 0 to 255 in TABLE4 */
    const float *bias;            /* [N] or none */
} Weight;

INLINE int is_integer(const Weight *w) { return w->block != 0; }

/* Bits of a code. */
INLINE int bits_of(const int kind) {
    switch (kind) {
        case INTEGER2: return 2;
        case INTEGER3: return 3;
        case INTEGER4: case LEVELS4: case TABLE4: return 4;
        case INTEGER5: return 5;
        case INTEGER6: return 6;
        case INTEGER8: case FLOAT8: return 8;
        default: return 16;
    }
}

/* Sixteen numbers, of scales or offsets. */
INLINE Floats numbers_of(const Weight *w, const void *from, size_t at) {
    return w->wide_scale ? load((const float *)from + at) : load_halves((const uint16_t *)from + at);
}

INLINE Floats scale_of(const Weight *w, size_t at) { return numbers_of(w, w->scale, at); }

INLINE Floats zero_of(const Weight *w, size_t at) { return w->zero ? floats(load_bytes(w->zero + at)) : all(w->middle); }

/* What stands in an array of outer numbers for a span, with the factor that a group has there, or none. */
INLINE Floats grouped(Floats of_span, const int8_t *factor, size_t of_group) {
    return factor ? of_span * floats(load_signed_bytes(factor + of_group)) : of_span;
}

/* What is added to level * scale in a group whose scale is known: fp32 holds a zero point's product with 16 bits exactly. */
INLINE Floats offset_of(const Weight *w, Floats of_span, Floats scale, size_t of_group) {
    return w->offset ? grouped(of_span, w->offset_factor, of_group) : -(scale * zero_of(w, of_group));
}
