/* c-tests DEVICE [small]: runs the tests on "emulated" or "cuda"; `small` leaves out the published shapes. */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "tests.h"

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: c-tests emulated|cuda [small]\n");
        return 2;
    }
    set_up(arguments[1]);
    test_devices();
    test_weights();
    test_layers();
    test_norms();
    test_lost_device();
    test_bad_input();
    test_bad_calls();
    test_any_shape();
    if (count < 3 || strcmp(arguments[2], "small") != 0)
        test_published_shapes();
    test_closing();
    tear_down();
    printf("%s\n", failures ? "FAILED" : "passed");
    return failures != 0;
}
