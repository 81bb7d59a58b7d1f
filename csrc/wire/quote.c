/* Text of a client inside quotes, as in Go's %q: what is shown in an -ERR cannot end it early or draw on a terminal. */
#include "plane.h"

uint32_t jsc_utf8(const uint8_t *s, size_t n, uint32_t *code) {
    uint32_t len = s[0] < 0x80                   ? 1
                   : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
                   : (s[0] & 0xf0) == 0xe0       ? 3
                   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                                 : 0;
    if (!len || len > n) return 0;
    uint32_t c = len == 1 ? s[0] : s[0] & (0x7fu >> len);
    for (uint32_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if ((len == 3 && c < 0x800) || (len == 4 && c < 0x10000) || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    *code = c;
    return len;
}

/* Controls, blanks other than the space, marks of direction and width, private and non-characters. */
static int hidden(uint32_t c) {
    static const uint32_t ranges[][2] = {{0x7f, 0xa0},     {0xad, 0xad},       {0x61c, 0x61c},     {0x1680, 0x1680},
                                         {0x180e, 0x180e}, {0x2000, 0x200f},   {0x2028, 0x202f},   {0x205f, 0x206f},
                                         {0x3000, 0x3000}, {0xe000, 0xf8ff},   {0xfeff, 0xfeff},   {0xfff0, 0xfffb},
                                         {0xfffe, 0xffff}, {0xe0000, 0xe0fff}, {0xf0000, 0x10ffff}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1]) return 1;
    return c < 0x20;
}

static char *hex(char *q, char kind, uint32_t v, int digits) {
    *q++ = '\\';
    *q++ = kind;
    while (digits--) *q++ = "0123456789abcdef"[v >> (4 * digits) & 15];
    return q;
}

char *jsc_put_quoted(char *q, const char *text, size_t n) {
    static const char letters[] = "abtnvfr"; /* 7 to 13 */
    const uint8_t *s = (const uint8_t *)text;
    *q++ = '"';
    for (size_t i = 0; i < n;) {
        uint32_t c = 0, len = jsc_utf8(s + i, n - i, &c);
        if (!len) {
            q = hex(q, 'x', s[i++], 2);
            continue;
        }
        if (c == '"' || c == '\\') {
            *q++ = '\\';
            *q++ = (char)c;
        } else if (c >= 7 && c <= 13) {
            *q++ = '\\';
            *q++ = letters[c - 7];
        } else if (!hidden(c)) {
            q = jsc_copy(q, s + i, len);
        } else {
            q = c < 0x80 ? hex(q, 'x', c, 2) : c < 0x10000 ? hex(q, 'u', c, 4) : hex(q, 'U', c, 8);
        }
        i += len;
    }
    *q++ = '"';
    return q;
}
