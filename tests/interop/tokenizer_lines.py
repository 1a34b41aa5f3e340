# SPDX-License-Identifier: MIT
"""Lines of text for comparing tokenizers: many languages, code, emoji, white space, digits, combining marks, the text
of special tokens. The same for the same seed."""
import random

WORDS = """the of and to in is was for on that with as it be by at from are this which have not you we they can their
Hello World's I'll don't we've They're it's CAN'T HE'S naïve café résumé Zürich Straße ÜBER Ærø œuvre Łódź Čeština Žižkov
señor ¿cómo? ¡olé! coração ação não são garçon déjà-vu l'été aujourd'hui qu'il İstanbul ığdır şöyle ağaç Việt Nam tiếng
người không được привет мир Москва ёлка объявление Україна їжак Ελλάδα καλημέρα κόσμε Ὀδυσσεύς שלום עולם עִבְרִית مرحبا
بالعالم العربية كِتَابٌ فارسی می‌خواهم اردو नमस्ते दुनिया हिन्दी क्षत्रिय বাংলা ভাষা தமிழ் தமிழ்நாடு తెలుగు ಕನ್ನಡ മലയാളം සිංහල
ภาษาไทย สวัสดีครับ ລາວ မြန်မာ ខ្មែរ བོད་སྐད ქართული Հայերեն አማርኛ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ ሰላም 你好 世界 中文 漢字 繁體字 計算機 人工智能 日本語
こんにちは カタカナ ひらがな ｶﾀｶﾅ 東京都 안녕하세요 세계 한국어 컴퓨터 Монгол ᠮᠣᠩᠭᠣᠯ Kiswahili isiZulu Yorùbá ọ̀rọ̀ Hausa ƙasa Māori ʻōlelo
Tiếng ﬁne ﬀ Ⅷ ½ ² ₃ № ™ © ® € £ ¥ ₹ ₽ ∑ ∫ √ ∞ ≠ ≤ → ⇒ ∀x∈ℝ α β γ Δ Ω µ Å K ﷺ""".split()
CODE = ["int main(void) { return 0; }", "for (size_t i = 0; i < n; i++)", "x->y.z[3] &= ~0xFFu;", "def f(a, *b, **c):",
        "    return [x**2 for x in range(10) if x % 2 == 0]", "#include <stdio.h>", "\tif (!p) goto out;", "SELECT * FROM t;",
        "<div class=\"a b\">&nbsp;</div>", "{\"key\": [1, 2.5e-3, null, true]}", "$ git commit -m 'x' && make -j4",
        "fn main() -> Result<(), Box<dyn Error>> {", "std::vector<std::pair<int,int>>", "/* comment */ // other",
        "std::cout << \"hi\\n\";", "https://example.org/a?b=c&d=%20#e", "user.name+tag@mail.example.com", "a=b;c==d;e!=f",
        "///////", "======", "------", "______", "........", "!!!???", "(((())))", "`````", "'''", '"""', "\\\\\\", "@@ -1,3 +1,4 @@"]
EMOJI = ["😀", "😂🤣", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☺", "⚡️", "🧑🏿‍🚀", "1️⃣", "🀄", "🫠", "✈︎", "𝒳𝔂𝕫", "𐍈", "𓂀", "🤷🏻‍♀️"]
SPACES = [" ", "  ", "   ", "\t", "\t\t", " \t ", "\u00a0", "\u3000", "\u2003", "\u200b", "\u2028", "\r", "\v", "\f", "\u0085",
          " " * 7, " " * 16, " " * 33, "\u202f", "\u1680", "\u180e", "\ufeff"]
MARKS = ["\u0301", "\u0308", "\u0323\u0302", "\u0300\u0301\u0302", "\u20dd", "\u0345", "\u093c", "\u3099", "\u1161", "\u11a8"]
CONTROLS = ["\x01", "\x07", "\x1b[31m", "\x7f", "\u200d", "\u200e", "\u2060", "\ufffd", "\ufffe", "\ue000", "\U000e0041", "\u00ad"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<start_of_turn>",
           "<end_of_turn>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "<mask>", "<|eot_id|>", "<|user|>", "<|assistant|>",
           "<|end|>", "<|im_", "|im_end|>", "<<s>>", "<unused7>", "<0x0A>", "<|begin_of_text|>", "<table>", "</h1>", "[/INST]",
           "<repo_name>", "<file_sep>", "<|fim_prefix|>", "▁", "▁▁", "[unused3]", "##ing", "Ġ", "Ċ"]


def number(r):
    kind = r.randrange(6)
    if kind == 0:
        return str(r.randrange(10 ** r.randrange(1, 12)))
    if kind == 1:
        return f"{r.random():.{r.randrange(1, 9)}f}"
    if kind == 2:
        return f"{r.randrange(10 ** 9):,}"
    if kind == 3:
        return "".join(r.choice("٠١٢٣٤٥٦٧٨٩") for _ in range(r.randrange(1, 6)))
    if kind == 4:
        return "".join(r.choice("०१२३४५६७८९①②ⅣⅤ³¼") for _ in range(r.randrange(1, 5)))
    return hex(r.randrange(1 << 40))


# Blocks whose assigned characters are old enough for every table that is compared.
BLOCKS = [(0x21, 0x7e)] * 4 + [(0xa1, 0x17f), (0x180, 0x24f), (0x250, 0x2ff), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x52f),
          (0x531, 0x58a), (0x591, 0x5f4), (0x600, 0x6ff), (0x900, 0x97f), (0x981, 0x9fb), (0xb82, 0xbfa), (0xe01, 0xe5b),
          (0x10a0, 0x10ff), (0x1100, 0x11ff), (0x1e00, 0x1fff), (0x2010, 0x205e), (0x2070, 0x20a0), (0x2100, 0x218a),
          (0x2190, 0x23ff), (0x2500, 0x27bf), (0x3001, 0x30ff), (0x3105, 0x318e), (0x3400, 0x4db5), (0x4e00, 0x9fa5),
          (0xac00, 0xd7a3), (0xf900, 0xfa2d), (0xfb00, 0xfb06), (0xfb50, 0xfbb1), (0xfe10, 0xfe6b), (0xff01, 0xffee),
          (0x10300, 0x10323), (0x1d400, 0x1d7ff), (0x1f300, 0x1f5ff), (0x1f600, 0x1f64f), (0x20000, 0x20fff)]


def letters(r):
    first, last = r.choice(BLOCKS)
    return "".join(chr(r.randint(first, last)) for _ in range(r.randrange(1, 9)))


def line(r, specials):
    parts = []
    for _ in range(r.randrange(1, 14)):
        kind = r.randrange(20)
        if kind < 8:
            word = r.choice(WORDS)
            parts.append(word.upper() if r.randrange(12) == 0 else word)
        elif kind < 10:
            parts.append(r.choice(CODE))
        elif kind == 10:
            parts.append(r.choice(EMOJI) * r.choice([1, 1, 1, 4]))
        elif kind == 11:
            parts.append(number(r))
        elif kind == 12:
            parts.append(r.choice(WORDS) + r.choice(MARKS))
        elif kind == 13:
            parts.append(letters(r))
        elif kind == 14:
            parts.append(r.choice(SPECIAL + specials))
        elif kind == 15:
            parts.append(r.choice(CONTROLS))
        elif kind == 16:
            parts.append(r.choice("aA1.-=#*é中🙂\t ") * r.choice([2, 3, 5, 8, 17, 40, 99, 130]))
        elif kind == 17:
            parts.append("".join(r.choice("abcdefghijklmnopqrstuvwxyzABCDEF_0123456789") for _ in range(r.randrange(1, 30))))
        else:
            parts.append(r.choice(SPACES))
        parts.append(r.choice([" ", " ", " ", "", "", ", ", ". ", r.choice(SPACES)]))
    return "".join(parts)


def lines(n, seed=1, specials=()):
    """n lines without newlines in them. specials: a model's own special tokens."""
    r = random.Random(seed)
    return [line(r, list(specials)).replace("\n", " ") for _ in range(n)]
