/*
 * BitNet layers (ternary weights, int8 activations) on an NVIDIA GPU, or on an emulator of one: the C interface of
 * libbitnet.so.
 *
 * Errors. Every function that returns a bitnet_status returns BITNET_SUCCESS or says in bitnet_last_error() what is wrong,
 * naming the argument and its value. Then nothing was submitted and no result was written.
 *
 * Handles. bitnet_device, bitnet_linear, bitnet_norm and bitnet_activations are never dereferenced: one that is null, freed, of another
 * type or made up is BITNET_INVALID_HANDLE. Each is released by its own function; NULL is allowed there, as in free().
 *
 * Memory. A device pointer is any address in the device's memory: from bitnet_alloc, and on a GPU also from cudaMalloc,
 * cuMemAlloc and their like. It is checked against the allocations that the device knows: a pointer into none, or
 * a length beyond the end of one, is BITNET_INVALID_ARGUMENT. Device memory stays allocated until the work that uses it is done.
 *
 * Streams. On a GPU, a stream is the caller's own: a cudaStream_t (or CUstream) of the device's primary context, which is
 * the context of the CUDA runtime. NULL is the legacy default stream. A handle that is no stream cannot be detected. On the emulator
 * it is NULL. Functions that take a stream and neither copy to or from the host nor synchronize only submit work and do not wait.
 * They can be captured into a CUDA graph, once a call before the capture has loaded the kernels.
 *
 * Threads. Every function can be called from every thread. One that uses a GPU leaves the calling thread's current CUDA
 * context as it was.
 *
 * Sizes are in elements unless they are called bytes. Matrices are row-major: [m, k] is m tokens of k features.
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
    /* A handle that is null, freed, of another type, or none of this library's. */
    BITNET_INVALID_HANDLE = 2,
    /* Weights, packed bytes or scales that are not what they should be. */
    BITNET_INVALID_WEIGHTS = 3,
    /* No usable NVIDIA driver, or no such GPU. */
    BITNET_NO_DEVICE = 4,
    BITNET_OUT_OF_MEMORY = 5,
    /* A fault has taken the device's memory: destroy everything made on it, and open it again. */
    BITNET_DEVICE_LOST = 6,
    /* The CUDA driver refused a call. */
    BITNET_DRIVER_ERROR = 7,
    /* A mistake in this library. */
    BITNET_INTERNAL_ERROR = 8
} bitnet_status;

/* Types of floats in device memory. */
typedef enum bitnet_dtype { BITNET_F32 = 0, BITNET_F16 = 1, BITNET_BF16 = 2 } bitnet_dtype;

/* How 2-bit weights are arranged. */
typedef enum bitnet_layout {
    /* Code w + 1; element 4 j + i of a row in bits 2 i of its byte j; k padded to 4. */
    BITNET_ROW_MAJOR = 0,
    /* Microsoft's W2A8 kernel: 16 x 32 blocks, permuted and interleaved, code w + 2; n padded to 16, k to 32. */
    BITNET_LADDER = 1,
    /* This library's own. */
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

/* The rows from the end of the range before (or 0) to `end`, exclusive, have weight scale `scale`. */
typedef struct bitnet_scale_range {
    int64_t end;
    float scale;
} bitnet_scale_range;

typedef struct bitnet_device bitnet_device;
typedef struct bitnet_linear bitnet_linear;
typedef struct bitnet_norm bitnet_norm;
typedef struct bitnet_activations bitnet_activations;

/* A cudaStream_t or CUstream, which are pointers to this very struct. */
typedef struct CUstream_st *bitnet_stream;

/* What went wrong in the last call of this thread, "" if nothing did. Valid until the thread's next call of this library. */
const char *bitnet_last_error(void);

/* The version of the library that is running, such as "0.1.0". */
const char *bitnet_version(void);

/*
 * Devices.
 */

/*
 * Opens "auto" (the first usable GPU, else the emulator), "cuda", "cuda:<ordinal>" or "emulated". Opening a device again gives
 * another handle of the same device; a process has one emulated device.
 */
bitnet_status bitnet_device_open(const char *name, bitnet_device **device);

/* With the last handle of a device, its memory from bitnet_alloc is freed. Layers and activations keep the device open. */
bitnet_status bitnet_device_close(bitnet_device *device);

/* Its name, such as "cuda:0 (NVIDIA H200)" or "emulated (sm_90)", cut to `bytes` with its terminating null. */
bitnet_status bitnet_device_name(bitnet_device *device, char *name, int64_t bytes);

/* Device memory, aligned to 256 bytes, of undefined content. */
bitnet_status bitnet_alloc(bitnet_device *device, int64_t bytes, void **pointer);

/* Frees memory of bitnet_alloc after waiting for all work of the device, as cudaFree does. */
bitnet_status bitnet_free(bitnet_device *device, void *pointer);

/* Copies to or from the host: after the work submitted to `stream` so far, and complete on return. */
bitnet_status bitnet_copy_to_device(bitnet_device *device, void *to, const void *from, int64_t bytes, bitnet_stream stream);
bitnet_status bitnet_copy_to_host(bitnet_device *device, void *to, const void *from, int64_t bytes, bitnet_stream stream);

/* Waits for the work submitted to `stream`, and reports what went wrong in it. */
bitnet_status bitnet_synchronize(bitnet_device *device, bitnet_stream stream);

/*
 * Weights, in host memory.
 */

/*
 * Quantizes weights [n, k] to ternary, -1, 0 or 1, with one scale: scale = max(mean|w|, 1e-5), t = clamp(rint(w / scale), -1, 1),
 * where the division is a product with the reciprocal in f32.
 */
bitnet_status bitnet_quantize_weights(const float *weights, int64_t n, int64_t k, int8_t *ternary, float *scale);

/* How many bytes [n, k] takes in a layout, padding included. */
bitnet_status bitnet_packed_bytes(bitnet_layout layout, int64_t n, int64_t k, int64_t *bytes);

/* Packs ternary weights [n, k] into `bytes` bytes, as many as bitnet_packed_bytes says. */
bitnet_status bitnet_pack(bitnet_layout layout, const int8_t *ternary, int64_t n, int64_t k, uint8_t *packed, int64_t bytes);

/* The inverse. The bytes are checked: each code stands for a weight, and padding holds weight 0. */
bitnet_status bitnet_unpack(bitnet_layout layout, const uint8_t *packed, int64_t bytes, int64_t n, int64_t k, int8_t *ternary);

/*
 * Linear layers: y[m, n] = sum_k q[m, k] t[n, k] / s[m] * scale[n] (+ bias[n]), for n output and k input features. The integer sum is
 * exact, each operation after it rounds in f32, in that order, and the result once to y's type. The weights are
 * copied to the device; `bias`, [n], may be NULL.
 */

/* From float weights [n, k] in host memory, which bitnet_quantize_weights describes how to quantize. */
bitnet_status bitnet_linear_create(bitnet_device *device, const float *weights, int64_t n, int64_t k, const float *bias,
                                   bitnet_linear **linear);

/* From ternary weights [n, k] in host memory, with scales for ascending row ranges, the last of which ends at n. */
bitnet_status bitnet_linear_create_ternary(bitnet_device *device, const int8_t *ternary, int64_t n, int64_t k,
                                           const bitnet_scale_range *scales, int64_t ranges, const float *bias,
                                           bitnet_linear **linear);

/* From weights packed in any layout, `bytes` bytes of host memory. */
bitnet_status bitnet_linear_create_packed(bitnet_device *device, bitnet_layout layout, const uint8_t *packed, int64_t bytes,
                                          int64_t n, int64_t k, const bitnet_scale_range *scales, int64_t ranges,
                                          const float *bias, bitnet_linear **linear);

/* Waits for the work that uses the layer. */
bitnet_status bitnet_linear_destroy(bitnet_linear *linear);

/* Features: n out, k in. */
bitnet_status bitnet_linear_shape(bitnet_linear *linear, int64_t *n, int64_t *k);

/* y = layer(x) of float activations x [m, k], quantized per token on the way, to y [m, n], both in device memory. */
bitnet_status bitnet_linear_forward(bitnet_linear *linear, const void *x, bitnet_dtype x_dtype, int64_t m, void *y,
                                    bitnet_dtype y_dtype, bitnet_stream stream);

/* The same of activations that are quantized already; several layers can share them. */
bitnet_status bitnet_linear_forward_quantized(bitnet_linear *linear, bitnet_activations *activations, void *y,
                                              bitnet_dtype y_dtype, bitnet_stream stream);

/*
 * The norm of float activations x [m, k], quantized per token, and the layer's product with it: y = layer(norm(x)) (+ residual), where
 * `residual`, [m, n] of y's type, may be NULL. The norm's width is k. The result is that of bitnet_norm_forward_quantized and
 * bitnet_linear_forward_quantized, bit for bit; one token mostly takes one kernel. y overlaps neither x nor the residual.
 */
bitnet_status bitnet_linear_forward_norm(bitnet_linear *linear, bitnet_norm *norm, const void *x, bitnet_dtype x_dtype, int64_t m,
                                         const void *residual, void *y, bitnet_dtype y_dtype, bitnet_stream stream);

/*
 * Quantized activations [m, k] in device memory: per token s = 127 / max(max|x|, 1e-5), q = clamp(rint(x * s), -128, 127).
 */

/* Room for m tokens of k features, of undefined content. */
bitnet_status bitnet_activations_create(bitnet_device *device, int64_t m, int64_t k, bitnet_activations **activations);

/* From values [m, k] and scales [m] in host memory. */
bitnet_status bitnet_activations_create_from(bitnet_device *device, int64_t m, int64_t k, const int8_t *values,
                                             const float *scales, bitnet_activations **activations);

/* Waits for the work that uses them. */
bitnet_status bitnet_activations_destroy(bitnet_activations *activations);

/* Quantizes x [m, k] in device memory. */
bitnet_status bitnet_activations_quantize(bitnet_activations *activations, const void *x, bitnet_dtype x_dtype,
                                          bitnet_stream stream);

/* Copies values [m, k] and scales [m] to host memory, after the work submitted so far. */
bitnet_status bitnet_activations_read(bitnet_activations *activations, int8_t *values, float *scales);

/*
 * Norms of each token of [m, width], in f32, rounded once to the type of the result:
 *
 *     RMSNorm    x / sqrt(mean(x^2) + eps) * gamma
 *     LayerNorm  (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * gamma + beta
 *
 * The result is the same on every device, bit for bit. x, residual and y have one dtype, lie in device memory, and may not overlap.
 * Where `residual` is not NULL, residual += x first, rounded to its type; what is normalized is the sum.
 */

/* Of `width` features. gamma [width] in host memory may be NULL, for ones. eps is a normal number above 0. */
bitnet_status bitnet_norm_create_rms(bitnet_device *device, int64_t width, const float *gamma, float eps, bitnet_norm **norm);

/* The same with beta [width], which may be NULL, for zeros. */
bitnet_status bitnet_norm_create_layer(bitnet_device *device, int64_t width, const float *gamma, const float *beta, float eps,
                                       bitnet_norm **norm);

/* Waits for the work that uses the norm. */
bitnet_status bitnet_norm_destroy(bitnet_norm *norm);

/* y = norm(x) of m tokens. */
bitnet_status bitnet_norm_forward(bitnet_norm *norm, const void *x, bitnet_dtype dtype, int64_t m, void *residual, void *y,
                                  bitnet_stream stream);

/* The norm of x, quantized as bitnet_activations_quantize does, in one pass. The f32 norm is what is quantized. m is the activations'. */
bitnet_status bitnet_norm_forward_quantized(bitnet_norm *norm, const void *x, bitnet_dtype dtype, void *residual,
                                            bitnet_activations *activations, bitnet_stream stream);

/*
 * The norm of f(gate) * up, both [m, width], quantized in one pass: the middle of a feed-forward block. Where `up` is NULL, `gate` is
 * [m, 2 width], each token's gates and then its ups, as a layer with the rows of both leaves them. All but BITNET_SQUARED_RELU uses the
 * hardware's approximate exponential.
 */
bitnet_status bitnet_norm_forward_gated_quantized(bitnet_norm *norm, bitnet_activation_function function, const void *gate,
                                                  const void *up, bitnet_dtype dtype, bitnet_activations *activations,
                                                  bitnet_stream stream);

/*
 * The function of Microsoft's libbitnet.so (gpu/bitnet_kernels in their BitNet repository), with its meaning:
 *
 *     out[m, n] = bf16(acc[m, n] / s[m] * ws[n / (N / groups)]), acc[m, n] = sum_k a[m, k] w[n, k], in f32
 *
 * a [M, K] int8, w BITNET_LADDER bytes of [N, K], s [M], ws [groups] and out [M, N] bfloat16, all in device memory. groups is 3
 * for N x K = 3840 x 2560, 6 for 4800 x 3200, 2 for 13824 x 2560 and 20480 x 3200, otherwise 1. Any M, N and K from 1 on are taken.
 *
 * It works on the GPU whose context is current on the thread, else on the first usable one, else on the process's emulated
 * device. It returns nothing: what went wrong is in bitnet_last_error(), and one line on stderr. Where K is not a multiple of 32
 * or `a` not aligned to 16 bytes, `a` is first copied to padded rows, in the stream's order.
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
