"""Texts that tokenizers cut in different ways: many scripts, marks, numbers, contractions, white space and code."""

import random
import unicodedata

LINES = [
    "The quick brown fox jumps over the lazy dog. It's 7 o'clock; they'll say we've done what I'd said you're doing!",
    "IT'S, WE'LL, I'D, YOU'RE, DON'T, I'M, THEY'VE; It'S We'lL I'Ll you'Re 'tis 'Twas rock'n'roll '90s ’s ’LL",
    "camelCase PascalCase SCREAMING_CASE snake_case HTMLParser iPhone15Pro x86_64 utf8mb4 getURLFor2Users",
    "1 12 123 1234 12345 123456 1234567 12345678 123456789 3.14159 1,000,000.00 0xDEADBEEF 1e-10 ½ ² Ⅷ ٣٤٥ १२३४",
    "本地部署大模型最大的成本是内存带宽。模型每写一个字,全部权重都要从内存读到处理器一次。價格:¥1,299元起!",
    "人々が集まる東京タワーは、高さ333メートルです。ｶﾀｶﾅとひらがな、〇一二〆〻。「それは本当?」",
    "메모리 대역폭이 가장 큰 비용이다. 안녕하세요! ㅋㅋㅋ 2026년 11월",
    "الذاكرة هي عنق الزجاجة. السَّلَامُ عَلَيْكُمْ ٢٠٢٦ ـ كتاب؟",
    "स्मृति की गति ही सीमा है। क्षत्रिय हिन्दी में १२३ রবীন্দ্রনাথ ภาษาไทย การอ่านหน่วยความจำ தமிழ்",
    "Živjo! ÀÉÎÕÜ àéîõü ÉTÉ été Straße STRASSE ﬁne ﬂow Ǆungla ǅ ǆ Привет, МИР! Ελληνικά ΑΘΗΝΑ İstanbul ıI",
    "e\u0301te\u0301 n\u0303 a\u0308\u0323 Z\u0351\u0343\u0322algo \u0301alone q\u0307\u0323's",
    "👨‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇨🇳🇩🇪 1️⃣ ☕️ ❤️‍🔥 🙂🙂 a🙂b 🙂's ⚡5 ©®™ → ≠ ∑ €100 $5 +1 <=> a~b ~/x ~| `code`",
    "def f(x: int) -> str:\n    \"\"\"Doc.\"\"\"\n\treturn f'{x!r:>10}' if x != 0 else \"\\n\"  # it's x\n\n\n",
    "#include <stdio.h>\r\nint main(void) {\r\n\tprintf(\"%d\\n\", 1<<3);\r\n}\r\n\r\n// end\r",
    "{\"key\": [1, 2.5, null], \"https://example.org/a/b?c=d&e=%20#f\": \"C:\\\\dir\\\\f.txt\"}/* x *//// //\n/\n",
    " \n  \n\n   \n\t\t\n \t \r\n \u00a0 \u3000 \u2003 \u2028 \u0085 \x0b \x0c\n\n\n\n     end   \n",
    "a  b   c    d     e\tf\t\tg \n h\n i \u00a0j\u00a0\u00a0k\u3000l \u3000m\u2009n",
    "- item\n  - sub\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nx=1\n```\n\n***b***, __init__, ...!?!?—–…“”‘’«»",
    "\x00\x01\x1b[31m\x7f\x80\u200b\u200c\u200d\u200e\ufeff\ufffd\ufffe soft\u00adhyphen",
    "!a \"b #c $d %e &f (g )h *i +j ,k -l .m /n :o ;p <q =r >s ?t @u [v \\w ]x ^y _z `a {b |c }d ~e",
]  # fmt: skip
WORDS = [
    "the", "Hello", " world", "'s", "'LL", " don't", "123", "4567890", "  ", "    ", "\n", "\n\n", "\r\n", "\t", " \n",
    "你好", "世界", "，", "def f(x):", "!=", "...", "http://", "É", "ß", "🙂", "👨‍👩‍👧", "\u00a0", "\u3000", "ſ",
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<0x0A>", "▁", "Ġ", "aB", "HTMLOf", "हिन्दी", "e\u0301",
]  # fmt: skip
RANGES = [
    (0x20, 0x7E), (9, 13), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x4FF), (0x590, 0x6FF), (0x900, 0xE7F),
    (0x1100, 0x11FF), (0x1E00, 0x20CF), (0x2190, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xFF00, 0xFFEF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF),
]  # fmt: skip


def assigned(text: str) -> str:
    """The text without unassigned characters: what is a letter in the newest Unicode is one in not every library."""
    return "".join(char for char in text if unicodedata.category(char) != "Cn")


def some_text(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.choice([3, 10, 40])):
        if rng.random() < 0.5:
            parts.append(rng.choice(WORDS) * rng.choice([1, 1, 1, rng.randint(2, 9)]))
        else:
            first, last = rng.choice(RANGES)
            parts.append("".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 5))))
    return assigned("".join(parts))


def texts(number: int, seed: int = 70) -> list[str]:
    """LINES, windows of them with their ends cut anywhere, and random ones; `number` of them."""
    rng = random.Random(seed)
    found = [assigned(line) for line in LINES]
    while len(found) < number:
        line = rng.choice(found[: len(LINES)])
        start = rng.randrange(len(line))
        found.append(line[start : start + rng.randint(1, 40)] if rng.random() < 0.4 else some_text(rng))
    return found[:number]
