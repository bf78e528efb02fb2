/* Runs a battery of TestU01, which is a library, on words of 32 bits from stdin.
 *
 *     cc -O3 testu01_stdin.c -o testu01_stdin -ltestu01 -lprobdist -lmylib -lm
 *     python -m tools.stream --generator hash | testu01_stdin smallcrush
 *
 * Add -I and -L with the include and lib folders of TestU01 if it is installed in a folder of its own. The batteries
 * are smallcrush, crush and bigcrush. Prints TestU01's summary, then each p-value; one below 1e-10 or above 1 - 1e-10
 * is a failure, and TestU01 lists those outside of 0.001 to 0.999.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bbattery.h"
#include "swrite.h"
#include "unif01.h"

static unsigned int next_word(void) {
    static uint32_t words[1 << 16];
    static size_t next, count;
    if (next == count) {
        next = 0;
        count = fread(words, sizeof words[0], sizeof words / sizeof words[0], stdin);
        if (count == 0) {
            fputs("testu01_stdin: stdin ended before the battery did\n", stderr);
            exit(1);
        }
    }
    return words[next++];
}

int main(int argc, char **argv) {
    const char *battery = argc == 2 ? argv[1] : "";
    unif01_Gen *generator = unif01_CreateExternGenBits("stdin", next_word);
    swrite_Basic = FALSE; /* the summary alone */
    if (strcmp(battery, "smallcrush") == 0) {
        bbattery_SmallCrush(generator);
    } else if (strcmp(battery, "crush") == 0) {
        bbattery_Crush(generator);
    } else if (strcmp(battery, "bigcrush") == 0) {
        bbattery_BigCrush(generator);
    } else {
        fputs("usage: testu01_stdin smallcrush|crush|bigcrush < words\n", stderr);
        return 2;
    }
    for (int i = 0; i < bbattery_NTests; i++) {
        printf("%-24s %.4g\n", bbattery_TestNames[i], bbattery_pVal[i]);
    }
    unif01_DeleteExternGenBits(generator);
    return 0;
}
