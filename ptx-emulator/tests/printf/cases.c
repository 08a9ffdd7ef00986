// Writes cases.tsv: what the C library's printf makes of many conversions.
//
// cc -w cases.c -o cases && ./cases > cases.tsv
//
// Columns: format, bits of the argument in hexadecimal, result between brackets.

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t random_bits(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int main(void) {
    const char *flags[] = {"", "-", "+", " ", "#", "0", "-#", "+0", "#0", " -"};
    const char *widths[] = {"", "1", "12", "25"};
    const char *precisions[] = {"", ".", ".0", ".1", ".3", ".10", ".15"};
    const char *lengths[] = {"", "ll", "h", "hh", "l", "z"};
    const double values[] = {0, -0.0, 1, -1, 0.5, 1.5, 2.5, 0.1, 1e10, 123456789.125, 9.9999995, 999999.5, 1e-5, 0.0001,
                             1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 1.0 / 3, -7.25, 1e100, 3.0e-200,
                             0.09999995, 1e5, 1e6, 8.0 / 7, 1.0 / 0.0, -1.0 / 0.0};
    for (int at = 0; at < 900; at++) {
        char format[64], text[512];
        const char *flag = flags[random_bits() % 10];
        const char *width = widths[random_bits() % 4];
        const char *precision = precisions[random_bits() % 7];
        uint64_t bits = random_bits();
        if (at % 3 < 2) {
            char letter = "feEgGaAF"[random_bits() % 8];
            double value;
            switch (random_bits() % 3) {
            case 0: value = values[bits % 27]; break;
            case 1: memcpy(&value, &bits, 8); break;
            default: value = (double)(bits % 2000000) / (1 << (bits >> 32) % 12) - 300;
            }
            if (value != value) value = 1.25;
            if ((value > 1e60 || value < -1e60) && (letter == 'f' || letter == 'F')) letter = 'e';
            memcpy(&bits, &value, 8);
            sprintf(format, "%%%s%s%s%c", flag, width, precision, letter);
            snprintf(text, sizeof text, format, value);
        } else {
            const char *length = lengths[random_bits() % 6];
            switch (random_bits() % 4) {
            case 0: bits = 0; break;
            case 1: bits %= 300; break;
            case 2: bits = -(bits % 300);
            }
            sprintf(format, "%%%s%s%s%s%c", flag, width, precision, length, "dioxXu"[random_bits() % 6]);
            if (strchr("lz", *length) && *length)
                snprintf(text, sizeof text, format, bits);
            else
                snprintf(text, sizeof text, format, (int)bits);
        }
        printf("%s\t%016llx\t[%s]\n", format, (unsigned long long)bits, text);
    }
    return 0;
}
