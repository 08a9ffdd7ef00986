#include "check.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int failures;
bitnet_device *device;
bitnet_stream stream;
bool on_cuda;

static uint64_t state;

bool check(bool condition, const char *file, int line, const char *text, const char *format, ...) {
    if (!condition) {
        failures++;
        printf("%s:%d: %s:", file, line, text);
        va_list arguments;
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        printf("\n");
    }
    return condition;
}

/* Arguments have no order in C: the message is asked for here, after the call. */
void check_succeeds(bitnet_status found, const char *file, int line, const char *text) {
    check(found == BITNET_SUCCESS, file, line, text, " status %d (%s)", found, bitnet_last_error());
}

void check_fails(bitnet_status found, bitnet_status expected, const char *file, int line, const char *text,
                 const char *const *words) {
    const char *message = bitnet_last_error();
    check(found == expected, file, line, text, " status %d instead of %d (%s)", found, expected, message);
    for (; *words; words++)
        check(strstr(message, *words) != NULL, file, line, text, " no `%s` in the message: %s", *words, message);
}

uint32_t random_bits(void) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717ull) >> 32);
}

int random_between(int least, int most) { return least + (int)(random_bits() % (uint32_t)(most - least + 1)); }

float random_float(float scale) { return ((float)(random_bits() >> 8) / 8388608.0f - 1.0f) * scale; }

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory) {
        printf("out of host memory: %zu x %zu bytes\n", count, size);
        exit(1);
    }
    return memory;
}

void *upload(const void *host, size_t bytes) {
    void *pointer = NULL;
    OK(bitnet_alloc(device, (int64_t)bytes, &pointer));
    uint8_t *poison = NULL;
    if (!host) {
        host = poison = allocate(bytes, 1);
        memset(poison, 0xa5, bytes);
    }
    OK(bitnet_copy_to_device(device, pointer, host, (int64_t)bytes, stream));
    free(poison);
    return pointer;
}

void download(void *host, const void *pointer, size_t bytes) {
    OK(bitnet_copy_to_host(device, host, pointer, (int64_t)bytes, stream));
}

void release(void *pointer) { OK(bitnet_free(device, pointer)); }

/* The CUDA driver, as a program has it that uses it without this library. */
static struct {
    int (*cuInit)(unsigned);
    int (*cuDevicePrimaryCtxRetain)(void **, int);
    int (*cuDevicePrimaryCtxRelease)(int);
    int (*cuCtxSetCurrent)(void *);
    int (*cuCtxGetCurrent)(void **);
    int (*cuStreamCreate)(bitnet_stream *, unsigned);
    int (*cuStreamDestroy)(bitnet_stream);
    int (*cuMemAlloc)(uint64_t *, size_t);
    int (*cuMemFree)(uint64_t);
    int (*cuMemcpyDtoHAsync)(void *, uint64_t, size_t, bitnet_stream);
    int (*cuStreamSynchronize)(bitnet_stream);
} cuda;

static void find(void *library, const char *name, void *function) {
    void *address = dlsym(library, name);
    if (!address) {
        printf("the CUDA driver has no %s\n", name);
        exit(1);
    }
    memcpy(function, &address, sizeof address);
}

static void load_cuda(void) {
    const char *path = getenv("CUST_LAZY_LIBCUDA");
    void *library = dlopen(path ? path : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        printf("no CUDA driver: %s\n", dlerror());
        exit(1);
    }
    find(library, "cuInit", &cuda.cuInit);
    find(library, "cuDevicePrimaryCtxRetain", &cuda.cuDevicePrimaryCtxRetain);
    find(library, "cuDevicePrimaryCtxRelease_v2", &cuda.cuDevicePrimaryCtxRelease);
    find(library, "cuCtxSetCurrent", &cuda.cuCtxSetCurrent);
    find(library, "cuCtxGetCurrent", &cuda.cuCtxGetCurrent);
    find(library, "cuStreamCreate", &cuda.cuStreamCreate);
    find(library, "cuStreamDestroy_v2", &cuda.cuStreamDestroy);
    find(library, "cuMemAlloc_v2", &cuda.cuMemAlloc);
    find(library, "cuMemFree_v2", &cuda.cuMemFree);
    find(library, "cuMemcpyDtoHAsync_v2", &cuda.cuMemcpyDtoHAsync);
    find(library, "cuStreamSynchronize", &cuda.cuStreamSynchronize);
}

void *cuda_malloc(size_t bytes) {
    uint64_t address = 0;
    CHECK(cuda.cuMemAlloc(&address, bytes) == 0);
    return (void *)(uintptr_t)address;
}

void cuda_free(void *pointer) { CHECK(cuda.cuMemFree((uintptr_t)pointer) == 0); }

void cuda_synchronize(bitnet_stream waited) { CHECK(cuda.cuStreamSynchronize(waited) == 0); }

void cuda_copy_to_host(void *host, const void *pointer, size_t bytes) {
    CHECK(cuda.cuMemcpyDtoHAsync(host, (uintptr_t)pointer, bytes, stream) == 0);
    cuda_synchronize(stream);
}

void *cuda_current_context(void) {
    void *context = NULL;
    CHECK(cuda.cuCtxGetCurrent(&context) == 0);
    return context;
}

void cuda_set_current_context(void *context) { CHECK(cuda.cuCtxSetCurrent(context) == 0); }

void set_up(const char *name) {
    const char *seed = getenv("BITNET_TEST_SEED");
    state = seed ? strtoull(seed, NULL, 10) : ((uint64_t)time(NULL) << 20 ^ (uint64_t)getpid()) | 1;
    printf("BITNET_TEST_SEED=%llu\n", (unsigned long long)state);
    on_cuda = strncmp(name, "cuda", 4) == 0;
    if (on_cuda) {
        load_cuda();
        void *context = NULL;
        CHECK(cuda.cuInit(0) == 0);
        CHECK(cuda.cuDevicePrimaryCtxRetain(&context, 0) == 0);
        CHECK(cuda.cuCtxSetCurrent(context) == 0);
        CHECK(cuda.cuStreamCreate(&stream, 1) == 0);
    }
    OK(bitnet_device_open(name, &device));
}

void tear_down(void) {
    OK(bitnet_device_close(device));
    if (on_cuda) {
        CHECK(cuda.cuStreamDestroy(stream) == 0);
        CHECK(cuda.cuDevicePrimaryCtxRelease(0) == 0);
    }
}
