/* bitlinear_int8xint2, called as a program that was written for Microsoft's library calls it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "reference.h"
#include "tests.h"

/* `offset` bytes into an allocation, as a view into a larger tensor is. */
static void *upload_at(const void *host, size_t bytes, size_t offset, void **base) {
    uint8_t *padded = allocate(bytes + offset, 1);
    memcpy(padded + offset, host, bytes);
    *base = upload(padded, bytes + offset);
    free(padded);
    return (uint8_t *)*base + offset;
}

static void product(int m, int n, int k, int groups, size_t offset) {
    size_t weights = (size_t)n * (size_t)k, tokens = (size_t)m * (size_t)k, outputs = (size_t)m * (size_t)n;
    int8_t *a = allocate(tokens, 1), *t = allocate(weights, 1);
    uint16_t *s = allocate((size_t)m, 2), *ws = allocate((size_t)groups, 2), *out = allocate(outputs, 2);
    for (size_t i = 0; i < tokens; i++)
        a[i] = (int8_t)random_between(-128, 127);
    for (size_t i = 0; i < weights; i++)
        t[i] = (int8_t)random_between(-1, 1);
    for (int i = 0; i < m; i++)
        s[i] = float_to_bf16(1.0f + (float)random_between(0, 1000));
    for (int i = 0; i < groups; i++) /* no two alike */
        ws[i] = float_to_bf16((float)(i + 1) * 0.37f);
    uint8_t *w = ladder_pack(t, n, k);
    size_t w_bytes = (size_t)(ladder_rows(n) * ladder_columns(k) / 4);

    void *a_base, *s_device = upload(s, (size_t)m * 2), *ws_device = upload(ws, (size_t)groups * 2);
    void *a_device = upload_at(a, tokens, offset, &a_base);
    void *w_device = upload(w, w_bytes), *out_device = upload(NULL, outputs * 2);
    /* Also from a thread that works in no context, and goes on so. */
    void *context = on_cuda ? cuda_current_context() : NULL;
    if (on_cuda && offset)
        cuda_set_current_context(NULL);
    bitlinear_int8xint2(a_device, w_device, out_device, s_device, ws_device, m, n, k, stream);
    if (on_cuda && offset) {
        CHECK(cuda_current_context() == NULL);
        cuda_set_current_context(context);
    }
    CHECK(bitnet_last_error()[0] == '\0', "%s", bitnet_last_error());
    OK(bitnet_synchronize(device, stream));
    download(out, out_device, outputs * 2);

    int32_t *sums = products(a, t, m, n, k);
    size_t wrong = 0;
    for (size_t i = 0; i < outputs; i++) {
        int token = (int)(i / (size_t)n), row = (int)(i % (size_t)n);
        float y = (float)sums[i] / bf16_to_float(s[token]) * bf16_to_float(ws[row / (n / groups)]);
        wrong += out[i] != float_to_bf16(y);
    }
    CHECK(wrong == 0, "m %d, n %d, k %d, offset %zu: %zu of %zu wrong", m, n, k, offset, wrong, outputs);

    void *pointers[] = {a_base, w_device, out_device, s_device, ws_device};
    for (int i = 0; i < 5; i++)
        release(pointers[i]);
    void *memory[] = {a, t, s, ws, out, w, sums};
    for (int i = 0; i < 7; i++)
        free(memory[i]);
}

void test_published_shapes(void) {
    product(1, 3840, 2560, 3, 0);
    product(1, 4800, 3200, 6, 0);
    product(1, 13824, 2560, 2, 0);
    product(1, 20480, 3200, 2, 0);
    product(1, 2560, 6912, 1, 0);
    /* More tokens than a launch takes. */
    product(65537, 1, 32, 1, 0);
}

void test_any_shape(void) {
    static const int shapes[][3] = {{1, 1, 1}, {1, 16, 32}, {1, 7, 33}, {3, 100, 100}, {9, 17, 31}, {2, 33, 160}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        product(shapes[i][0], shapes[i][1], shapes[i][2], 1, 0);
        product(shapes[i][0], shapes[i][1], shapes[i][2], 1, 5);
    }
}

void test_bad_calls(void) {
    int8_t zeros[256] = {0};
    int8_t *a = upload(zeros, 96), *w = upload(zeros, 256), *s = upload(zeros, 2), *ws = upload(zeros, 2);
    uint16_t *out = upload(NULL, 32), before[16], after[16];
    download(before, out, 32);
#define REFUSED(a, w, out, s, ws, m, n, k, ...)                                                                              \
    do {                                                                                                                     \
        bitlinear_int8xint2((void *)(a), (void *)(w), (void *)(out), (void *)(s), (void *)(ws), m, n, k, stream);             \
        FAILS(bitnet_last_error()[0] ? BITNET_INVALID_ARGUMENT : BITNET_SUCCESS, BITNET_INVALID_ARGUMENT, __VA_ARGS__);       \
    } while (0)
    REFUSED(NULL, w, out, s, ws, 1, 16, 64, "a is NULL");
    REFUSED(a, NULL, out, s, ws, 1, 16, 64, "w is NULL");
    REFUSED(a, w, NULL, s, ws, 1, 16, 64, "out is NULL");
    REFUSED(a, w, out, NULL, ws, 1, 16, 64, "s is NULL");
    REFUSED(a, w, out, s, NULL, 1, 16, 64, "ws is NULL");
    REFUSED(a, w, out, s, ws, 0, 16, 64, "M = 0");
    REFUSED(a, w, out, s, ws, 1, -16, 64, "N = -16");
    REFUSED(a, w, out, s, ws, 1, 16, -2147483647 - 1, "K = -2147483648");
    REFUSED(a, w, out, s, ws, 1, 16, 16777216, "K = 16777216", "16777215");
    REFUSED(a, w, out, s, ws, 2147483647, 2147483647, 16777215, "a: 1099494785025 bytes", "96 bytes");
    REFUSED(a, w, out, s, ws, 70000, 16, 1, "a: 65535 bytes");
    REFUSED(a, w, out, s, ws, 1, 16, 97, "a: 97 bytes", "96 bytes");
    REFUSED(a, w, out, s, ws, 1, 16, 96, "w: 384 bytes", "256 bytes");
    REFUSED(a, w, out, s, ws, 1, 17, 64, "out: 34 bytes", "32 bytes");
    REFUSED(a, w, out + 1, s, ws, 1, 16, 64, "out: 32 bytes");
    REFUSED(a, w, out, (char *)s + 1, ws, 1, 16, 64, "s: ");
    REFUSED(a, w + 4, out, s, ws, 1, 16, 32, "w = 0x", "multiple of 16");
    REFUSED(a, w, (char *)w + 16, s, ws, 1, 16, 64, "out =", "overlaps w");
    REFUSED(a, w, a, s, ws, 1, 16, 64, "out =", "overlaps a");
    REFUSED(a, w, out, out + 2, ws, 1, 16, 64, "out =", "overlaps s");
    REFUSED(a, w, out, s, out + 15, 1, 16, 64, "out =", "overlaps ws");
    REFUSED(zeros, w, out, s, ws, 1, 16, 64, "a: 64 bytes", "not memory of");
    REFUSED(8, w, out, s, ws, 1, 16, 64, "a: 64 bytes at 0x8");
    REFUSED((uintptr_t)-8, w, out, s, ws, 1, 16, 64, "a: 64 bytes");
#undef REFUSED
    OK(bitnet_synchronize(device, stream));
    download(after, out, 32);
    CHECK(memcmp(before, after, 32) == 0);
    release(w);
    bitlinear_int8xint2(a, w, out, (void *)s, (void *)ws, 1, 16, 64, stream);
    CHECK(strstr(bitnet_last_error(), "w: 256 bytes") != NULL, "%s", bitnet_last_error());
    release(a);
    release(out);
    release(s);
    release(ws);
}
