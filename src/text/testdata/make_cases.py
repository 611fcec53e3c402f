#!/usr/bin/env python3
"""Makes small_tokenizers.json: tiny tokenizers with many combinations of components, and what the reference library
(PyPI `tokenizers`) answers for odd texts. small_tokenizer_test.cc compares.

    make_cases.py OUT.json [number of configurations] [seed]
"""

import json
import random
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = """The quick brown fox jumps over the lazy dog. In the beginning was the word, and the word was with us.
Four score and seven years ago our fathers brought forth on this continent a new nation, conceived in liberty.
naïve café über Größe straße, "quoted" text; it's what we'll say: don't, can't! 1,234.50 + 17 = 1251.5?
def f(x): return x[0] * 2  # comment   with   spaces
привет мир, как дела? 東京 東西 ひらがな 한국어 🙂 ▁ {a: 1, b: 2}""".split("\n")

FRAGMENTS = [
    "the quick brown fox", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "a", "b", "Hello", " world", "'s", "'ll", "’s",
    "don't", "123", "3456", "12", "1,000.50", "é", "e\u0301", "ﬀ", "ﬁ", "Å", "A\u030a", "\u1100\u1161\u11a8", "각", "東京",
    "ひらがな", "ｶﾞ", "한국어", "Привет", "Δοκιμή", "İstanbul", "straße", "שלום", "مرحبا", "हिन्दी", "ไทย", "😀",
    "👨‍👩‍👧‍👦", "🇫🇷", "\u200d", "\u200b", "\ufeff", "\u00a0", "\u3000", "\u180e", "\u0085", "\u2028", "\x00", "\x01", "\x0b",
    "\x1b", "\x7f", "\u0301", "\u0323\u0301", "\u0301\u0323", "_", "-", "--", "...", "?!", "$%", "<s>", "</s>", "<unk>",
    "<0x41>", "▁", "▁▁", "Ġ", "½", "²", "Ⅷ", "①", "٣", "𝟙", "Ω", "ǅ", "ſ", "\ufffd", "\U0001fae0", "\U0001fa77", "A", "B",
    "CamelCase", "ab" * 20, "x" * 50, " " * 17, "¿Qué?", "ＦＵＬＬ", "…", "“q”", "[MASK]", "<x>", "<y>", "new york", "word"]

PATTERNS = [
    {"String": " "}, {"String": "a"}, {"Regex": "\\s+"}, {"Regex": "\\w+"}, {"Regex": "\\p{L}+"}, {"Regex": "\\d"},
    {"Regex": "\\p{N}{1,3}"}, {"Regex": "[\\p{L}&&[^\\p{Han}]]+|\\p{Han}+"}, {"Regex": "(?i:[a-f])+"},
    {"Regex": "\\p{P}"}, {"Regex": "[[:punct:]]+"}, {"Regex": "\\p{N}{1,3}+"}, {"Regex": "[^\\n]+\\n?$"},
    {"Regex": "'s|'t| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"}, {"Regex": "\\R|\\X"}]
EMPTY_PATTERNS = [{"Regex": "\\b"}, {"Regex": "(?=[A-Z])"}, {"Regex": "x*"}, {"Regex": "^|\\n"}]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def train():
    """Small models of each kind, as JSON."""
    made = {}

    def bpe(name, model, pre, **options):
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre
        tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(show_progress=False, **options))
        made[name] = json.loads(tokenizer.to_str())
        made[name]["added_tokens"] = [t for t in made[name]["added_tokens"] if not t["content"].startswith("<0x")]

    bpe("byte_level", models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False), vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"])
    bpe("byte_fallback", models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True), pre_tokenizers.Metaspace(),
        vocab_size=440, limit_alphabet=60,
        special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)])
    bpe("affix", models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"),
        pre_tokenizers.Whitespace(), vocab_size=260, limit_alphabet=50, special_tokens=["<unk>"],
        continuing_subword_prefix="##", end_of_word_suffix="</w>")
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.train_from_iterator(TEXT, trainers.UnigramTrainer(
        vocab_size=180, unk_token="<unk>", special_tokens=["<unk>", "<s>", "</s>"], show_progress=False))
    made["unigram"] = json.loads(unigram.to_str())
    made["unigram_bytes"] = json.loads(unigram.to_str())
    made["unigram_bytes"]["model"]["byte_fallback"] = True
    made["unigram_bytes"]["model"]["vocab"] += [["<0x%02X>" % b, -20.0] for b in range(256)]
    return made


USUAL = {
    "byte_level": dict(decoder={"type": "ByteLevel"}),
    "byte_fallback": dict(decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
    "affix": dict(decoder={"type": "BPEDecoder", "suffix": "</w>"}),
    "unigram": dict(decoder={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}),
}
USUAL["unigram_bytes"] = USUAL["byte_fallback"]


def normalizer(r, depth=0):
    k = r.randrange(17)
    if k < 3 and depth < 2:
        return {"type": "Sequence", "normalizers": [normalizer(r, depth + 1) for _ in range(r.randrange(4))]}
    if k < 7:
        return {"type": r.choice(["NFC", "NFD", "NFKC", "NFKD"])}
    return [
        {"type": "Lowercase"},
        {"type": "Strip", "strip_left": r.random() < .5, "strip_right": r.random() < .5},
        {"type": "StripAccents"},
        {"type": "Prepend", "prepend": r.choice(["▁", " ", "ab"])},
        {"type": "Replace", "pattern": r.choice(PATTERNS), "content": r.choice(["▁", "", " ", "b"])},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        {"type": "Nmt"},
        {"type": "ByteLevel"},
        {"type": "BertNormalizer", "clean_text": r.random() < .5, "handle_chinese_chars": r.random() < .5,
         "strip_accents": r.choice([None, True, False]), "lowercase": r.random() < .5},
        {"type": "NFC"},
    ][max(k, 7) - 7]


def pre_tokenizer(r, depth=0):
    k = r.randrange(17)
    if k < 3 and depth < 2:
        return {"type": "Sequence", "pretokenizers": [pre_tokenizer(r, depth + 1) for _ in range(r.randrange(4))]}
    if k < 6:
        return {"type": "Split", "pattern": r.choice(PATTERNS + EMPTY_PATTERNS), "behavior": r.choice(BEHAVIORS),
                "invert": r.random() < .3}
    if k < 8:
        return {"type": "ByteLevel", "add_prefix_space": r.random() < .4, "trim_offsets": True,
                "use_regex": r.random() < .6}
    if k < 10:
        return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": r.choice(["first", "always", "never"]),
                "split": r.random() < .7}
    return [
        {"type": "Digits", "individual_digits": r.random() < .5},
        {"type": "Punctuation", "behavior": r.choice(BEHAVIORS)},
        {"type": "Whitespace"},
        {"type": "WhitespaceSplit"},
        {"type": "CharDelimiterSplit", "delimiter": r.choice(["a", " ", "é"])},
        {"type": "BertPreTokenizer"},
        {"type": "FixedLength", "length": r.choice([1, 3, 5])},
    ][k - 10]


def decoder(r, depth=0):
    k = r.randrange(14)
    if k < 5 and depth < 2:
        return {"type": "Sequence", "decoders": [decoder(r, depth + 1) for _ in range(r.randrange(1, 5))]}
    return [
        {"type": "ByteLevel"}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Replace", "pattern": r.choice(PATTERNS + EMPTY_PATTERNS), "content": r.choice([" ", "", "b"])},
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "Strip", "content": r.choice([" ", "a", "▁"]), "start": r.randrange(3), "stop": r.choice([0, 0, 1])},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": r.choice(["first", "always", "never"]), "split": True},
        {"type": "BPEDecoder", "suffix": r.choice(["</w>", "a"])},
        {"type": "WordPiece", "prefix": "##", "cleanup": r.random() < .5},
    ][max(k, 5) - 5]


def added_tokens(r):
    contents = ["<x>", "<y>", "new york", "word", "<s>", "</s>", "[MASK]", "  ", "\n\n", "é", "AB", "東京", "'s", "a", "!",
                "<x", "<x>x", "Hello", "ＡＢ"]
    return [dict(id=1000 + i, content=c, single_word=r.random() < .3, lstrip=r.random() < .3, rstrip=r.random() < .3,
                 normalized=r.random() < .5, special=r.random() < .5)
            for i, c in enumerate(r.sample(contents, r.randrange(8)))]


def post_processor(r):
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "B", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"A": {"id": "A", "ids": [1, 2], "tokens": ["x", "y"]},
                                   "B": {"id": "B", "ids": [0], "tokens": ["z"]}}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    return r.choice([template, {"type": "Sequence", "processors": [byte_level, template]}, byte_level, None,
                     {"type": "BertProcessing", "sep": ["x", 1], "cls": ["y", 2]},
                     {"type": "RobertaProcessing", "sep": ["x", 1], "cls": ["y", 2], "trim_offsets": True,
                      "add_prefix_space": False}])


def configuration(r, made):
    """Which model, and what differs from the file it was trained as."""
    name = r.choice(sorted(made))
    change = dict(USUAL[name])
    if r.random() < .6:
        change["normalizer"] = normalizer(r)
    if r.random() < .7:
        change["pre_tokenizer"] = pre_tokenizer(r) if r.random() < .9 else None
    if r.random() < .5:
        change["decoder"] = decoder(r) if r.random() < .9 else None
    if r.random() < .6:
        own = made[name]["added_tokens"]
        known = [token["content"] for token in own]
        change["added_tokens"] = own + [t for t in added_tokens(r) if t["content"] not in known]
    change["post_processor"] = post_processor(r)
    options = {}
    if made[name]["model"]["type"] == "BPE":
        options = {"ignore_merges": r.random() < .2, "fuse_unk": r.random() < .5}
    return {"model": name, "options": options, "change": change}


def whole(config, made):
    tokenizer = json.loads(json.dumps(made[config["model"]]))
    tokenizer.update(config["change"])
    tokenizer["model"].update(config["options"])
    return tokenizer


def is_plain(tokenizer, reference):
    """Leaves out what the reference library answers by chance: added tokens with no or the same normal form."""
    if reference.normalizer is None:
        return True
    normal = [reference.normalizer.normalize_str(t["content"]) for t in tokenizer["added_tokens"] if t["normalized"]]
    return "" not in normal and len(set(normal)) == len(normal)


def answers(r, reference, num_texts):
    out = []
    while len(out) < num_texts:
        text = "".join(r.choice(FRAGMENTS) + (" " if r.random() < .25 else "") for _ in range(r.choice([0, 1, 2, 4, 7])))
        try:
            ids = reference.encode(text, add_special_tokens=False).ids
            case = {"text": text, "ids": ids, "special": reference.encode(text, add_special_tokens=True).ids}
            some = ids if r.random() < .5 else [r.randrange(450) for _ in range(r.randrange(10))]
            case["decode"] = some
            case["decoded"] = reference.decode(some, skip_special_tokens=False)
            case["skipped"] = reference.decode(some, skip_special_tokens=True)
        except BaseException as error:  # the library panics on some combinations
            if isinstance(error, KeyboardInterrupt):
                raise
            return None
        out.append(case)
    return out


def main():
    path = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    r = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    made = train()
    cases = []
    while len(cases) < count:
        config = configuration(r, made)
        tokenizer = whole(config, made)
        try:
            reference = Tokenizer.from_str(json.dumps(tokenizer))
        except Exception:
            continue
        if not is_plain(tokenizer, reference):
            continue
        config["cases"] = answers(r, reference, 6)
        if config["cases"]:
            cases.append(config)
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"tokenizers":' + json.dumps(made, ensure_ascii=False, separators=(",", ":")) + ',\n"configurations":[\n')
        file.write(",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases) + "\n]}\n")


if __name__ == "__main__":
    main()
