"""llama.cpp's BPE pre-tokenizers as one regular expression each, for tiktoken's engine.

llama.cpp splits text before it merges bytes: by hand-written code or by one to four regular expressions in
turn, each within the pieces of the last (llama-vocab.cpp, `llm_tokenizer_bpe`; unicode.cpp). A pattern here
gives the same pieces in one pass. Three rules turn stages into alternatives:

- what an earlier stage cuts out comes first, and no later class may contain it;
- an end of text that a later stage sees is the end of its piece: `(?!\\S)` becomes "nothing but white space
  or what an earlier stage cut out";
- what no stage matches stays one piece up to the next match, so it needs an alternative of its own, while
  tiktoken would drop it.

Left out, because their stages look behind themselves or cut inside each other's matches: deepseek-llm,
deepseek-coder, youtu, chameleon, superbpe, tiny_aya, cohere2moe, kimi-k2, afmoe; and those that merge
characters instead of bytes: gemma4, sarvam-moe, whitespace.

Alternatives that look ahead come last, the others before them in one group: fancy-regex hands such a group to
an automaton, which makes the whole nearly twice as fast. Knows nothing of vocabularies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNICODE_AGE = "15.1"  # of llama.cpp's unicode-data.cpp; later characters are in no category for it

# sha256 of all characters of a category, in order, as llama.cpp 0.3.36's tables have them.
CATEGORY_DIGESTS = {
    r"\p{L}": "8c78d7b9020b0cec14965ee985f6319eeb570285766252d18d8ff7ed00298bcd",
    r"\p{M}": "edfb5fd9edcac8e400ec1aded2905268453c176674b6d57c40e14df0401d4586",
    r"\p{N}": "a5668c1fd24b699ee4eca15ff48124b26e3114dd5ca96b1e76c531289ab54a23",
    r"\p{P}": "723d718b3b5f86540378971f271117bea1e931be6705b92b014cdc41940c32bc",
    r"\p{S}": "a528a1401e812bf05b5021cb1b286063ef6777e48ae42a10a664a7abf0c7fee7",
    r"\s": "c15308e40d85febdfed0e22e587f8319ce6609a2a09b062ca7238df2a065fafd",
}


@dataclass(frozen=True)
class PreTokenizer:
    """`pattern` has categories as llama.cpp knows them.

    `ignore_merges`: a piece that is a token is taken whole. `splits_words`: every piece ends before a space
    between two letters.
    """

    pattern: str
    ignore_merges: bool = False
    splits_words: bool = True


def as_known(pattern: str) -> str:
    """The pattern with every `\\p{…}` held to the characters that llama.cpp knows."""
    return re.sub(r"\\p\{\w\}", lambda m: f"[{m[0]}&&\\p{{age:{UNICODE_AGE}}}]", pattern)


_SUFFIX = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE_SUFFIX = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_SPACES = r"\s+(?!\S)|\s+"
_SPACES_TO_NUMBER = r"\s+(?![^\s\p{N}])|\s+"  # a number was cut out before

_GPT2 = rf"(?:{_SUFFIX}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+)|{_SPACES}"
_DIGITS_GPT2 = rf"(?:{_SUFFIX}|\p{{N}}| ?\p{{L}}+| ?[^\s\p{{L}}\p{{N}}]+)|{_SPACES_TO_NUMBER}"


def _llama3(
    number: str = r"\p{N}{1,3}",
    *,
    suffix: str = _ANY_CASE_SUFFIX + "|",
    word: str = r"[^\r\n\p{L}\p{N}]?\p{L}+",
    symbols: str = r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    newlines: str = r"\s*[\r\n]+",
    spaces: str = _SPACES,
) -> str:
    return f"(?:{suffix}{word}|{number}|{symbols}|{newlines})|{spaces}"


_LLAMA3 = _llama3()
_QWEN2 = _llama3(r"\p{N}")
_QWEN35 = _llama3(
    r"\p{N}", word=r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", symbols=r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
)
_JAIS2 = _llama3(
    spaces="|".join(rf"\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))
    + r"|\s"
)


def _cased(letters: str, suffix: str, number: str) -> str:
    """Words split where the case rises; only ASCII letters have a case here, as in llama.cpp."""
    upper, lower = f"[{letters}--[a-z]]", f"[{letters}--[A-Z]]"
    head = r"[^\r\n\p{L}\p{N}]?"
    word = f"{head}{upper}*{lower}+{suffix}|{head}{upper}+{lower}*{suffix}"
    return _llama3(number, suffix="", word=word, symbols=r" ?[^\s\p{L}\p{N}]+[\r\n/]*")


_GPT4O = _cased(r"[\p{L}]", f"(?:{_ANY_CASE_SUFFIX})?", r"\p{N}{1,3}")
_GRANITE = _cased(r"[\p{L}\p{M}]", f"(?:{_ANY_CASE_SUFFIX})?", r"\p{N}{1,3}")
_TEKKEN = _cased(r"[\p{L}]", "", r"\p{N}")

_BAILING = _llama3(r"\p{N}", suffix="'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|", newlines=r"\s*[\r\n]")
_SEED_CODER = _llama3(r"\p{N}", symbols=r" ?[^\s\p{L}\p{N}\r\n]+")
_UFAKZEKA = _llama3(r"\p{N}", suffix="")
_EXAONE_MOE = _llama3(
    r"\p{N}",
    word=r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
    symbols=r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
    newlines=r"\s*[\r\n]",
)
_MINICPM5 = _llama3(spaces=_SPACES_TO_NUMBER)
# Runs of newlines are cut out first; the rest sees the end of its line as the end of the text.
_LAGUNA = (
    rf"(?:{_ANY_CASE_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+\r*|\n+"
    r"|[\s--\n]*\r+)|[\s--\n]+(?!\S)|[\s--\n]+"
)

_STOPS = r"\s(|.,!?…。，、।۔،)"
_BLOOM = rf" ?[^{_STOPS}]+|(?:(?! ?[^{_STOPS}])[\s\S])+"
_VIKING = rf"(?:\p{{N}}| ?[^{_STOPS}\p{{N}}]+)| (?=\p{{N}})|(?:(?! ?[^{_STOPS}])[\s\S])+"


def _after_punctuation(punctuation: str, numbers: str) -> str:
    """Runs of punctuation, then GPT-2's pieces between them, then numbers cut in threes."""
    return (
        rf"(?:{punctuation}+| ?\p{{L}}+| ?[^\s\p{{L}}\p{{N}}{punctuation}]+|[0-9]{{3}})"
        rf"|{numbers}|\s+(?![^\s{punctuation}])|\s+"
    )


_FALCON = _after_punctuation(r"[\p{P}$+<=>^~|`]", r" (?=[0-9]{3})| ?\p{N}+?(?=[0-9]{3}|[^\p{N}]|\z)")
_DEFAULT = _after_punctuation(r"[\p{P}$+<=>^~|]", r" (?=\p{N})|\p{N}+?(?=[0-9]{3}|[^\p{N}]|\z)")

_CJK = "[一-龥぀-ヿ]"


def _deepseek3(number: str, newlines_after_symbols: str, newlines: str) -> str:
    """Numbers, then runs of Han and Kana, are cut out; the rest of the stages works within these runs too."""

    def words(inside: str, outside: str) -> str:
        letters = rf"[[\p{{L}}\p{{M}}]{inside}]"
        return rf"[[^\r\n\p{{L}}\p{{P}}\p{{S}}{outside}]{inside}]?{letters}+"

    def unmatched(inside: str, outside: str) -> str:
        letters = rf"[[\p{{L}}\p{{M}}]{inside}]"
        return rf"(?:[[^\s\p{{L}}\p{{M}}\p{{P}}\p{{S}}{outside}]{inside}](?!{letters}))+"

    within, without = f"&&{_CJK}", f"--{_CJK}"
    return (
        rf"(?:{number}|{words(within, '')}|[[\p{{P}}\p{{S}}]{within}]+"
        rf"|[!-/:-@\[-`{{-~][A-Za-z]+|{words(without, _N)}"
        rf"| ?[[\p{{P}}\p{{S}}]{without}]+{newlines_after_symbols}|{newlines})"
        rf"|\s+(?![^\s\p{{N}}{_CJK}])|\s+|{unmatched(within, '')}|{unmatched(without, _N)}"
    )


_N = r"\p{N}"
_DEEPSEEK3 = _deepseek3(r"\p{N}{1,3}", r"[\r\n]*", r"\s*[\r\n]+")
_SPARK = _deepseek3(r"\p{N}", "", r"[\r\n]")

_GROUPS: tuple[tuple[str, bool, str], ...] = (
    (_GPT2, False, "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert"),
    (_GPT2, False, "jina-v1-en jina-v2-code roberta-bpe mpt olmo jais exaone4 trillion granite-docling"),
    (_DIGITS_GPT2, False, "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2"),
    (_LLAMA3, True, "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"),
    (_LLAMA3, True, "glm4 glm5"),
    (_LLAMA3, False, "dbrx smaug-bpe chatglm-bpe"),
    (_QWEN2, False, "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2"),
    (_QWEN35, False, "qwen35"),
    (_JAIS2, False, "jais-2"),
    (_GPT4O, False, "gpt-4o llama4 kanana2 talkie minimax-m2"),
    (_GRANITE, True, "granite-embed-multi-97m"),
    (_TEKKEN, True, "tekken"),
    (_BAILING, False, "bailingmoe bailingmoe2 llada-moe"),
    (_SEED_CODER, False, "seed-coder"),
    (_UFAKZEKA, False, "ufakzeka"),
    (_EXAONE_MOE, False, "exaone-moe"),
    (_MINICPM5, True, "minicpm5"),
    (_LAGUNA, False, "laguna"),
    (_BLOOM, False, "poro-chat bloom gpt3-finnish"),
    (_VIKING, False, "viking"),
    (_FALCON, False, "falcon"),
    (_DEFAULT, False, "default"),
    (_DEEPSEEK3, False, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (_SPARK, False, "spark2_5"),
)

# By `tokenizer.ggml.pre`; a file without it has "default".
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    name: PreTokenizer(as_known(pattern), ignore_merges, splits_words=pattern is not _EXAONE_MOE)
    for pattern, ignore_merges, names in _GROUPS
    for name in names.split()
}

# Split by hand-written code in llama.cpp (`unicode_regex_split_custom`), or in single characters.
_BY_HAND = frozenset({_GPT2, _DIGITS_GPT2, _LLAMA3, _QWEN2, _QWEN35, _LAGUNA})
_SPLIT_BY_HAND = frozenset(
    {name for pattern, _, names in _GROUPS if pattern in _BY_HAND for name in names.split()}
    | {"kimi-k2", "gemma4", "sarvam-moe"}
)


def recurses(name: str) -> bool:
    """Whether llama.cpp's pre-tokenizer of this name (`tokenizer.ggml.pre`) is `std::regex`, which calls
    itself for every character of a match: a long one overflows the stack."""
    return name not in _SPLIT_BY_HAND


def splits_words(name: str) -> bool:
    """`PreTokenizer.splits_words`, for those too that have no pattern here."""
    known = PRE_TOKENIZERS.get(name)
    return known is None or known.splits_words


# Where every pattern of `pretokenizers` starts a new piece, and no earlier text changes what follows: between
# a line's single end and a letter or digit ...
LINE_CUT = re.compile(
    rb"(?:[!-~]|[\xd0\xd1][\x80-\xbf]|[\xe4-\xe9][\x80-\xbf]{2}|\xe3\x80[\x81\x82]|\xef[\xbc\xbd][\x80-\xbf])\n"
    rb"(?=[A-Za-z0-9]|[\xd0\xd1\xe4-\xed]|\xe3[\x81-\x83])"
)
# ... and between a letter and a space before a letter.
CUT = re.compile(LINE_CUT.pattern + rb"|[A-Za-z](?= [A-Za-z])")


def longest_stretch(text: bytes, *, split_words: bool) -> int:
    """Bytes between two places at which a pre-tokenizer cuts for certain: no piece is longer."""
    longest = start = 0
    for match in (CUT if split_words else LINE_CUT).finditer(text):
        longest, start = max(longest, match.end() - start), match.end()
    return max(longest, len(text) - start)
