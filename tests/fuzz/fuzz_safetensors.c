// SPDX-License-Identifier: MIT
// The safetensors reader, and compressed-tensors' names without a config.
#include <unistd.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd;
    const char *path = clq_fuzz_file(data, size, &fd);
    clq_source *s;
    clq_error err;
    if (clq_source_open(path, NULL, &s, &err) == CLQ_OK) {
        clq_fuzz_walk(s);
        clq_source_close(s);
    }
    close(fd);
    return 0;
}
