// SPDX-License-Identifier: MIT
// The observers on values of a file, for tests that compare them with other programs:
//   observe_trace TRACE.npy WINDOW      [tokens, columns] float32; WINDOW tokens are observed at a time
// prints {"exponent": E, "bad": N, "ranges": {"minmax": [absmax, min, max], ...}}.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "calib/ranges.h"
#include "io/npy.h"
#include "slot_fixture.h"

int main(int argc, char **argv)
{
    clq_matrix x;
    clq_error err;
    clq_range ranges[CLQ_N_OBSERVERS];
    uint64_t window = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    if (!window) {
        fprintf(stderr, "usage: observe_trace TRACE.npy WINDOW\n");
        return CLQ_USAGE;
    }
    if (clq_npy_read(argv[1], &x, &err) != CLQ_OK) {
        fprintf(stderr, "%s\n", err.text);
        return (int)err.status;
    }
    float *slot = new_slot((uint32_t)x.cols);
    for (uint64_t at = 0; at < x.rows; at += window)
        add_window(slot, x.values + at * x.cols, (uint32_t)(x.rows - at < window ? x.rows - at : window),
                   (uint32_t)x.cols);
    if (clq_ranges_of(slot, ranges, &err) != CLQ_OK) return (int)err.status;
    printf("{\"exponent\": %d, \"bad\": %u, \"ranges\": {", (int32_t)clq_bits(slot[CLQ_SLOT_EXPONENT]),
           clq_bits(slot[CLQ_SLOT_BAD]));
    for (int i = 0; i < CLQ_N_OBSERVERS; i++)
        printf("%s\"%s\": [%.9g, %.9g, %.9g]", i ? ", " : "", clq_observer_name((clq_observer)i),
               (double)ranges[i].absmax, (double)ranges[i].min, (double)ranges[i].max);
    printf("}}\n");
    free(slot);
    clq_matrix_free(&x);
    return 0;
}
