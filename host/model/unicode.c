// SPDX-License-Identifier: MIT
// Characters: UTF-8, categories, lower case, normalization forms C and D.
#include <string.h>

#include "model/tokenize.h"

struct char_range {
    uint32_t first, last;
    uint8_t value;
};
struct lower_range {
    uint32_t first, last;
    uint8_t step;
    int32_t delta;
};
#include "model/unicode_data.h"

// ---- UTF-8 -------------------------------------------------------------------------------------

uint32_t clq_utf8_decode(const char *text, size_t len, uint32_t *n)
{
    const unsigned char *s = (const unsigned char *)text;
    uint32_t size = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf8 ? 4 : 0;
    *n = 1;
    if (size == 1) return s[0];
    if (size == 0 || size > len) return 0xfffd;
    uint32_t c = s[0] & (0x7fu >> size);
    for (uint32_t i = 1; i < size; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0xfffd;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c > 0x10ffff) return 0xfffd;
    *n = size;
    return c;
}

bool clq_utf8_valid(const char *text, size_t len)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < len;) {
        if (!(text[i] & 0x80)) {
            i++;
            continue;
        }
        uint32_t n, c = clq_utf8_decode(text + i, len - i, &n);
        if (n == 1 || c < least[n] || (c >= 0xd800 && c < 0xe000)) return false;
        i += n;
    }
    return true;
}

void clq_utf8_append(clq_buf *b, uint32_t c)
{
    char s[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 1; c >>= 6) s[i] = (char)(0x80 | (c & 0x3f));
    s[0] = (char)(first[n] | c);
    clq_buf_append(b, s, n);
}

// ---- properties --------------------------------------------------------------------------------

static unsigned range_value(const struct char_range *ranges, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && ranges[low].first <= c ? ranges[low].value : 0;
}

unsigned clq_char_flags(uint32_t c)
{
    return range_value(char_flags, sizeof char_flags / sizeof *char_flags, c);
}

unsigned clq_char_flags_hf(uint32_t c)
{
    unsigned flags = clq_char_flags(c);
    if (flags & CLQ_CHAR_WAS_PUNCTUATION) return CLQ_CHAR_PUNCTUATION;
    return flags & CLQ_CHAR_RECENT ? 0 : flags;
}

static unsigned combining_class(uint32_t c)
{
    return c < 0x300 ? 0 : range_value(combining, sizeof combining / sizeof *combining, c);
}

bool clq_char_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

uint32_t clq_char_lower(uint32_t c)
{
    size_t low_at = 0, high = sizeof lower / sizeof *lower;
    while (low_at < high) {
        size_t middle = (low_at + high) / 2;
        if (lower[middle].last < c)
            low_at = middle + 1;
        else
            high = middle;
    }
    const struct lower_range *r = &lower[low_at];
    if (low_at == sizeof lower / sizeof *lower || r->first > c || (c - r->first) % r->step) return c;
    return (uint32_t)((int64_t)c + r->delta);
}

// ---- normalization -----------------------------------------------------------------------------

enum { HANGUL = 0xac00, HANGUL_END = 0xd7a4, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7 };
enum { N_L = 19, N_V = 21, N_T = 28, N_DECOMPOSITIONS = sizeof decompositions / sizeof *decompositions };

static const uint32_t *find_decomposition(uint32_t c)
{
    size_t low = 0, high = N_DECOMPOSITIONS;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((decompositions[middle][0] & 0x1fffff) < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < N_DECOMPOSITIONS && (decompositions[low][0] & 0x1fffff) == c ? decompositions[low] : NULL;
}

unsigned clq_char_decompose(uint32_t c, uint32_t out[4])
{
    if (c >= HANGUL && c < HANGUL_END) {
        uint32_t i = c - HANGUL, tail = i % N_T;
        out[0] = L_BASE + i / (N_V * N_T);
        out[1] = V_BASE + i % (N_V * N_T) / N_T;
        if (tail) out[2] = T_BASE + tail;
        return tail ? 3 : 2;
    }
    uint32_t behind[4]; // what stands behind the part that is still taken apart
    unsigned n_behind = 0;
    const uint32_t *d;
    while (n_behind < 3 && c >= 0xc0 && (d = find_decomposition(c))) {
        if (d[2]) behind[n_behind++] = d[2];
        c = d[1];
    }
    out[0] = c;
    for (unsigned i = 0; i < n_behind; i++) out[1 + i] = behind[n_behind - 1 - i];
    return 1 + n_behind;
}

// Stable order of combining marks by their class. Runs of marks are short but need not be.
static void order_marks(uint32_t *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        unsigned class = combining_class(c[i]);
        if (!class) continue;
        size_t at = i, most = i > 64 ? i - 64 : 0; // bounded: a text of marks only must not take quadratic time
        uint32_t mark = c[i];
        for (; at > most && combining_class(c[at - 1]) > class; at--) c[at] = c[at - 1];
        c[at] = mark;
    }
}

bool clq_chars_nfd(const uint32_t *chars, size_t n, clq_buf *out)
{
    size_t begin = out->len;
    for (size_t i = 0; i < n; i++) {
        uint32_t parts[4];
        unsigned n_parts = chars[i] < 0xc0 ? (parts[0] = chars[i], 1u) : clq_char_decompose(chars[i], parts);
        clq_buf_append(out, parts, n_parts * sizeof *parts);
    }
    if (out->failed) return false;
    if (out->len > begin)
        order_marks((uint32_t *)(void *)(out->data + begin), (out->len - begin) / sizeof(uint32_t));
    return true;
}

static uint32_t compose(uint32_t a, uint32_t b) // 0: the two do not compose
{
    if (a >= L_BASE && a < L_BASE + N_L && b >= V_BASE && b < V_BASE + N_V)
        return HANGUL + ((a - L_BASE) * N_V + b - V_BASE) * N_T;
    if (a >= HANGUL && a < HANGUL_END && (a - HANGUL) % N_T == 0 && b > T_BASE && b < T_BASE + N_T)
        return a + b - T_BASE;
    if (b < 0x300) return 0;
    size_t low = 0, high = sizeof compositions / sizeof *compositions;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const uint32_t *d = decompositions[compositions[middle]];
        if (d[1] < a || (d[1] == a && d[2] < b))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == sizeof compositions / sizeof *compositions) return 0;
    const uint32_t *d = decompositions[compositions[low]];
    return d[1] == a && d[2] == b ? d[0] : 0;
}

// Whether a text is in form C beyond doubt: nothing in it combines or decomposes.
static bool is_simple(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint32_t n, c = clq_utf8_decode(text + i, len - i, &n);
        if (c >= 0x300) {
            if (combining_class(c) || (c >= V_BASE && c < T_BASE + N_T) || clq_char_flags(c) & (4 | 8)) return false;
            const uint32_t *d = c < HANGUL || c >= HANGUL_END ? find_decomposition(c) : NULL;
            if (d && d[0] >> 31) return false;
        }
        i += n;
    }
    return true;
}

bool clq_text_nfc(const char *text, size_t len, clq_buf *out)
{
    if (is_simple(text, len)) {
        clq_buf_append(out, text, len);
        return !out->failed;
    }
    clq_buf chars = {0}, parts = {0};
    for (size_t i = 0; i < len;) {
        uint32_t n, c = clq_utf8_decode(text + i, len - i, &n);
        clq_buf_append(&chars, &c, sizeof c);
        i += n;
    }
    bool ok = !chars.failed &&
              clq_chars_nfd((const uint32_t *)(const void *)chars.data, chars.len / sizeof(uint32_t), &parts);
    clq_buf_free(&chars);
    uint32_t *c = (uint32_t *)(void *)parts.data;
    size_t n = ok ? parts.len / sizeof *c : 0, kept = 0, starter = SIZE_MAX;
    unsigned last_class = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned class = combining_class(c[i]);
        bool reachable = starter != SIZE_MAX && (kept == starter + 1 || (class && last_class < class));
        uint32_t whole = reachable ? compose(c[starter], c[i]) : 0;
        if (whole) {
            c[starter] = whole;
            continue;
        }
        if (!class) starter = kept;
        last_class = class;
        c[kept++] = c[i];
    }
    for (size_t i = 0; i < kept; i++) clq_utf8_append(out, c[i]);
    clq_buf_free(&parts);
    return ok && !out->failed;
}
