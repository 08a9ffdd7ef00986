/* Plain versions of what the library computes, written from its header and Microsoft's layout, not from its code. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stdint.h>

float bf16_to_float(uint16_t bits);
/* To nearest, ties to even. */
uint16_t float_to_bf16(float value);

float f16_to_float(uint16_t bits);
/* To nearest, ties to even. */
uint16_t float_to_f16(float value);

/* Rows and columns that Ladder pads to. */
int64_t ladder_rows(int64_t n);
int64_t ladder_columns(int64_t k);
/* ladder_rows(n) * ladder_columns(k) / 4 bytes; to be freed. */
uint8_t *ladder_pack(const int8_t *ternary, int64_t n, int64_t k);

/* sum_k q[m, k] * t[n, k], [m, n]; to be freed. */
int32_t *products(const int8_t *q, const int8_t *t, int64_t m, int64_t n, int64_t k);

/* Quantizes a token; returns its scale. */
float quantize_token(const float *x, int8_t *q, int64_t k);

/* The norms in double, of one token; gamma and beta may be NULL. */
void rms_norm(const float *x, const float *gamma, double eps, double *y, int64_t width);
void layer_norm(const float *x, const float *gamma, const float *beta, double eps, double *y, int64_t width);

#endif
