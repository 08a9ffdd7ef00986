/* Devices, memory, weights, layers and activations. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "reference.h"
#include "tests.h"

enum { N = 37, K = 200, M = 3 };

void test_devices(void) {
    char name[64] = "", cut[4];
    OK(bitnet_device_name(device, name, sizeof name));
    CHECK(strncmp(name, on_cuda ? "cuda:0" : "emulated", on_cuda ? 6 : 8) == 0, "%s", name);
    OK(bitnet_device_name(device, cut, sizeof cut));
    CHECK(strlen(cut) == 3 && strncmp(cut, name, 3) == 0, "%s", cut);
    CHECK(strcmp(bitnet_version(), "0.1.0") == 0, "%s", bitnet_version());

    /* Another handle of the same device, with the same memory. */
    bitnet_device *again = NULL;
    OK(bitnet_device_open(on_cuda ? "cuda" : "emulated", &again));
    CHECK(again != device);
    int8_t bytes[3] = {1, -2, 3}, back[3] = {0};
    void *pointer = upload(bytes, sizeof bytes);
    OK(bitnet_copy_to_host(again, back, pointer, sizeof back, NULL));
    CHECK(memcmp(bytes, back, sizeof bytes) == 0);
    /* A part of an allocation. */
    OK(bitnet_copy_to_device(again, (char *)pointer + 1, bytes, 2, stream));
    download(back, pointer, 3);
    CHECK(back[0] == 1 && back[1] == 1 && back[2] == -2);
    OK(bitnet_free(again, pointer));
    OK(bitnet_device_close(again));
    FAILS(bitnet_device_close(again), BITNET_INVALID_HANDLE, "device = ", "has been destroyed");
    OK(bitnet_free(device, NULL));
    OK(bitnet_device_close(NULL));
}

void test_weights(void) {
    enum { COUNT = N * K };
    float weights[COUNT], scale = 0;
    int8_t ternary[COUNT], back[COUNT];
    double sum = 0;
    for (int i = 0; i < COUNT; i++)
        sum += fabsf(weights[i] = random_float(0.1f));
    OK(bitnet_quantize_weights(weights, N, K, ternary, &scale));
    /* The order of the sum may differ in the last place of a double, which the rounding to float hides but for rare ties. */
    CHECK(fabs(scale - sum / COUNT) <= 1e-7 * scale, "%.9g and %.9g", scale, sum / COUNT);
    for (int i = 0; i < COUNT; i++) {
        float rounded = fminf(fmaxf(nearbyintf(weights[i] * (1.0f / scale)), -1.0f), 1.0f);
        CHECK(ternary[i] == (int8_t)rounded, "weight %d", i);
    }
    for (bitnet_layout layout = BITNET_ROW_MAJOR; layout <= BITNET_TILED; layout++) {
        int64_t bytes = 0;
        OK(bitnet_packed_bytes(layout, N, K, &bytes));
        uint8_t *packed = allocate((size_t)bytes, 1);
        OK(bitnet_pack(layout, ternary, N, K, packed, bytes));
        if (layout == BITNET_ROW_MAJOR)
            for (int i = 0; i < COUNT; i++)
                CHECK((packed[i / 4] >> 2 * (i % 4) & 3) - 1 == ternary[i], "weight %d", i);
        if (layout == BITNET_LADDER) {
            uint8_t *expected = ladder_pack(ternary, N, K);
            CHECK(bytes == ladder_rows(N) * ladder_columns(K) / 4);
            CHECK(memcmp(packed, expected, (size_t)bytes) == 0);
            free(expected);
        }
        memset(back, 7, sizeof back);
        OK(bitnet_unpack(layout, packed, bytes, N, K, back));
        CHECK(memcmp(ternary, back, sizeof back) == 0, "layout %d", layout);
        free(packed);
    }
}

/* y of a layer with scales 0.5 for the first 5 rows and 0.25 for the others. */
static void expect(const float *y, const int32_t *sums, const float *s, const float *bias, const char *what) {
    for (int i = 0; i < M * N; i++) {
        float expected = (float)sums[i] / s[i / N] * (i % N < 5 ? 0.5f : 0.25f);
        if (bias)
            expected += bias[i % N];
        CHECK(memcmp(&expected, &y[i], sizeof expected) == 0, "%s, element %d: %g, not %g", what, i, y[i], expected);
    }
}

void test_layers(void) {
    int8_t ternary[N * K], q[M * K], q_found[M * K];
    float x[M * K], s[M], s_found[M], y[M * N], bias[N];
    uint16_t x_bf16[M * K], y_bf16[M * N];
    for (int i = 0; i < N * K; i++)
        ternary[i] = (int8_t)random_between(-1, 1);
    for (int i = 0; i < M * K; i++) {
        x_bf16[i] = float_to_bf16(random_float(4.0f));
        x[i] = bf16_to_float(x_bf16[i]);
    }
    for (int i = 0; i < N; i++)
        bias[i] = random_float(1.0f);
    for (int token = 0; token < M; token++)
        s[token] = quantize_token(x + token * K, q + token * K, K);
    int32_t *sums = products(q, ternary, M, N, K);

    const bitnet_scale_range scales[2] = {{5, 0.5f}, {N, 0.25f}};
    bitnet_linear *plain = NULL, *packed = NULL;
    OK(bitnet_linear_create_ternary(device, ternary, N, K, scales, 2, NULL, &plain));
    uint8_t *ladder = ladder_pack(ternary, N, K);
    OK(bitnet_linear_create_packed(device, BITNET_LADDER, ladder, ladder_rows(N) * ladder_columns(K) / 4, N, K, scales, 2, bias,
                                   &packed));
    int64_t n = 0, k = 0;
    OK(bitnet_linear_shape(plain, &n, &k));
    CHECK(n == N && k == K);

    void *x_device = upload(x, sizeof x), *x_bf16_device = upload(x_bf16, sizeof x_bf16), *y_device = upload(NULL, sizeof y);
    OK(bitnet_linear_forward(plain, x_device, BITNET_F32, M, y_device, BITNET_F32, stream));
    OK(bitnet_synchronize(device, stream));
    download(y, y_device, sizeof y);
    expect(y, sums, s, NULL, "forward");

    /* The same values in bf16, and a bias. */
    OK(bitnet_linear_forward(packed, x_bf16_device, BITNET_BF16, M, y_device, BITNET_F32, stream));
    download(y, y_device, sizeof y);
    expect(y, sums, s, bias, "forward from bf16");

    /* Quantized once for two layers, one of which rounds to bf16. */
    bitnet_activations *activations = NULL, *uploaded = NULL;
    OK(bitnet_activations_create(device, M, K, &activations));
    OK(bitnet_activations_quantize(activations, x_device, BITNET_F32, stream));
    void *y_bf16_device = upload(NULL, sizeof y_bf16);
    OK(bitnet_linear_forward_quantized(packed, activations, y_device, BITNET_F32, stream));
    OK(bitnet_linear_forward_quantized(packed, activations, y_bf16_device, BITNET_BF16, stream));
    download(y, y_device, sizeof y);
    download(y_bf16, y_bf16_device, sizeof y_bf16);
    expect(y, sums, s, bias, "quantized");
    for (int i = 0; i < M * N; i++)
        CHECK(y_bf16[i] == float_to_bf16(y[i]), "bf16 element %d", i);
    OK(bitnet_activations_read(activations, q_found, s_found));
    CHECK(memcmp(q, q_found, sizeof q) == 0 && memcmp(s, s_found, sizeof s) == 0);

    OK(bitnet_activations_create_from(device, M, K, q, s, &uploaded));
    OK(bitnet_linear_forward_quantized(plain, uploaded, y_device, BITNET_F32, stream));
    download(y, y_device, sizeof y);
    expect(y, sums, s, NULL, "uploaded");

    /* From floats: exactly ternary weights of scale 1 keep it. */
    float weights[N * K];
    double mean = 0;
    for (int i = 0; i < N * K; i++)
        mean += fabsf(weights[i] = (float)ternary[i]);
    bitnet_linear *quantized = NULL;
    OK(bitnet_linear_create(device, weights, N, K, NULL, &quantized));
    OK(bitnet_linear_forward_quantized(quantized, uploaded, y_device, BITNET_F32, stream));
    download(y, y_device, sizeof y);
    float scale = (float)(mean / (N * K));
    for (int i = 0; i < M * N; i++)
        CHECK(y[i] == (float)sums[i] / s[i / N] * scale, "element %d: %g", i, y[i]);

    /* Copies and frees come after the work on the stream: what it reads is neither overwritten nor gone. */
    float zeros[M * K] = {0};
    void *passing = upload(x, sizeof x);
    OK(bitnet_linear_forward(plain, passing, BITNET_F32, M, y_device, BITNET_F32, stream));
    OK(bitnet_copy_to_device(device, passing, zeros, sizeof zeros, stream));
    download(y, y_device, sizeof y);
    expect(y, sums, s, NULL, "overwritten afterwards");
    OK(bitnet_copy_to_device(device, passing, x, sizeof x, stream));
    OK(bitnet_copy_to_device(device, y_device, zeros, sizeof y, stream));
    OK(bitnet_linear_forward(plain, passing, BITNET_F32, M, y_device, BITNET_F32, stream));
    release(passing);
    download(y, y_device, sizeof y);
    expect(y, sums, s, NULL, "freed afterwards");

    if (on_cuda) {
        /* Memory of the program's own, and a thread that works in no context. */
        void *own = cuda_malloc(sizeof y), *context = cuda_current_context();
        OK(bitnet_linear_forward(plain, x_device, BITNET_F32, M, own, BITNET_F32, stream));
        CHECK(cuda_current_context() == context);
        cuda_set_current_context(NULL);
        download(y, own, sizeof y);
        expect(y, sums, s, NULL, "own memory");
        CHECK(cuda_current_context() == NULL);
        /* The legacy default stream. */
        OK(bitnet_linear_forward(packed, x_device, BITNET_F32, M, own, BITNET_F32, NULL));
        CHECK(cuda_current_context() == NULL);
        OK(bitnet_synchronize(device, NULL));
        download(y, own, sizeof y);
        expect(y, sums, s, bias, "default stream");
        cuda_set_current_context(context);
        FAILS(bitnet_free(device, own), BITNET_INVALID_ARGUMENT, "pointer = 0x", "not returned by bitnet_alloc");
        cuda_free(own);
        FAILS(bitnet_linear_forward(plain, x_device, BITNET_F32, M, own, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "y: ");
    }

    OK(bitnet_linear_destroy(quantized));
    OK(bitnet_activations_destroy(uploaded));
    OK(bitnet_activations_destroy(activations));
    OK(bitnet_linear_destroy(packed));
    OK(bitnet_linear_destroy(plain));
    void *pointers[] = {x_device, x_bf16_device, y_device, y_bf16_device};
    for (int i = 0; i < 4; i++)
        release(pointers[i]);
    free(ladder);
    free(sums);
}

/* A kernel that reads memory which was never written: the emulator calls that a fault. */
void test_lost_device(void) {
    if (on_cuda)
        return;
    float weights[32] = {1}, y_host[2];
    bitnet_linear *layer = NULL;
    bitnet_device *lost = NULL;
    void *x = NULL, *y = upload(NULL, sizeof y_host);
    OK(bitnet_device_open("emulated", &lost));
    OK(bitnet_linear_create(device, weights, 2, 16, NULL, &layer));
    OK(bitnet_alloc(device, 64, &x));
    FAILS(bitnet_linear_forward(layer, x, BITNET_F32, 1, y, BITNET_F32, stream), BITNET_DEVICE_LOST, "is lost", "open the device again");
    FAILS(bitnet_synchronize(device, stream), BITNET_DEVICE_LOST, "is lost");
    FAILS(bitnet_copy_to_host(device, y_host, y, sizeof y_host, stream), BITNET_DEVICE_LOST, "is lost");
    FAILS(bitnet_alloc(device, 64, &x), BITNET_DEVICE_LOST, "is lost");
    OK(bitnet_linear_destroy(layer));
    OK(bitnet_free(device, x));
    OK(bitnet_device_close(device));

    /* Another handle of the lost one is no reason to get that again. */
    OK(bitnet_device_open("emulated", &device));
    OK(bitnet_synchronize(device, stream));
    FAILS(bitnet_synchronize(lost, stream), BITNET_DEVICE_LOST, "is lost");
    OK(bitnet_device_close(lost));
    FAILS(bitnet_free(device, y), BITNET_INVALID_ARGUMENT, "not returned by bitnet_alloc");
}

/* Memory that is left goes with the device's last handle, after the work that uses it. */
void test_closing(void) {
    float weights[32] = {1}, ones[16] = {1}, y[2] = {0};
    bitnet_linear *layer = NULL;
    for (int i = 0; i < 16; i++)
        weights[i] = ones[i] = 1;
    OK(bitnet_linear_create(device, weights, 2, 16, NULL, &layer));
    void *x = upload(ones, sizeof ones), *own = on_cuda ? cuda_malloc(sizeof y) : upload(NULL, sizeof y);
    OK(bitnet_linear_forward(layer, x, BITNET_F32, 1, own, BITNET_F32, stream));
    OK(bitnet_device_close(device));
    if (on_cuda) {
        cuda_synchronize(stream);
        cuda_copy_to_host(y, own, sizeof y);
        CHECK(y[0] == 8 && y[1] == 0, "%g %g", y[0], y[1]);
        cuda_free(own);
    }
    OK(bitnet_linear_destroy(layer));

    /* Opened anew, by a thread that works in no context, and goes on so. */
    void *context = on_cuda ? cuda_current_context() : NULL;
    if (on_cuda)
        cuda_set_current_context(NULL);
    OK(bitnet_device_open(on_cuda ? "cuda" : "emulated", &device));
    if (on_cuda) {
        CHECK(cuda_current_context() == NULL);
        cuda_set_current_context(context);
    }
    FAILS(bitnet_free(device, x), BITNET_INVALID_ARGUMENT, "not returned by bitnet_alloc");
}
