"""Gates on what the generator wrote: refusals, cut or degenerate text, leaked prompt wording, copies, inventions.

Stands between a reply and its use in `workflow.py`. Every check returns None, or the reason under which the drop is
counted: a short text that depends on the step alone, such as "response refused" or "reading repeats itself".
"""

import collections
import re
from collections.abc import Iterable

import numpy as np

from selflong.recipe_synthesis import Gates
from selflong.synthesis.overlap import LIST_MARKER, RUN_WORDS, copied_percent, grounded_percent
from selflong.synthesis.words import ngram_hashes, split_words

# The limit on repeated lines of Rae et al. 2021 (Gopher), table A1, here for runs of words. None of the 227 chunks of
# 2,000 characters of Python's manual, tables included, reaches it (benchmarks/quality_gates.py).
MAX_REPEATED_PERCENT = 30
# A character that makes up half of a text which is no longer a word; rules and tables are drawn with the others.
MIN_CHARS_OF_ONE = 20
DRAWN_WITH = set("-=_*|~+#")
# An answer that says early what is missing and then answers is longer than one that only says so.
MAX_NON_ANSWER_WORDS = 60

BROKEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ud800-\udfff]")
# A reply may begin with a mark of emphasis or a label; one that begins with a quotation mark quotes.
OPENING = re.compile(r"^[\s*_#>]*(?:(?:answer|response|question|task)\s*:[\s*_]*)?", re.IGNORECASE)
_DO = (
    "(?:help|assist|answer|provide|fulfil|comply|create|write|generate|complete|determine|find any|access|discuss|"
    "engage|respond|offer|identify|summari[sz]e|process|do (?:this|that))"
)
REFUSAL = re.compile(
    rf"(?:unfortunately, )?i(?: can ?not| can't| won't| will not|(?: am|'m) (?:not able|unable) to) {_DO}"
    r"|i(?:'m| am) (?:very |really |so )?sorry,? (?:but|i can|i'm)|sorry, (?:but )?i(?:'m| am| can)"
    r"|(?:i apologi[sz]e|my apologies)\b[^.]{0,40}\bbut\b"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.]{0,30}, i\b"
    r"|i(?:'m| am) (?:just |only )?an? (?:ai|(?:large )?language model)\b"
    # The same in German, French, Spanish and Chinese, for corpora in those languages.
    r"|es tut mir leid, (?:aber )?ich|je suis désolée?, (?:mais )?je|lo siento, (?:pero )?no"
    r"|很?抱歉.{0,4}(?:我|无法)|对不起.{0,4}我|我(?:无法|不能)(?:回答|提供|帮助|协助)",
    re.IGNORECASE,
)
_SOURCES = r"(?:documents?|passages?|texts?|notes|excerpts?|context|sources?|articles?|part|section|material)"
_GIVEN = r"(?:provided|given|available|above)"
_TELL = "(?:mention|provide|contain|include|specify|say|discuss|give|offer|state|cover|address|describe|have)"
NON_ANSWER = re.compile(
    rf"(?:unfortunately, |(?:based on|according to) [^,.]{{0,40}}, )?"
    rf"(?:(?:the|these|this)(?: {_GIVEN})? {_SOURCES}(?: {_GIVEN})? "
    rf"(?:(?:does not|do not|did not|doesn't|don't) {_TELL}|{_TELL}s? no|(?:is|are) (?:not sufficient|insufficient))"
    rf"|none of (?:the|these)(?: {_GIVEN})? {_SOURCES} {_TELL}"
    r"|there (?:is|are) (?:no|not enough|insufficient) (?:information|mention|details?)\b"
    rf"|no (?:relevant )?(?:information|details?|mention) (?:about|on|of|(?:is|are|was|were) {_GIVEN})\b)",
    re.IGNORECASE,
)

# What only our prompts say (`prompts.py`): tags and the header on lines of their own, the word for "nothing relevant".
LEAKED = re.compile(
    r"^\s*</?(?:passage|document|notes)>\s*$|^\W*NOTHING\W*$|^\W*Task:\s*$"
    r"|(?i:\b(?:according to|based on) (?:the|these|my) (?:provided |given |above )?(?:notes|passages?)\b"
    r"|\bthe (?:provided |given |above )?(?:notes|passages?) (?:do|does|say|state|mention|show|indicate|provide)s?\b)",
    re.MULTILINE,
)
# An instruction must stand alone: a reader has a pile of documents and never saw the passage that it came from.
_PASSAGE = r"(?:passages?|excerpts?|texts?|documents?|notes|articles?)"
POINTS_AT_PASSAGE = re.compile(
    rf"\b(?:this|these|the {_GIVEN}) {_PASSAGE}\b"
    rf"|\bthe (?:passages?|excerpts?|notes|{_PASSAGE} (?:{_GIVEN}|below))\b"
    rf"|\b(?:according to|based on|(?:mentioned|described|discussed|listed|presented) in) the {_PASSAGE}\b",
    re.IGNORECASE,
)
PREAMBLE = re.compile(
    r"(?:sure|certainly|of course|okay|ok|absolutely)[,!.:]|here(?:'s| is| are)\b[^\n]{0,120}:|(?:task|question)\s*:",
    re.IGNORECASE,
)


def check_reply(step: str, text: str, finish_reason: str) -> str | None:
    """Check what holds for every reply; `step` ("instruction", "reading", "response") begins the reason."""
    if finish_reason != "stop":
        return f"{step} cut at its token limit"
    if not any(map(str.isalnum, text)):
        return f"{step} is empty"
    if BROKEN.search(text):
        return f"{step} holds control characters"
    if _repeats_itself(text):
        return f"{step} repeats itself"
    if refuses(text):
        return f"{step} refused"
    return None


def check_instruction(text: str, finish_reason: str) -> str | None:
    """Check an instruction: it must also stand alone, without our prompt's wording or a chat's polite beginning."""
    if reason := check_reply("instruction", text, finish_reason):
        return reason
    if PREAMBLE.match(text.lstrip(" \n*_#>").replace("\u2019", "'")):
        return "instruction has a preamble"
    if LEAKED.search(text) or POINTS_AT_PASSAGE.search(text):
        return "instruction points at its prompt"
    return None


def check_reading(text: str, finish_reason: str, chunk: str, instruction: str, gates: Gates) -> str | None:
    """Check what was noted down from one chunk for one instruction."""
    if reason := check_reply("reading", text, finish_reason):
        return reason
    if not _is_grounded(text, [chunk, instruction], gates):
        return "reading not grounded in its chunk"
    return None


def check_response(
    text: str, finish_reason: str, documents: Iterable[str], findings: Iterable[str], instruction: str, gates: Gates
) -> str | None:
    """Check a response written from `findings`; `documents` are those of the sample, which it must not just copy.

    Its facts are looked for in the findings, whose own stood in their chunks, and not in the documents, where most
    names and numbers stand somewhere: at 70 % findings catch 93 % of foreign texts, 100k tokens of documents 11 %
    (benchmarks/quality_gates.py).
    """
    if reason := check_reply("response", text, finish_reason):
        return reason
    if LEAKED.search(text):
        return "response points at its prompt"
    if not _is_grounded(text, [*findings, instruction], gates):
        return "response not grounded in its findings"
    if gates.max_copied_percent is not None and copied_percent(text, documents) > gates.max_copied_percent:
        return "response copied from a document"
    return None


def refuses(text: str) -> bool:
    """True if a text begins as a refusal, or is short and begins by saying that the documents do not tell."""
    beginning = OPENING.sub("", text[:400].replace("\u2019", "'"))
    if REFUSAL.match(beginning):
        return True
    return bool(NON_ANSWER.match(beginning)) and len(split_words(text)) <= MAX_NON_ANSWER_WORDS


def _is_grounded(text: str, sources: Iterable[str], gates: Gates) -> bool:
    return gates.min_grounded_percent is None or grounded_percent(text, sources) >= gates.min_grounded_percent


def _repeats_itself(text: str) -> bool:
    """True if half of a text is one character, or too many of its runs of eight words were there before.

    Numbers before a list's entries do not count: an endless list is a repetition too.
    """
    chars = collections.Counter(text)
    for char in [c for c in chars if c.isspace() or c in DRAWN_WITH]:
        del chars[char]
    if chars.total() >= MIN_CHARS_OF_ONE and 2 * chars.most_common(1)[0][1] > chars.total():
        return True
    runs = ngram_hashes(split_words(LIST_MARKER.sub("", text)), RUN_WORDS)
    return 100 * (len(runs) - len(np.unique(runs))) > MAX_REPEATED_PERCENT * len(runs)
