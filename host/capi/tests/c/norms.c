/* Norms, alone and fused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "reference.h"
#include "tests.h"

enum { M = 3, N = 5, MOST = 200 };

/* The half unit in the last place of f32. */
static const double U = 0x1p-24;

static size_t size_of(bitnet_dtype dtype) { return dtype == BITNET_F32 ? 4 : 2; }

static uint16_t to_16(bitnet_dtype dtype, float value) {
    return dtype == BITNET_F16 ? float_to_f16(value) : float_to_bf16(value);
}

static float from_16(bitnet_dtype dtype, uint16_t bits) {
    return dtype == BITNET_F16 ? f16_to_float(bits) : bf16_to_float(bits);
}

static float rounded(bitnet_dtype dtype, float value) {
    return dtype == BITNET_F32 ? value : from_16(dtype, to_16(dtype, value));
}

/* Device memory with `count` values of a dtype, `offset` elements into an allocation. They are rounded in place. */
static void *upload_floats(float *values, int count, bitnet_dtype dtype, int offset) {
    size_t size = size_of(dtype);
    uint8_t *bytes = allocate((size_t)(count + offset), size);
    for (int i = 0; i < count; i++) {
        uint16_t bits = to_16(dtype, values[i]);
        memcpy(bytes + size * (size_t)(i + offset), dtype == BITNET_F32 ? (void *)&values[i] : &bits, size);
        values[i] = rounded(dtype, values[i]);
    }
    void *pointer = upload(bytes, size * (size_t)(count + offset));
    free(bytes);
    return (char *)pointer + size * (size_t)offset;
}

static void download_floats(float *values, const void *pointer, int count, bitnet_dtype dtype) {
    size_t size = size_of(dtype);
    uint8_t *bytes = allocate((size_t)count, size);
    download(bytes, pointer, size * (size_t)count);
    for (int i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(dtype == BITNET_F32 ? (void *)&values[i] : &bits, bytes + size * (size_t)i, size);
        if (dtype != BITNET_F32)
            values[i] = from_16(dtype, bits);
    }
    free(bytes);
}

typedef struct {
    bool layer;
    const float *gamma, *beta;
    float eps;
} parameters;

static bitnet_norm *create(parameters p, int width) {
    bitnet_norm *norm = NULL;
    if (p.layer)
        OK(bitnet_norm_create_layer(device, width, p.gamma, p.beta, p.eps, &norm));
    else
        OK(bitnet_norm_create_rms(device, width, p.gamma, p.eps, &norm));
    return norm;
}

/* Each output within the bound of docs/numerics.md for a width up to 8192, on the f32 value that is then rounded to the dtype. */
static void expect(const float *y, const float *x, parameters p, int width, bitnet_dtype dtype, const char *what) {
    double exact[MOST];
    for (int token = 0; token < M; token++, x += width, y += width) {
        double mean = 0, magnitude = 0, variance = 0;
        for (int i = 0; i < width; i++)
            mean += x[i] / (double)width;
        for (int i = 0; i < width; i++) {
            magnitude += fabs(x[i]) / width;
            variance += (x[i] - mean) * (x[i] - mean) / width;
        }
        double shift = p.layer ? (15 * U * magnitude + 0x1p-149) / sqrt(variance + p.eps) : 0;
        if (p.layer)
            layer_norm(x, p.gamma, p.beta, p.eps, exact, width);
        else
            rms_norm(x, p.gamma, p.eps, exact, width);
        for (int i = 0; i < width; i++) {
            double gamma = p.gamma ? p.gamma[i] : 1, z = fabs(exact[i] - (p.beta ? p.beta[i] : 0));
            double bound = p.layer ? 14.5 * U * z + shift * fabs(gamma) + shift * shift / 2 * z + U * fabs(exact[i])
                                   : 12.5 * U * fabs(exact[i]);
            bound = 1.01 * bound + 3 * 0x1p-149 * fmax(1, fabs(gamma));
            /* Rounding keeps the order. */
            float least = rounded(dtype, (float)(exact[i] - bound)), most = rounded(dtype, (float)(exact[i] + bound));
            CHECK(least <= y[i] && y[i] <= most, "%s, width %d, dtype %d, token %d, feature %d: %.9g, not %.9g to %.9g", what, width,
                  dtype, token, i, y[i], least, most);
        }
    }
}

/* A norm alone and after a residual, from pointers `offset` elements into their allocations. */
static void norm_of(parameters p, int width, bitnet_dtype dtype, int offset) {
    float x[M * MOST], residual[M * MOST], y[M * MOST] = {0}, sum[M * MOST];
    int count = M * width;
    for (int i = 0; i < count; i++) {
        x[i] = random_float(4.0f) + 0.5f;
        residual[i] = random_float(2.0f);
    }
    void *x_device = upload_floats(x, count, dtype, offset), *residual_device = upload_floats(residual, count, dtype, offset);
    void *y_device = upload_floats(y, count, dtype, offset);
    bitnet_norm *norm = create(p, width);
    OK(bitnet_norm_normalize(norm, x_device, dtype, M, NULL, y_device, stream));
    OK(bitnet_synchronize(device, stream));
    download_floats(y, y_device, count, dtype);
    expect(y, x, p, width, dtype, "norm");

    OK(bitnet_norm_normalize(norm, x_device, dtype, M, residual_device, y_device, stream));
    download_floats(y, y_device, count, dtype);
    download_floats(sum, residual_device, count, dtype);
    for (int i = 0; i < count; i++)
        CHECK(sum[i] == rounded(dtype, residual[i] + x[i]), "residual %d: %g", i, sum[i]);
    expect(y, sum, p, width, dtype, "norm after a residual");
    OK(bitnet_norm_destroy(norm));
    void *pointers[] = {x_device, residual_device, y_device};
    for (int i = 0; i < 3; i++)
        release((char *)pointers[i] - size_of(dtype) * (size_t)offset);
}

/* The activations are those of the token's f32 values, quantized in C. */
static void expect_quantized(bitnet_activations *activations, const float *values, int width, const char *what) {
    int8_t q[M * MOST], q_found[M * MOST];
    float s[M], s_found[M];
    for (int token = 0; token < M; token++)
        s[token] = quantize_token(values + token * width, q + token * width, width);
    OK(bitnet_activations_read(activations, q_found, s_found));
    CHECK(memcmp(q, q_found, (size_t)(M * width)) == 0 && memcmp(s, s_found, sizeof s) == 0, "%s, width %d", what, width);
}

/* Fused with the quantization and with a product: what the f32 norm gives, bit for bit. */
static void fused(parameters p, int width, int offset) {
    float x[M * MOST], residual[M * MOST], norms[M * MOST], y[M * N], y_fused[M * N], bias[M * N];
    int8_t ternary[N * MOST];
    int count = M * width;
    for (int i = 0; i < count; i++) {
        x[i] = rounded(BITNET_BF16, random_float(4.0f));
        residual[i] = rounded(BITNET_BF16, random_float(4.0f));
    }
    for (int i = 0; i < M * N; i++)
        bias[i] = random_float(1.0f);
    for (int i = 0; i < N * width; i++)
        ternary[i] = (int8_t)random_between(-1, 1);
    void *x_device = upload_floats(x, count, BITNET_F32, 0), *x_bf16_device = upload_floats(x, count, BITNET_BF16, offset);
    void *residual_device = upload_floats(residual, count, BITNET_F32, 0), *norms_device = upload(NULL, sizeof(float) * (size_t)count);
    bitnet_norm *norm = create(p, width);
    bitnet_activations *activations = NULL;
    OK(bitnet_activations_create(device, M, width, &activations));

    OK(bitnet_norm_normalize(norm, x_device, BITNET_F32, M, NULL, norms_device, stream));
    download_floats(norms, norms_device, count, BITNET_F32);
    OK(bitnet_norm_normalize_quantize(norm, x_bf16_device, BITNET_BF16, NULL, activations, stream));
    expect_quantized(activations, norms, width, "norm and quantization of bf16");

    /* A product of these activations, and all three in one call, with something added. */
    const bitnet_scale_range scale = {N, 0.5f};
    bitnet_linear *layer = NULL;
    OK(bitnet_linear_create_ternary(device, ternary, N, width, &scale, 1, NULL, &layer));
    void *y_device = upload(NULL, sizeof y), *bias_device = upload(bias, sizeof bias);
    OK(bitnet_linear_forward_quantized(layer, activations, y_device, BITNET_F32, stream));
    download(y, y_device, sizeof y);
    for (int m = 1; m <= M; m += M - 1) {
        OK(bitnet_linear_forward_norm(layer, norm, x_bf16_device, BITNET_BF16, m, NULL, y_device, BITNET_F32, stream));
        download(y_fused, y_device, sizeof y);
        CHECK(memcmp(y, y_fused, sizeof(float) * (size_t)(m * N)) == 0, "norm and product of %d, width %d", m, width);
        OK(bitnet_linear_forward_norm(layer, norm, x_device, BITNET_F32, m, bias_device, y_device, BITNET_F32, stream));
        download(y_fused, y_device, sizeof y);
        for (int i = 0; i < m * N; i++)
            CHECK(y_fused[i] == y[i] + bias[i], "norm, product and residual of %d, element %d", m, i);
    }

    OK(bitnet_norm_normalize_quantize(norm, x_device, BITNET_F32, residual_device, activations, stream));
    download_floats(residual, residual_device, count, BITNET_F32);
    OK(bitnet_norm_normalize(norm, residual_device, BITNET_F32, M, NULL, norms_device, stream));
    download_floats(norms, norms_device, count, BITNET_F32);
    expect_quantized(activations, norms, width, "norm and quantization of a residual");

    OK(bitnet_linear_destroy(layer));
    OK(bitnet_activations_destroy(activations));
    OK(bitnet_norm_destroy(norm));
    void *pointers[] = {x_device, (char *)x_bf16_device - 2 * offset, residual_device, norms_device, y_device, bias_device};
    for (int i = 0; i < 6; i++)
        release(pointers[i]);
}

/* max(gate, 0)^2 * up is two products, which C computes bit for bit; the other functions are compared with each other's layout. */
static void gated(parameters p, int width) {
    float gate[M * MOST], up[M * MOST], both[2 * M * MOST], product[M * MOST], norms[M * MOST], s[2][M];
    int8_t q[2][M * MOST];
    int count = M * width;
    for (int i = 0; i < count; i++) {
        int token = i / width, feature = i % width;
        both[token * 2 * width + feature] = gate[i] = random_float(2.0f);
        both[token * 2 * width + width + feature] = up[i] = random_float(2.0f);
        float positive = fmaxf(gate[i], 0);
        product[i] = positive * positive * up[i];
    }
    void *gate_device = upload_floats(gate, count, BITNET_F32, 0), *up_device = upload_floats(up, count, BITNET_F32, 0);
    void *both_device = upload_floats(both, 2 * count, BITNET_F32, 0), *product_device = upload_floats(product, count, BITNET_F32, 0);
    void *norms_device = upload(NULL, sizeof(float) * (size_t)count);
    bitnet_norm *norm = create(p, width);
    bitnet_activations *activations = NULL;
    OK(bitnet_activations_create(device, M, width, &activations));
    OK(bitnet_norm_normalize(norm, product_device, BITNET_F32, M, NULL, norms_device, stream));
    download_floats(norms, norms_device, count, BITNET_F32);
    OK(bitnet_norm_gated_normalize_quantize(norm, BITNET_SQUARED_RELU, both_device, NULL, BITNET_F32, activations, stream));
    expect_quantized(activations, norms, width, "gates before ups");

    for (bitnet_activation_function f = BITNET_SQUARED_RELU; f <= BITNET_GELU_TANH; f++) {
        OK(bitnet_norm_gated_normalize_quantize(norm, f, gate_device, up_device, BITNET_F32, activations, stream));
        OK(bitnet_activations_read(activations, q[0], s[0]));
        OK(bitnet_norm_gated_normalize_quantize(norm, f, both_device, NULL, BITNET_F32, activations, stream));
        OK(bitnet_activations_read(activations, q[1], s[1]));
        CHECK(memcmp(q[0], q[1], (size_t)count) == 0 && memcmp(s[0], s[1], sizeof s[0]) == 0, "function %d, width %d", f, width);
        /* Within what the approximate exponential and the rounding to int8 leave, it is the function in double. */
        double values[MOST], norms_exact[MOST];
        for (int token = 0; token < M; token++) {
            float rows[MOST];
            for (int i = 0; i < width; i++) {
                double x = gate[token * width + i];
                double y = f == BITNET_SQUARED_RELU ? (x > 0 ? x * x : 0)
                           : f == BITNET_SILU       ? x / (1 + exp(-x))
                           : f == BITNET_GELU_ERF   ? x / 2 * (1 + erf(x / sqrt(2)))
                                                    : x / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
                values[i] = y * up[token * width + i];
                rows[i] = (float)values[i];
            }
            if (p.layer)
                layer_norm(rows, p.gamma, p.beta, p.eps, norms_exact, width);
            else
                rms_norm(rows, p.gamma, p.eps, norms_exact, width);
            for (int i = 0; i < width; i++) {
                double scaled = norms_exact[i] * s[0][token];
                CHECK(fabs(q[0][token * width + i] - scaled) <= 0.501, "function %d, feature %d: %d, not %g", f, i,
                      q[0][token * width + i], scaled);
            }
        }
    }

    OK(bitnet_activations_destroy(activations));
    OK(bitnet_norm_destroy(norm));
    void *pointers[] = {gate_device, up_device, both_device, product_device, norms_device};
    for (int i = 0; i < 5; i++)
        release(pointers[i]);
}

void test_norms(void) {
    float gamma[MOST], beta[MOST];
    for (int i = 0; i < MOST; i++) {
        gamma[i] = random_float(1.5f);
        beta[i] = random_float(0.5f);
    }
    const parameters all[] = {
        {false, NULL, NULL, 1e-6f}, {false, gamma, NULL, 1e-5f}, {true, NULL, NULL, 1e-5f},
        {true, gamma, NULL, 1e-5f}, {true, NULL, beta, 1e-6f},   {true, gamma, beta, 1e-5f},
    };
    /* Whole chunks of 8 elements, and others, also from pointers that vectors of 16 bytes are not aligned to. */
    const int widths[] = {1, 7, 64, MOST};
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 4; j++)
            for (bitnet_dtype dtype = BITNET_F32; dtype <= BITNET_BF16; dtype++)
                norm_of(all[i], widths[j], dtype, (i + j) % 2);
    fused(all[0], 64, 0);
    fused(all[1], 64, 1);
    fused(all[5], 131, 0);
    gated(all[1], 64);
    gated(all[5], 131);
}

void bad_norms(void) {
    float parameter[4] = {1, 1, INFINITY, 1}, host[16] = {0};
    bitnet_norm *none = NULL, *norm = NULL;
    bitnet_activations *activations = NULL, *wide = NULL;
    bitnet_linear *layer = NULL;
    const float weights[8] = {1};
    FAILS(bitnet_norm_create_rms(NULL, 4, NULL, 1e-6f, &none), BITNET_INVALID_HANDLE, "device is NULL");
    FAILS(bitnet_norm_create_rms(device, 0, NULL, 1e-6f, &none), BITNET_INVALID_ARGUMENT, "width = 0");
    FAILS(bitnet_norm_create_rms(device, -3, NULL, 1e-6f, &none), BITNET_INVALID_ARGUMENT, "width = -3");
    FAILS(bitnet_norm_create_rms(device, 16777216, parameter, 1e-6f, &none), BITNET_INVALID_ARGUMENT, "width = 16777216", "16777215");
    FAILS(bitnet_norm_create_rms(device, 4, parameter, 1e-6f, &none), BITNET_INVALID_ARGUMENT, "gamma[2]", "inf");
    FAILS(bitnet_norm_create_rms(device, 4, (float *)((char *)parameter + 1), 1e-6f, &none), BITNET_INVALID_ARGUMENT, "gamma = 0x");
    FAILS(bitnet_norm_create_layer(device, 4, NULL, parameter, 1e-6f, &none), BITNET_INVALID_ARGUMENT, "beta[2]", "inf");
    const float bad[] = {0, -1e-6f, NAN, INFINITY, 1e-40f};
    for (int i = 0; i < 5; i++)
        FAILS(bitnet_norm_create_layer(device, 4, NULL, NULL, bad[i], &none), BITNET_INVALID_ARGUMENT, "eps = ");
    FAILS(bitnet_norm_create_rms(device, 4, NULL, 1e-6f, NULL), BITNET_INVALID_ARGUMENT, "norm is NULL");
    CHECK(none == NULL);

    OK(bitnet_norm_create_rms(device, 4, NULL, 1e-6f, &norm));
    OK(bitnet_activations_create(device, 2, 4, &activations));
    OK(bitnet_activations_create(device, 2, 5, &wide));
    OK(bitnet_linear_create(device, weights, 2, 4, NULL, &layer));
    char *x = upload(host, 32), *y = upload(host, 32), *r = upload(host, 32);
    FAILS(bitnet_norm_normalize(NULL, x, BITNET_F32, 2, NULL, y, stream), BITNET_INVALID_HANDLE, "norm is NULL");
    FAILS(bitnet_norm_normalize((bitnet_norm *)layer, x, BITNET_F32, 2, NULL, y, stream), BITNET_INVALID_HANDLE,
          "is a bitnet_linear; pass a bitnet_norm");
    FAILS(bitnet_norm_normalize(norm, x, (bitnet_dtype)3, 2, NULL, y, stream), BITNET_INVALID_ARGUMENT, "dtype = 3");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 0, NULL, y, stream), BITNET_INVALID_ARGUMENT, "m = 0");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, INT64_MAX, NULL, y, stream), BITNET_INVALID_ARGUMENT, "m = 9223372036854775807");
    FAILS(bitnet_norm_normalize(norm, NULL, BITNET_F32, 2, NULL, y, stream), BITNET_INVALID_ARGUMENT, "x is NULL");
    FAILS(bitnet_norm_normalize(norm, NULL, BITNET_F32, 2, NULL, NULL, stream), BITNET_INVALID_ARGUMENT, "x is NULL");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 2, NULL, NULL, stream), BITNET_INVALID_ARGUMENT, "y is NULL");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 3, NULL, y, stream), BITNET_INVALID_ARGUMENT, "x: 48 bytes", "32 bytes");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 1, NULL, y + 17, stream), BITNET_INVALID_ARGUMENT, "y: 16 bytes");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 1, NULL, y + 2, stream), BITNET_INVALID_ARGUMENT, "y: ", "multiple of 4");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 1, r + 20, y, stream), BITNET_INVALID_ARGUMENT, "residual: 16 bytes");
    FAILS(bitnet_norm_normalize(norm, host, BITNET_F32, 1, NULL, y, stream), BITNET_INVALID_ARGUMENT, "x: 16 bytes", "not memory of");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 2, NULL, x, stream), BITNET_INVALID_ARGUMENT, "y = 0x", "overlaps x = 0x");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 1, NULL, x + 12, stream), BITNET_INVALID_ARGUMENT, "y = 0x", "overlaps x = 0x");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 2, x, y, stream), BITNET_INVALID_ARGUMENT, "residual = 0x", "overlaps x = 0x");
    FAILS(bitnet_norm_normalize(norm, x, BITNET_F32, 2, y, y, stream), BITNET_INVALID_ARGUMENT, "y = 0x", "overlaps residual = 0x");

    FAILS(bitnet_norm_normalize_quantize(norm, x, BITNET_F32, NULL, NULL, stream), BITNET_INVALID_HANDLE, "activations is NULL");
    FAILS(bitnet_norm_normalize_quantize(norm, x, BITNET_F32, NULL, wide, stream), BITNET_INVALID_ARGUMENT, "k = 5", "width = 4");
    FAILS(bitnet_norm_normalize_quantize(norm, NULL, BITNET_F32, NULL, activations, stream), BITNET_INVALID_ARGUMENT, "x is NULL");
    FAILS(bitnet_norm_normalize_quantize(norm, x + 4, BITNET_F32, NULL, activations, stream), BITNET_INVALID_ARGUMENT, "x: 32 bytes");
    FAILS(bitnet_norm_normalize_quantize(norm, x, BITNET_F32, x, activations, stream), BITNET_INVALID_ARGUMENT, "overlaps x = 0x");
    FAILS(bitnet_norm_normalize_quantize(norm, x, (bitnet_dtype)-1, NULL, activations, stream), BITNET_INVALID_ARGUMENT, "dtype = -1");
    FAILS(bitnet_norm_gated_normalize_quantize(norm, (bitnet_activation_function)4, x, y, BITNET_F32, activations, stream),
          BITNET_INVALID_ARGUMENT, "function = 4", "BITNET_SILU (1)");
    FAILS(bitnet_norm_gated_normalize_quantize(norm, BITNET_SILU, NULL, y, BITNET_F32, activations, stream), BITNET_INVALID_ARGUMENT,
          "gate is NULL");
    FAILS(bitnet_norm_gated_normalize_quantize(norm, BITNET_SILU, x, NULL, BITNET_F32, activations, stream), BITNET_INVALID_ARGUMENT,
          "gate: 64 bytes");
    FAILS(bitnet_norm_gated_normalize_quantize(norm, BITNET_SILU, x, y + 4, BITNET_F32, activations, stream), BITNET_INVALID_ARGUMENT,
          "up: 32 bytes");
    FAILS(bitnet_norm_gated_normalize_quantize(norm, BITNET_SILU, x, y, BITNET_F32, wide, stream), BITNET_INVALID_ARGUMENT, "k = 5");

    FAILS(bitnet_linear_forward_norm(layer, NULL, x, BITNET_F32, 1, NULL, y, BITNET_F32, stream), BITNET_INVALID_HANDLE, "norm is NULL");
    FAILS(bitnet_linear_forward_norm(layer, norm, x, BITNET_F32, 0, NULL, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "m = 0");
    FAILS(bitnet_linear_forward_norm(layer, norm, x, BITNET_F32, 1, y, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT,
          "y = 0x", "overlaps residual = 0x");
    FAILS(bitnet_linear_forward_norm(layer, norm, x, BITNET_F32, 1, NULL, x + 8, BITNET_F32, stream), BITNET_INVALID_ARGUMENT,
          "overlaps x = 0x");
    FAILS(bitnet_linear_forward_norm(layer, norm, x, BITNET_F32, 1, r + 28, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT,
          "residual: 8 bytes");
    bitnet_norm *wider = NULL;
    OK(bitnet_norm_create_layer(device, 5, NULL, NULL, 1e-6f, &wider));
    FAILS(bitnet_linear_forward_norm(layer, wider, x, BITNET_F32, 1, NULL, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT,
          "width of the norm", "5", "4");
    if (on_cuda) {
        /* A norm and activations that are on different devices. */
        bitnet_device *emulated = NULL;
        bitnet_activations *elsewhere = NULL;
        OK(bitnet_device_open("emulated", &emulated));
        OK(bitnet_activations_create(emulated, 2, 4, &elsewhere));
        FAILS(bitnet_norm_normalize_quantize(norm, x, BITNET_F32, NULL, elsewhere, stream), BITNET_INVALID_ARGUMENT, "emulated", "cuda:0");
        OK(bitnet_norm_destroy(wider));
        OK(bitnet_norm_create_rms(emulated, 4, NULL, 1e-6f, &wider));
        FAILS(bitnet_linear_forward_norm(layer, wider, x, BITNET_F32, 1, NULL, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT,
              "the norm is on emulated", "cuda:0");
        OK(bitnet_activations_destroy(elsewhere));
        OK(bitnet_device_close(emulated));
    }
    OK(bitnet_norm_destroy(wider));
    OK(bitnet_norm_destroy(norm));
    FAILS(bitnet_norm_destroy(norm), BITNET_INVALID_HANDLE, "norm = ", "has been destroyed");
    OK(bitnet_norm_destroy(NULL));
    OK(bitnet_activations_destroy(activations));
    OK(bitnet_activations_destroy(wide));
    OK(bitnet_linear_destroy(layer));
    release(x);
    release(y);
    release(r);
}
