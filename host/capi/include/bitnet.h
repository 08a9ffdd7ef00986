/*
 * C interface of libbitnet.so: BitNet layers (ternary weights, int8 activations) on an NVIDIA GPU or on an emulator.
 *
 * Errors. A function that returns a bitnet_status other than BITNET_SUCCESS has put a message into bitnet_last_error() that names
 * the argument and its value. Arguments are checked first: after an error about one, nothing was submitted and no result written.
 *
 * Handles. bitnet_device, bitnet_linear, bitnet_norm and bitnet_activations are never dereferenced: one that is null,
 * freed, of another type or invented gives BITNET_INVALID_HANDLE. Each type has its own function to release it, which accepts NULL, like
 * free().
 *
 * Memory. A device pointer is any address in the device's memory: from bitnet_alloc, and on a GPU also from cudaMalloc,
 * cuMemAlloc and the like. It is checked against the existing allocations: a pointer outside all of them, or a length beyond the end
 * of one, gives BITNET_INVALID_ARGUMENT. Device memory must stay allocated until the work that uses it is complete.
 *
 * Streams. On a GPU, a stream is a cudaStream_t (or CUstream) of the device's primary context, which is the context of the CUDA
 * runtime; NULL is the legacy default stream. An invalid stream handle cannot be detected. On the emulator it must be NULL. Functions that
 * take a stream and neither copy to or from the host nor synchronize submit work and do not wait. They can be captured into a CUDA graph,
 * provided that an earlier call has loaded the kernels.
 *
 * Threads. Every function can be called from any thread, and restores the calling thread's current CUDA context.
 *
 * Sizes are in elements unless named bytes. Matrices are row-major: [m, k] is m tokens of k features.
 */
#ifndef BITNET_H
#define BITNET_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BITNET_VERSION_MAJOR 0
#define BITNET_VERSION_MINOR 1
#define BITNET_VERSION_PATCH 0

typedef enum bitnet_status {
    BITNET_SUCCESS = 0,
    /* A null, misaligned, overlapping or foreign pointer, a size out of range, an unknown name or enumerator. */
    BITNET_INVALID_ARGUMENT = 1,
    /* A handle that is null, freed, of another type, or not from this library. */
    BITNET_INVALID_HANDLE = 2,
    /* Invalid weights, packed bytes or scales. */
    BITNET_INVALID_WEIGHTS = 3,
    /* No usable NVIDIA driver, or no such GPU. */
    BITNET_NO_DEVICE = 4,
    BITNET_OUT_OF_MEMORY = 5,
    /* The device was lost to a fault: destroy everything created on it, and open it again. */
    BITNET_DEVICE_LOST = 6,
    /* The CUDA driver refused a call. */
    BITNET_DRIVER_ERROR = 7,
    /* A bug in this library. */
    BITNET_INTERNAL_ERROR = 8
} bitnet_status;

/* Floating-point types in device memory. */
typedef enum bitnet_dtype { BITNET_F32 = 0, BITNET_F16 = 1, BITNET_BF16 = 2 } bitnet_dtype;

/* How 2-bit weights are arranged. */
typedef enum bitnet_layout {
    /* Code w + 1; element 4 j + i of a row in bits 2 i of its byte j; k padded to 4. */
    BITNET_ROW_MAJOR = 0,
    /* Microsoft's W2A8 kernel: 16 x 32 blocks, permuted and interleaved, code w + 2; n padded to 16, k to 32. */
    BITNET_LADDER = 1,
    /* This library's own layout: 16 x 128 blocks, code w + 1; n padded to 16, k to 128. */
    BITNET_TILED = 2
} bitnet_layout;

/* f of a gated activation f(gate) * up. */
typedef enum bitnet_activation_function {
    /* max(x, 0)^2 */
    BITNET_SQUARED_RELU = 0,
    /* x / (1 + exp(-x)) */
    BITNET_SILU = 1,
    /* x / 2 (1 + erf(x / sqrt(2))) */
    BITNET_GELU_ERF = 2,
    /* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
    BITNET_GELU_TANH = 3
} bitnet_activation_function;

/* Weight scale of the rows from the end of the previous range (or 0) to `end`, exclusive. */
typedef struct bitnet_scale_range {
    int64_t end;
    float scale;
} bitnet_scale_range;

typedef struct bitnet_device bitnet_device;
typedef struct bitnet_linear bitnet_linear;
typedef struct bitnet_norm bitnet_norm;
typedef struct bitnet_activations bitnet_activations;

/* A cudaStream_t or CUstream; both are pointers to this struct. */
typedef struct CUstream_st *bitnet_stream;

/* The error message of this thread's last call, "" if it succeeded. Valid until the thread's next call of this library. */
const char *bitnet_last_error(void);

/* The version of the library that is running, such as "0.1.0". */
const char *bitnet_version(void);

/*
 * Devices.
 */

/*
 * Opens "auto" (the first usable GPU, else the emulator), "cuda", "cuda:<ordinal>" or "emulated". Opening a device again returns
 * another handle to the same device; a process has one emulated device.
 */
bitnet_status bitnet_device_open(const char *name, bitnet_device **device);

/* Closes a handle. The last one of a device frees its memory from bitnet_alloc; layers, norms and activations keep the device open. */
bitnet_status bitnet_device_close(bitnet_device *device);

/* The device's name, such as "cuda:0 (NVIDIA H200)" or "emulated (sm_90)", truncated to `bytes` including the terminating null. */
bitnet_status bitnet_device_name(bitnet_device *device, char *name, int64_t bytes);

/* Allocates device memory, aligned to 256 bytes, with undefined content. */
bitnet_status bitnet_alloc(bitnet_device *device, int64_t bytes, void **pointer);

/* Frees memory of bitnet_alloc after waiting for all work of the device, as cudaFree does. */
bitnet_status bitnet_free(bitnet_device *device, void *pointer);

/* Copy to or from the host, after the work submitted to `stream` so far. The copy is complete on return. */
bitnet_status bitnet_copy_to_device(bitnet_device *device, void *to, const void *from, int64_t bytes, bitnet_stream stream);
bitnet_status bitnet_copy_to_host(bitnet_device *device, void *to, const void *from, int64_t bytes, bitnet_stream stream);

/* Waits for the work submitted to `stream`, and reports its errors. */
bitnet_status bitnet_synchronize(bitnet_device *device, bitnet_stream stream);

/*
 * Weights, in host memory.
 */

/*
 * Quantizes weights [n, k] to ternary, -1, 0 or 1, with one scale: scale = max(mean|w|, 1e-5), t = clamp(rint(w / scale), -1, 1),
 * where w / scale is computed as a product with the reciprocal in f32.
 */
bitnet_status bitnet_quantize_weights(const float *weights, int64_t n, int64_t k, int8_t *ternary, float *scale);

/* The size of packed weights [n, k] in a layout, including padding. */
bitnet_status bitnet_packed_bytes(bitnet_layout layout, int64_t n, int64_t k, int64_t *bytes);

/* Packs ternary weights [n, k]; `bytes` must be the size that bitnet_packed_bytes returns. */
bitnet_status bitnet_pack(bitnet_layout layout, const int8_t *ternary, int64_t n, int64_t k, uint8_t *packed, int64_t bytes);

/* The inverse of bitnet_pack. The bytes are checked: each code has to stand for a weight, and padding has to hold weight 0. */
bitnet_status bitnet_unpack(bitnet_layout layout, const uint8_t *packed, int64_t bytes, int64_t n, int64_t k, int8_t *ternary);

/*
 * Linear layers: y[m, n] = sum_k q[m, k] t[n, k] / s[m] * scale[n] (+ bias[n]), for n output and k input features. The integer sum
 * is exact, each operation after it is rounded to f32, in the order written, and the result is rounded once to y's type. The weights are
 * copied to the device; `bias`, [n], may be NULL.
 */

/* From float weights [n, k] in host memory, quantized as by bitnet_quantize_weights. */
bitnet_status bitnet_linear_create(bitnet_device *device, const float *weights, int64_t n, int64_t k, const float *bias,
                                   bitnet_linear **linear);

/* From ternary weights [n, k] in host memory, with scales for ascending row ranges, the last of which ends at n. */
bitnet_status bitnet_linear_create_ternary(bitnet_device *device, const int8_t *ternary, int64_t n, int64_t k,
                                           const bitnet_scale_range *scales, int64_t ranges, const float *bias,
                                           bitnet_linear **linear);

/* From weights packed in any layout, in `bytes` bytes of host memory. */
bitnet_status bitnet_linear_create_packed(bitnet_device *device, bitnet_layout layout, const uint8_t *packed, int64_t bytes,
                                          int64_t n, int64_t k, const bitnet_scale_range *scales, int64_t ranges,
                                          const float *bias, bitnet_linear **linear);

/* Destroys a layer, after waiting for the work that uses it. */
bitnet_status bitnet_linear_destroy(bitnet_linear *linear);

/* Output features n and input features k. */
bitnet_status bitnet_linear_shape(bitnet_linear *linear, int64_t *n, int64_t *k);

/* y = layer(x) for float activations x [m, k], which are quantized per token, and y [m, n], both in device memory. */
bitnet_status bitnet_linear_forward(bitnet_linear *linear, const void *x, bitnet_dtype x_dtype, int64_t m, void *y,
                                    bitnet_dtype y_dtype, bitnet_stream stream);

/* The same for activations that are already quantized; several layers can share them. */
bitnet_status bitnet_linear_forward_quantized(bitnet_linear *linear, bitnet_activations *activations, void *y,
                                              bitnet_dtype y_dtype, bitnet_stream stream);

/*
 * y = layer(norm(x)) (+ residual) for float activations x [m, k], whose norm is quantized per token. `residual`, [m, n] of y's type, may be
 * NULL. The norm's width must be k. The result equals that of bitnet_norm_normalize_quantize and bitnet_linear_forward_quantized, bit for
 * bit; for one token, norm and product are usually a single kernel. y must overlap neither x nor the residual.
 */
bitnet_status bitnet_linear_forward_norm(bitnet_linear *linear, bitnet_norm *norm, const void *x, bitnet_dtype x_dtype, int64_t m,
                                         const void *residual, void *y, bitnet_dtype y_dtype, bitnet_stream stream);

/*
 * Quantized activations [m, k] in device memory: per token s = 127 / max(max|x|, 1e-5), q = clamp(rint(x * s), -128, 127).
 */

/* Allocates room for m tokens of k features, with undefined content. */
bitnet_status bitnet_activations_create(bitnet_device *device, int64_t m, int64_t k, bitnet_activations **activations);

/* From values [m, k] and scales [m] in host memory. */
bitnet_status bitnet_activations_create_from(bitnet_device *device, int64_t m, int64_t k, const int8_t *values,
                                             const float *scales, bitnet_activations **activations);

/* Destroys activations, after waiting for the work that uses them. */
bitnet_status bitnet_activations_destroy(bitnet_activations *activations);

/* Quantizes x [m, k] in device memory. */
bitnet_status bitnet_activations_quantize(bitnet_activations *activations, const void *x, bitnet_dtype x_dtype,
                                          bitnet_stream stream);

/* Copies values [m, k] and scales [m] to host memory, after the work submitted so far. */
bitnet_status bitnet_activations_read(bitnet_activations *activations, int8_t *values, float *scales);

/*
 * Norms of each token of [m, width], computed in f32 and rounded once to the type of the result:
 *
 *     RMSNorm    x / sqrt(mean(x^2) + eps) * gamma
 *     LayerNorm  (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * gamma + beta
 *
 * The result is the same on every device, bit for bit. x, residual and y have the same dtype, are in device memory, and
 * must not overlap. If `residual` is not NULL, residual += x is computed first and rounded to its type, and the sum is normalized.
 */

/* RMSNorm of `width` features. gamma, [width] in host memory, may be NULL, which means ones. eps must be a normal number above 0. */
bitnet_status bitnet_norm_create_rms(bitnet_device *device, int64_t width, const float *gamma, float eps, bitnet_norm **norm);

/* LayerNorm, with beta, [width] in host memory, which may be NULL, which means zeros. */
bitnet_status bitnet_norm_create_layer(bitnet_device *device, int64_t width, const float *gamma, const float *beta, float eps,
                                       bitnet_norm **norm);

/* Destroys a norm, after waiting for the work that uses it. */
bitnet_status bitnet_norm_destroy(bitnet_norm *norm);

/* y = norm(x) of m tokens. */
bitnet_status bitnet_norm_normalize(bitnet_norm *norm, const void *x, bitnet_dtype dtype, int64_t m, void *residual, void *y,
                                  bitnet_stream stream);

/* The norm of x, quantized like bitnet_activations_quantize, in one pass. The f32 norm is not rounded first. m is that of the activations. */
bitnet_status bitnet_norm_normalize_quantize(bitnet_norm *norm, const void *x, bitnet_dtype dtype, void *residual,
                                            bitnet_activations *activations, bitnet_stream stream);

/*
 * The norm of f(gate) * up, both [m, width], quantized in one pass: the middle of a feed-forward block. If `up` is NULL, `gate` is
 * [m, 2 width], each token's gates followed by its ups, as a layer that contains the rows of both writes them. All functions except
 * BITNET_SQUARED_RELU use the hardware's approximate exponential.
 */
bitnet_status bitnet_norm_gated_normalize_quantize(bitnet_norm *norm, bitnet_activation_function function, const void *gate,
                                                  const void *up, bitnet_dtype dtype, bitnet_activations *activations,
                                                  bitnet_stream stream);

/*
 * The function of Microsoft's libbitnet.so (gpu/bitnet_kernels in their BitNet repository), with the same semantics:
 *
 *     out[m, n] = bf16(acc[m, n] / s[m] * ws[n / (N / groups)]), acc[m, n] = sum_k a[m, k] w[n, k], in f32
 *
 * a is [M, K] int8, w is [N, K] in BITNET_LADDER, s [M], ws [groups] and out [M, N] are bfloat16, all in device memory. groups is 3
 * for N x K = 3840 x 2560, 6 for 4800 x 3200, 2 for 13824 x 2560 and 20480 x 3200, otherwise 1. M and N may be any
 * number >= 1, K 1 to 16777215.
 *
 * It runs on the GPU whose context is current on the thread, else on the first usable one, else on the process's emulated device. It
 * returns no status: the message of an error is in bitnet_last_error() and, in one line, on stderr. If K is not a multiple of 32 or `a`
 * is not aligned to 16 bytes, `a` is first copied to padded rows, in stream order.
 */
#if defined(__CUDACC__) || defined(BITNET_CUDA_TYPES)
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
void bitlinear_int8xint2(int8_t *a, int8_t *w, __nv_bfloat16 *out, __nv_bfloat16 *s, __nv_bfloat16 *ws, int M, int N, int K,
                         cudaStream_t stream);
#else
/* Without CUDA's headers, a bfloat16 is its 16 bits. */
void bitlinear_int8xint2(int8_t *a, int8_t *w, uint16_t *out, uint16_t *s, uint16_t *ws, int M, int N, int K,
                         bitnet_stream stream);
#endif

#ifdef __cplusplus
}
#endif

#endif
