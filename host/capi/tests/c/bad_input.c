/* What cannot be done has a status, and a message that names the argument and its value. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tests.h"

static void bad_devices(void) {
    bitnet_device *opened = (bitnet_device *)0x5a;
    char name[8];
    FAILS(bitnet_device_open(NULL, &opened), BITNET_INVALID_ARGUMENT, "name is NULL");
    FAILS(bitnet_device_open("emulated", NULL), BITNET_INVALID_ARGUMENT, "device is NULL");
    FAILS(bitnet_device_open("gpu", &opened), BITNET_INVALID_ARGUMENT, "`gpu`", "cuda:<ordinal>");
    FAILS(bitnet_device_open("cuda:x", &opened), BITNET_INVALID_ARGUMENT, "cuda:x");
    FAILS(bitnet_device_open("\xff\xfe", &opened), BITNET_INVALID_ARGUMENT, "not UTF-8");
    FAILS(bitnet_device_open("cuda:4096", &opened), BITNET_NO_DEVICE, on_cuda ? "cuda:4096" : "no CUDA device");
    CHECK(opened == (bitnet_device *)0x5a);
    FAILS(bitnet_device_name(device, NULL, 8), BITNET_INVALID_ARGUMENT, "name is NULL");
    FAILS(bitnet_device_name(device, name, 0), BITNET_INVALID_ARGUMENT, "bytes = 0");
    FAILS(bitnet_device_name(NULL, name, 8), BITNET_INVALID_HANDLE, "device is NULL");
    FAILS(bitnet_device_name((bitnet_device *)name, name, 8), BITNET_INVALID_HANDLE, "not a handle of this library");
    FAILS(bitnet_device_name((bitnet_device *)UINTPTR_MAX, name, 8), BITNET_INVALID_HANDLE, "not a handle of this library");
    FAILS(bitnet_device_close((bitnet_device *)name), BITNET_INVALID_HANDLE, "not a handle of this library");
}

static void bad_memory(void) {
    char host[64] = {0};
    void *pointer = NULL, *untouched = NULL;
    FAILS(bitnet_alloc(device, 0, &untouched), BITNET_INVALID_ARGUMENT, "bytes = 0");
    FAILS(bitnet_alloc(device, -1, &untouched), BITNET_INVALID_ARGUMENT, "bytes = -1");
    FAILS(bitnet_alloc(device, 64, NULL), BITNET_INVALID_ARGUMENT, "pointer is NULL");
    FAILS(bitnet_alloc(device, INT64_MAX, &untouched), BITNET_OUT_OF_MEMORY, "9223372036854775807");
    CHECK(untouched == NULL);
    OK(bitnet_alloc(device, 64, &pointer));
    FAILS(bitnet_copy_to_device(device, pointer, host, 65, stream), BITNET_INVALID_ARGUMENT, "to: 65 bytes", "64 bytes");
    FAILS(bitnet_copy_to_device(device, pointer, host, -5, stream), BITNET_INVALID_ARGUMENT, "bytes = -5");
    FAILS(bitnet_copy_to_device(device, pointer, NULL, 64, stream), BITNET_INVALID_ARGUMENT, "from is NULL");
    FAILS(bitnet_copy_to_device(device, NULL, host, 64, stream), BITNET_INVALID_ARGUMENT, "to is NULL");
    FAILS(bitnet_copy_to_host(device, host, (char *)pointer + 64, 1, stream), BITNET_INVALID_ARGUMENT, "from: 1 bytes");
    FAILS(bitnet_copy_to_host(device, host, host, 64, stream), BITNET_INVALID_ARGUMENT, "from: 64 bytes", "not memory of");
    if (!on_cuda) {
        FAILS(bitnet_synchronize(device, (bitnet_stream)0x77), BITNET_INVALID_ARGUMENT, "stream: stream 0x77");
        FAILS(bitnet_copy_to_device(device, pointer, host, 64, (bitnet_stream)0x77), BITNET_INVALID_ARGUMENT, "0x77");
    }
    FAILS(bitnet_free(device, (char *)pointer + 1), BITNET_INVALID_ARGUMENT, "pointer = 0x", "not returned by bitnet_alloc");
    OK(bitnet_free(device, pointer));
    FAILS(bitnet_free(device, pointer), BITNET_INVALID_ARGUMENT, "has been freed");
    FAILS(bitnet_copy_to_device(device, pointer, host, 64, stream), BITNET_INVALID_ARGUMENT, "to: 64 bytes");
}

static void bad_weights(void) {
    float weights[8] = {0, 1, -1, NAN}, scale;
    int8_t ternary[8] = {0, 1, -1, 2};
    uint8_t packed[128];
    int64_t bytes = 0;
    FAILS(bitnet_quantize_weights(weights, 2, 4, ternary, &scale), BITNET_INVALID_WEIGHTS, "weights: ", "NaN", "column 3");
    FAILS(bitnet_quantize_weights(weights, 0, 4, ternary, &scale), BITNET_INVALID_ARGUMENT, "n = 0");
    FAILS(bitnet_quantize_weights(weights, 2, -4, ternary, &scale), BITNET_INVALID_ARGUMENT, "k = -4");
    FAILS(bitnet_quantize_weights(NULL, 2, 4, ternary, &scale), BITNET_INVALID_ARGUMENT, "weights is NULL");
    FAILS(bitnet_quantize_weights((float *)((char *)weights + 1), 1, 4, ternary, &scale), BITNET_INVALID_ARGUMENT,
          "weights = 0x", "multiple of 4");
    FAILS(bitnet_quantize_weights(weights, INT64_MAX, 4, ternary, &scale), BITNET_INVALID_ARGUMENT, "9223372036854775807 x 4", "address");
    FAILS(bitnet_quantize_weights(weights, INT64_C(1) << 62, 3, ternary, &scale), BITNET_INVALID_ARGUMENT, "4611686018427387904 x 3",
          "address");
    FAILS(bitnet_quantize_weights(weights, INT64_C(1) << 50, 2048, ternary, &scale), BITNET_INVALID_ARGUMENT, "weights = 0x",
          "beyond the address space");
    FAILS(bitnet_quantize_weights((float *)(UINTPTR_MAX - 3), 2, 4, ternary, &scale), BITNET_INVALID_ARGUMENT, "8 elements",
          "beyond the address space");
    /* Refused by its shape: not one of those weights is read. */
    FAILS(bitnet_quantize_weights(weights, 1, INT64_C(1) << 40, ternary, &scale), BITNET_INVALID_ARGUMENT, "1099511627776",
          "16777215");
    FAILS(bitnet_quantize_weights(weights, 2, 4, (int8_t *)weights + 31, &scale), BITNET_INVALID_ARGUMENT, "ternary = 0x", "(8 bytes)",
          "overlaps weights = 0x", "(32 bytes)");
    FAILS(bitnet_quantize_weights(weights, 2, 4, ternary, weights + 7), BITNET_INVALID_ARGUMENT, "scale = 0x", "overlaps weights");
    FAILS(bitnet_quantize_weights(weights, 1, 4, (int8_t *)(weights + 4), weights + 4), BITNET_INVALID_ARGUMENT, "ternary = 0x",
          "overlaps scale");
    FAILS(bitnet_pack(BITNET_ROW_MAJOR, ternary, 2, 4, (uint8_t *)ternary, 2), BITNET_INVALID_ARGUMENT, "packed = 0x", "overlaps ternary");
    FAILS(bitnet_unpack(BITNET_ROW_MAJOR, (uint8_t *)ternary, 2, 2, 4, ternary), BITNET_INVALID_ARGUMENT, "ternary = 0x", "overlaps packed");
    FAILS(bitnet_packed_bytes((bitnet_layout)3, 1, 4, &bytes), BITNET_INVALID_ARGUMENT, "layout = 3", "BITNET_LADDER");
    FAILS(bitnet_packed_bytes(BITNET_TILED, 1, 16777216, &bytes), BITNET_INVALID_ARGUMENT, "16777216", "16777215");
    FAILS(bitnet_pack(BITNET_ROW_MAJOR, ternary, 2, 4, packed, 2), BITNET_INVALID_WEIGHTS, "weight 2", "row 0, column 3");
    FAILS(bitnet_pack(BITNET_LADDER, ternary, 2, 4, packed, 127), BITNET_INVALID_ARGUMENT, "bytes = 127", "128");
    FAILS(bitnet_pack(BITNET_LADDER, ternary, 2, 4, NULL, 128), BITNET_INVALID_ARGUMENT, "packed is NULL");
    memset(packed, 0xaa, sizeof packed);
    packed[5] = 0x8a; /* code 0 */
    FAILS(bitnet_unpack(BITNET_LADDER, packed, 128, 16, 32, ternary), BITNET_INVALID_WEIGHTS, "packed: ", "code 0");
    packed[5] = 0xba; /* code 3 in the padding */
    FAILS(bitnet_unpack(BITNET_LADDER, packed, 128, 1, 1, ternary), BITNET_INVALID_WEIGHTS, "padding");
    FAILS(bitnet_unpack(BITNET_LADDER, packed, -1, 1, 1, ternary), BITNET_INVALID_ARGUMENT, "bytes = -1");
}

static void bad_layers(void) {
    float weights[32] = {1}, bias[2] = {0, INFINITY}, host[32] = {0};
    int8_t ternary[32] = {1};
    bitnet_scale_range scales[2] = {{1, 1.0f}, {2, 1.0f}};
    bitnet_linear *layer = NULL, *none = NULL;
    bitnet_activations *activations = NULL;
    FAILS(bitnet_linear_create(NULL, weights, 2, 16, NULL, &none), BITNET_INVALID_HANDLE, "device is NULL");
    FAILS(bitnet_linear_create(device, NULL, 2, 16, NULL, &none), BITNET_INVALID_ARGUMENT, "weights is NULL");
    FAILS(bitnet_linear_create(device, weights, -2, 16, NULL, &none), BITNET_INVALID_ARGUMENT, "n = -2");
    FAILS(bitnet_linear_create(device, weights, 2, 16, NULL, NULL), BITNET_INVALID_ARGUMENT, "linear is NULL");
    FAILS(bitnet_linear_create(device, weights, 2, 16, bias, &none), BITNET_INVALID_ARGUMENT, "bias[1]", "inf");
    scales[1].end = 3;
    FAILS(bitnet_linear_create_ternary(device, ternary, 2, 16, scales, 2, NULL, &none), BITNET_INVALID_ARGUMENT,
          "scales[1].end = 3");
    scales[1].end = 1;
    FAILS(bitnet_linear_create_ternary(device, ternary, 2, 16, scales, 2, NULL, &none), BITNET_INVALID_WEIGHTS, "scales: ");
    scales[1] = (bitnet_scale_range){2, NAN};
    FAILS(bitnet_linear_create_ternary(device, ternary, 2, 16, scales, 2, NULL, &none), BITNET_INVALID_WEIGHTS, "scales: ", "NaN");
    FAILS(bitnet_linear_create_ternary(device, ternary, 2, 16, scales, 0, NULL, &none), BITNET_INVALID_ARGUMENT, "ranges = 0");
    FAILS(bitnet_linear_create_ternary(device, ternary, 2, 16, scales, 3, NULL, &none), BITNET_INVALID_ARGUMENT, "ranges = 3");
    FAILS(bitnet_linear_create_ternary(device, ternary, 2, 16, NULL, 2, NULL, &none), BITNET_INVALID_ARGUMENT, "scales is NULL");
    CHECK(none == NULL);

    OK(bitnet_linear_create(device, weights, 2, 16, NULL, &layer));
    OK(bitnet_activations_create(device, 1, 15, &activations));
    void *x = upload(host, 64), *y = upload(NULL, 8);
    FAILS(bitnet_linear_forward(layer, x, (bitnet_dtype)9, 1, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "x_dtype = 9");
    FAILS(bitnet_linear_forward(layer, x, BITNET_F32, 1, y, (bitnet_dtype)-1, stream), BITNET_INVALID_ARGUMENT, "y_dtype = -1");
    FAILS(bitnet_linear_forward(layer, x, BITNET_F32, 0, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "m = 0");
    FAILS(bitnet_linear_forward(layer, x, BITNET_F32, -1, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "m = -1");
    FAILS(bitnet_linear_forward(layer, x, BITNET_F32, 2, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "x: 128 bytes");
    FAILS(bitnet_linear_forward(layer, x, BITNET_F16, 2, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "y: 16 bytes");
    FAILS(bitnet_linear_forward(layer, (char *)x + 2, BITNET_F32, 1, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "x: ");
    FAILS(bitnet_linear_forward(layer, x, BITNET_F32, 1, (char *)x + 8, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "overlaps");
    FAILS(bitnet_linear_forward(layer, x, BITNET_F32, 1, (char *)x + 60, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "overlaps");
    FAILS(bitnet_linear_forward(layer, (char *)y + 4, BITNET_F32, 1, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "overlaps");
    FAILS(bitnet_linear_forward(layer, NULL, BITNET_F32, 1, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "x is NULL");
    FAILS(bitnet_linear_forward((bitnet_linear *)device, x, BITNET_F32, 1, y, BITNET_F32, stream), BITNET_INVALID_HANDLE,
          "linear = 0x", "is a bitnet_device");
    FAILS(bitnet_linear_forward_quantized(layer, NULL, y, BITNET_F32, stream), BITNET_INVALID_HANDLE, "activations is NULL");
    FAILS(bitnet_linear_forward_quantized(layer, activations, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "16", "15");
    FAILS(bitnet_activations_create(device, 1, 16777216, &activations), BITNET_INVALID_ARGUMENT, "k = 16777216");
    FAILS(bitnet_activations_create_from(device, 1, 16, ternary, NULL, &activations), BITNET_INVALID_ARGUMENT, "scales is NULL");
    FAILS(bitnet_activations_quantize(activations, y, BITNET_F32, stream), BITNET_INVALID_ARGUMENT, "x: 60 bytes");
    FAILS(bitnet_activations_read(activations, (int8_t *)host, host), BITNET_INVALID_ARGUMENT, "values = 0x", "overlaps scales");
    FAILS(bitnet_activations_read(activations, ternary, NULL), BITNET_INVALID_ARGUMENT, "scales is NULL");

    OK(bitnet_linear_destroy(layer));
    FAILS(bitnet_linear_destroy(layer), BITNET_INVALID_HANDLE, "linear = ", "has been destroyed");
    FAILS(bitnet_linear_forward(layer, x, BITNET_F32, 1, y, BITNET_F32, stream), BITNET_INVALID_HANDLE, "has been destroyed");
    FAILS(bitnet_activations_destroy((bitnet_activations *)device), BITNET_INVALID_HANDLE, "is a bitnet_device");
    OK(bitnet_activations_destroy(activations));
    OK(bitnet_linear_destroy(NULL));
    OK(bitnet_activations_destroy(NULL));
    release(x);
    release(y);
}

void test_bad_input(void) {
    bad_devices();
    bad_memory();
    bad_weights();
    bad_layers();
    bad_norms();
    /* A call that succeeds leaves no message. */
    OK(bitnet_synchronize(device, stream));
    CHECK(bitnet_last_error()[0] == '\0');
}
