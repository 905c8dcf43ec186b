"""Which documents fill a sample, and what gives way to the responses: lengths are exact, and at least 98 % is filled.

Documents are taken for the whole target length and all of it is read; what instructions and responses need is then
taken away from text in which the reading found nothing. So no sample loses what its response says.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from selflong.llm.engine import Message
from selflong.synthesis.cut import cut_to_tokens
from selflong.synthesis.draft import Draft, DroppedError, turn
from selflong.token_counts import Joined

MIN_FILL = 0.98
# Less room than this is left empty rather than filled with the first letters of a document.
SLIVER_TOKENS = 4


@dataclass(frozen=True)
class Piece:
    """A document of a sample, or its beginning; `rank` is its place in what retrieval found."""

    position: int
    rank: int
    text: str


async def choose_pieces(draft: Draft, instructions: Sequence[str]) -> list[Piece]:
    """Step 2: retrieve documents until the target length is full, and shuffle them. Raises DroppedError."""
    bench, candidates = draft.bench, draft.bench.synthesis.retrieval.candidates
    ranked = [await bench.retrieve(text, candidates) for text in instructions]
    # Best of each instruction first, then the second ones: every instruction gets its documents.
    by_rank = [r[rank] for rank in range(max(map(len, ranked))) for r in ranked if rank < len(r)]
    room = draft.target_length - bench.count_chat_tokens(turns(draft, [], [min(instructions, key=len)], []))
    pieces: list[Piece] = []
    for position in dict.fromkeys(by_rank):
        if not bench.is_usable(position):
            draft.tally.ignored["document shares text with an evaluation row"] += 1
            continue
        text, needed = bench.documents[position].text, bench.document_tokens(position)
        if needed > room:
            text = cut_to_tokens(text, room, bench.count_student_tokens)
        if text:
            pieces.append(Piece(position, len(pieces), text))
        room -= needed
        if room < SLIVER_TOKENS:
            return [pieces[i] for i in draft.rng.permutation(len(pieces))]
    raise DroppedError("retrieval finds too few documents")


def make_room(
    draft: Draft,
    pieces: Sequence[Piece],
    relevant: Mapping[int, int],
    turns_with: Callable[[Sequence[Piece]], list[Message]],
) -> list[Piece]:
    """Cut the ends of pieces that say nothing relevant, worst rank first, until the sample fits its target length.

    `relevant` tells of ranks how many characters must stay; `turns_with(pieces)` renders the whole sample. Raises
    DroppedError if that is not enough.
    """
    bench, kept = draft.bench, {piece.rank: piece for piece in pieces}
    givers = sorted((piece.rank for piece in pieces if relevant.get(piece.rank, 0) < len(piece.text)), reverse=True)
    order = [piece.rank for piece in pieces]

    def current() -> list[Piece]:
        return [kept[rank] for rank in order if rank in kept]

    while (excess := bench.count_chat_tokens(turns_with(current())) - draft.target_length) > 0:
        # Sizes of pieces add up to within a token each, so the whole is counted again after each round.
        while excess > 0:
            if not givers:
                raise DroppedError("everything is relevant, nothing gives way to the response")
            piece = kept.pop(givers[0])
            size = bench.count_student_tokens(piece.text)
            left = size - excess
            text = cut_to_tokens(piece.text, left, bench.count_student_tokens) if left >= SLIVER_TOKENS else ""
            must_stay = piece.text[: relevant.get(piece.rank, 0)]
            if len(text) <= len(must_stay):
                text = must_stay
                givers.pop(0)
            if text:
                kept[piece.rank] = replace(piece, text=text)
            excess -= size - bench.count_student_tokens(text)
    return current()


def check_fill(draft: Draft, num_tokens: int) -> None:
    """Raise DroppedError if a sample fills less than 98 % of its target length."""
    if num_tokens < MIN_FILL * draft.target_length:
        raise DroppedError("fills less than 98 % of its target length")


def turns(
    draft: Draft, pieces: Sequence[Piece], instructions: Sequence[str], responses: Sequence[str], first: bool = False
) -> list[Message]:
    """Documents with the first instruction (before them if `first`), then each response and the next instruction."""
    texts = [piece.text for piece in pieces]
    parts = [instructions[0], *texts] if first else [*texts, instructions[0]]
    result = [turn("user", Joined(draft.bench.prompts.separator, parts))]
    for response, instruction in zip(responses, instructions[1:], strict=False):
        result += [turn("assistant", response), turn("user", instruction)]
    return result


def spans(draft: Draft, pieces: Sequence[Piece], instruction: str, first: bool) -> list[tuple[int, int]]:
    """Where each piece stands in the first turn, in characters."""
    gap = len(draft.bench.prompts.separator)
    start = len(instruction) + gap if first else 0
    found = []
    for piece in pieces:
        found.append((start, start + len(piece.text)))
        start += len(piece.text) + gap
    return found


def depths_percent(pieces: Sequence[Piece], relevant: Collection[int], tokens_of: Callable[[str], int]) -> list[float]:
    """Where the relevant pieces start, in percent of all tokens of the documents."""
    sizes = np.array([tokens_of(piece.text) for piece in pieces])
    starts = np.cumsum(sizes) - sizes
    found = [start for start, piece in zip(starts, pieces, strict=True) if piece.rank in relevant]
    return [round(100 * float(start) / float(sizes.sum()), 1) for start in found]
