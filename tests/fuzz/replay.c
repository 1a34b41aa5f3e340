// SPDX-License-Identifier: MIT
// Gives every file of the folders (or single files) named on the command line to the fuzz target once, so that
// ordinary builds and sanitizers see what the fuzzers once found.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static int n_replayed;

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat sb;
    if (!f || stat(path, &sb) != 0) {
        perror(path);
        return 1;
    }
    size_t size = (size_t)sb.st_size;
    uint8_t *data = malloc(size ? size : 1);
    if (!data || fread(data, 1, size, f) != size) {
        perror(path);
        return 1;
    }
    fclose(f);
    printf("%s\n", path); // the last line before a crash tells the file
    fflush(stdout);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    n_replayed++;
    return 0;
}

static int replay(const char *path)
{
    struct stat sb;
    if (stat(path, &sb) != 0) {
        perror(path);
        return 1;
    }
    if (!S_ISDIR(sb.st_mode)) return replay_file(path);
    DIR *d = opendir(path);
    if (!d) {
        perror(path);
        return 1;
    }
    int bad = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char inner[4096];
        if (e->d_name[0] == '.') continue;
        if (snprintf(inner, sizeof inner, "%s/%s", path, e->d_name) < (int)sizeof inner) bad |= replay_file(inner);
    }
    closedir(d);
    return bad;
}

int main(int argc, char **argv)
{
    int bad = argc < 2;
    for (int i = 1; i < argc; i++) bad |= replay(argv[i]);
    printf("%d inputs\n", n_replayed);
    return bad || !n_replayed;
}
