/* What the tests share: checks that count failures, random numbers, and the device under test. */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bitnet.h"

extern int failures;

/* Prints where and what, and goes on. */
#define CHECK(condition, ...) check((condition), __FILE__, __LINE__, #condition, " " __VA_ARGS__)
/* A call has to succeed. */
#define OK(call) check_succeeds((call), __FILE__, __LINE__, #call)
/* A call has to fail with this status, and a message with these words in it. */
#define FAILS(call, status, ...) check_fails((call), (status), __FILE__, __LINE__, #call, (const char *[]){__VA_ARGS__, NULL})

bool check(bool condition, const char *file, int line, const char *text, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void check_succeeds(bitnet_status found, const char *file, int line, const char *text);
void check_fails(bitnet_status found, bitnet_status expected, const char *file, int line, const char *text,
                 const char *const *words);

/* xorshift64*; the seed is printed. */
uint32_t random_bits(void);
int random_between(int least, int most);
float random_float(float scale);

void *allocate(size_t count, size_t size);

/* The device under test, and a stream that the caller of the library has made on it. */
extern bitnet_device *device;
extern bitnet_stream stream;
/* Whether it is the CUDA driver (or its double) that runs the work. */
extern bool on_cuda;

/* Device memory with a copy of host memory, or (where `host` is NULL) filled with bytes 0xa5. */
void *upload(const void *host, size_t bytes);
void download(void *host, const void *pointer, size_t bytes);
void release(void *pointer);

/* What a program gets from CUDA itself; only where `on_cuda`. */
void *cuda_malloc(size_t bytes);
void cuda_free(void *pointer);
void cuda_synchronize(bitnet_stream waited);
void cuda_copy_to_host(void *host, const void *pointer, size_t bytes);
void *cuda_current_context(void);
void cuda_set_current_context(void *context);

/* Opens device and stream; `name` is "emulated" or "cuda". */
void set_up(const char *name);
void tear_down(void);

#endif
