"""Step 3, query-focused reading (paper, section 3.1): every chunk is read for the instruction, "nothing" is an outcome.

Findings that do not fit one call are read again themselves, chunk by chunk, until they do. It ends: every further round
at least halves what it reads, because a summary that does not shrink is cut.
"""

import asyncio
import collections
import math
from collections.abc import Sequence
from dataclasses import dataclass

from selflong.records import ReadingRound
from selflong.synthesis.cut import cut_to_tokens
from selflong.synthesis.draft import Draft, DroppedError, turn
from selflong.synthesis.prompts import UnusableError
from selflong.synthesis.quality import check_reading
from selflong.synthesis.words import split_words

SENTENCE_ENDS = (".", "!", "?", "\n", "。")


@dataclass(frozen=True)
class Reading:
    """What was read for one instruction."""

    findings: list[str]
    """Distinct, in reading order, few enough for one call."""
    relevant: list[bool]
    """For each chunk of round 0, whether it said something."""
    rounds: list[ReadingRound]


async def read(draft: Draft, number: int, instruction: str, chunks: Sequence[str]) -> Reading:
    """Read `chunks` for the sample's instruction `number`, side by side. Raises DroppedError if none says anything."""
    chosen = promising(instruction, chunks, draft.bench.synthesis.reading.promising_percent)
    said = await asyncio.gather(*(_read_chunk(draft, instruction, chunks[i]) for i in chosen))
    found = dict(zip(chosen, said, strict=True))
    findings = list(dict.fromkeys(finding for finding in said if finding))
    if not findings:
        raise DroppedError("nothing relevant in any chunk")
    rounds = [_round(draft, number, 0, len(chosen), sum(map(bool, said)), findings)]
    while not _fits(draft, instruction, findings):
        pieces = draft.bench.chunks("\n\n".join(findings))
        again = await asyncio.gather(*(_read_shorter(draft, instruction, piece) for piece in pieces))
        findings = list(dict.fromkeys(finding for finding in again if finding))
        if not findings:
            raise DroppedError("nothing relevant left in the findings")
        rounds.append(_round(draft, number, len(rounds), len(pieces), sum(map(bool, again)), findings))
    return Reading(findings, [bool(found.get(i)) for i in range(len(chunks))], rounds)


def promising(instruction: str, chunks: Sequence[str], percent: int | None) -> list[int]:
    """Positions of the chunks to read, in order: all, or the share that holds most of the instruction's rare words."""
    if percent is None:
        return list(range(len(chunks)))
    words = [set(split_words(text)) for text in chunks]
    in_chunks = collections.Counter(word for found in words for word in found)
    rarity = {word: math.log(len(chunks) / in_chunks[word]) for word in set(split_words(instruction)) & set(in_chunks)}
    # Summed in one order: a float's last bit must not decide what is read.
    scores = [sum(value for word, value in sorted(rarity.items()) if word in found) for found in words]
    best = sorted(range(len(chunks)), key=lambda i: (-scores[i], i))
    return sorted(best[: math.ceil(len(chunks) * percent / 100)])


def _round(
    draft: Draft, number: int, level: int, num_chunks: int, num_relevant: int, findings: list[str]
) -> ReadingRound:
    num_tokens = sum(map(draft.bench.count_generator_tokens, findings))
    return ReadingRound(number, level, num_chunks, num_relevant, num_tokens)


def _fits(draft: Draft, instruction: str, findings: list[str]) -> bool:
    """Whether the response can be asked for in one call."""
    bench, generator = draft.bench, draft.bench.synthesis.generator
    prompt = turn("user", bench.prompts.response(instruction, findings))
    return bench.count_generator_chat([prompt]) + generator.max_response_tokens <= generator.context_length


async def _read_shorter(draft: Draft, instruction: str, text: str) -> str | None:
    """Read a piece of findings; what comes back has at most half its tokens."""
    finding = await _read_chunk(draft, instruction, text)
    count, most = draft.bench.count_generator_tokens, draft.bench.count_generator_tokens(text) // 2
    if finding and count(finding) > most:
        draft.tally.ignored["end of a summary that did not shrink"] += 1
        return cut_to_tokens(finding, most, count)
    return finding


async def _read_chunk(draft: Draft, instruction: str, text: str) -> str | None:
    """What one chunk says about the instruction, or None."""
    bench, tally = draft.bench, draft.tally
    limit = bench.synthesis.generator.max_reading_tokens
    async with bench.reading_slots:
        reply = await draft.ask("reading", bench.prompts.reading(instruction, text), limit)
    said = reply.text
    if reply.finish_reason == "length":
        # What was noted before the limit still holds, but for the sentence that it cut.
        said = said[: max(said.rfind(end) for end in SENTENCE_ENDS) + 1]
        tally.ignored["end of a reading cut at its token limit"] += 1
    try:
        finding = bench.prompts.parse_reading(said, instruction)
    except UnusableError as error:
        tally.ignored[str(error)] += 1
        return None
    if finding and (reason := check_reading(finding, "stop", text, instruction, bench.synthesis.gates)):
        tally.ignored[reason] += 1
        return None
    if finding and bench.synthesis.gates.round_trip and not await _returns(draft, instruction, text):
        tally.ignored["reading failed the round trip"] += 1
        return None
    return finding


async def _returns(draft: Draft, instruction: str, text: str) -> bool:
    """Round-trip consistency: asked about the chunk alone, the generator writes this very instruction."""
    prompts, limit = draft.bench.prompts, draft.bench.synthesis.generator.max_instruction_tokens
    reply = await draft.ask("round trip", prompts.instruction(text, "question"), limit)
    try:
        return prompts.parse_instruction(reply.text, text) == instruction
    except UnusableError:
        return False
