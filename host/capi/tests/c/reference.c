#include "reference.h"

#include <math.h>
#include <string.h>

#include "check.h"

float bf16_to_float(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

uint16_t float_to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) /* NaN stays one */
        return (uint16_t)(bits >> 16 | 0x40);
    bits += 0x7fff + (bits >> 16 & 1);
    return (uint16_t)(bits >> 16);
}

float f16_to_float(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float magnitude = exponent == 0    ? ldexpf((float)fraction, -24)
                      : exponent == 31 ? (fraction ? NAN : INFINITY)
                                       : ldexpf((float)(1024 + fraction), exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

uint16_t float_to_f16(float value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    float magnitude = fabsf(value);
    if (isnan(value))
        return sign | 0x7e00;
    if (magnitude >= 65520) /* half a step beyond the largest */
        return sign | 0x7c00;
    int exponent;
    frexpf(magnitude, &exponent);
    if (magnitude == 0 || exponent < -13) /* subnormals have the spacing of the least normal ones */
        exponent = -13;
    /* Steps of this exponent; a carry into the next is right, as the fields lie one above the other. */
    int steps = (int)nearbyintf(ldexpf(magnitude, 11 - exponent));
    return sign | (uint16_t)(steps + ((exponent + 13) << 10));
}

int64_t ladder_rows(int64_t n) { return (n + 15) / 16 * 16; }
int64_t ladder_columns(int64_t k) { return (k + 31) / 32 * 32; }

/*
 * 16 x 32 blocks in row-major order, 128 bytes each. Thread t of 32 has row 8 (t / 16) + t % 8 and the 16 columns from
 * 16 (t / 8 % 2): a little-endian word in which element e is in bits 8 (e % 4) + 2 (e / 4), as w + 2.
 */
uint8_t *ladder_pack(const int8_t *ternary, int64_t n, int64_t k) {
    int64_t rows = ladder_rows(n), columns = ladder_columns(k);
    uint8_t *bytes = allocate((size_t)(rows * columns / 4), 1), *at = bytes;
    for (int64_t row = 0; row < rows; row += 16)
        for (int64_t column = 0; column < columns; column += 32)
            for (int thread = 0; thread < 32; thread++) {
                int64_t r = row + 8 * (thread / 16) + thread % 8;
                int64_t c = column + 16 * (thread / 8 % 2);
                uint32_t word = 0;
                for (int e = 0; e < 16; e++) {
                    int weight = r < n && c + e < k ? ternary[r * k + c + e] : 0;
                    word |= (uint32_t)(weight + 2) << (8 * (e % 4) + 2 * (e / 4));
                }
                for (int byte = 0; byte < 4; byte++)
                    *at++ = (uint8_t)(word >> 8 * byte);
            }
    return bytes;
}

int32_t *products(const int8_t *q, const int8_t *t, int64_t m, int64_t n, int64_t k) {
    int32_t *sums = allocate((size_t)(m * n), sizeof *sums);
    for (int64_t token = 0; token < m; token++)
        for (int64_t row = 0; row < n; row++) {
            int32_t sum = 0;
            for (int64_t i = 0; i < k; i++)
                sum += q[token * k + i] * t[row * k + i];
            sums[token * n + row] = sum;
        }
    return sums;
}

float quantize_token(const float *x, int8_t *q, int64_t k) {
    float largest = 1e-5f;
    for (int64_t i = 0; i < k; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    float scale = 127.0f / largest;
    for (int64_t i = 0; i < k; i++)
        q[i] = (int8_t)fminf(fmaxf(nearbyintf(x[i] * scale), -128.0f), 127.0f);
    return scale;
}

static void normalize(const float *x, double mean, const float *gamma, const float *beta, double eps, double *y, int64_t width) {
    double sum = 0;
    for (int64_t i = 0; i < width; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    for (int64_t i = 0; i < width; i++)
        y[i] = (x[i] - mean) / sqrt(sum / (double)width + eps) * (gamma ? gamma[i] : 1) + (beta ? beta[i] : 0);
}

void rms_norm(const float *x, const float *gamma, double eps, double *y, int64_t width) {
    normalize(x, 0, gamma, NULL, eps, y, width);
}

void layer_norm(const float *x, const float *gamma, const float *beta, double eps, double *y, int64_t width) {
    double sum = 0;
    for (int64_t i = 0; i < width; i++)
        sum += x[i];
    normalize(x, sum / (double)width, gamma, beta, eps, y, width);
}
