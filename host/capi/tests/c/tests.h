#ifndef TESTS_H
#define TESTS_H

void test_published_shapes(void);
void test_any_shape(void);
void test_closing(void);
void test_bad_calls(void);
void test_devices(void);
void test_weights(void);
void test_layers(void);
void test_norms(void);
void test_lost_device(void);
void test_bad_input(void);
void bad_norms(void);

#endif
