"""One training sample, as in Figure 1 of the paper: instruction → documents → reading → response.

    instruction  the generator writes it from a random chunk (or several, each from a chunk of its own)
    documents    retrieved for it, until the target length is full; shuffled
    reading      every chunk of every document is read for the instruction; "nothing relevant" is an outcome
    response     written from what was read, never from the documents and never from anything planted

Corpus, retriever and generator in, one `Example` out. A sample that fails a gate raises `DroppedError`.
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from selflong.llm.engine import Message
from selflong.records import Example, ReadingRound
from selflong.synthesis.context import Piece, check_fill, choose_pieces, depths_percent, make_room, spans, turns
from selflong.synthesis.draft import Draft, DroppedError, Written
from selflong.synthesis.prompts import UnusableError
from selflong.synthesis.quality import check_response
from selflong.synthesis.reading import read


@dataclass(frozen=True)
class Answered:
    """An instruction with its response and what the response was written from."""

    instruction: str
    task_type: str
    response: str
    relevant: dict[int, int]
    """Of each piece (by rank) in which the reading found something: where the last chunk that says it ends."""
    rounds: list[ReadingRound]


async def long_input_sample(draft: Draft) -> Example:
    """Make a sample whose response needs a part of many documents. Raises DroppedError."""
    written = await write_instructions(draft)
    pieces = await choose_pieces(draft, [w.instruction for w in written])
    first = bool(draft.rng.random() * 100 < draft.config.instruction_first_percent)
    answered = await answer_all(draft, written, pieces)
    instructions, responses = [a.instruction for a in answered], [a.response for a in answered]
    relevant: dict[int, int] = {}
    for a in answered:
        relevant |= {rank: max(end, relevant.get(rank, 0)) for rank, end in a.relevant.items()}

    def turns_with(pieces: Sequence[Piece], last: bool = True) -> list[Message]:
        prompt = turns(draft, pieces, instructions, responses, first)
        return [*prompt, {"role": "assistant", "content": responses[-1]}] if last else prompt

    pieces = make_room(draft, pieces, relevant, turns_with)
    example = draft.finish(
        turns_with(pieces, last=False),
        responses[-1],
        instructions,
        [a.task_type for a in answered],
        [draft.bench.documents[piece.position].id for piece in pieces],
        spans(draft, pieces, instructions[0], first),
        [i for i, piece in enumerate(pieces) if piece.rank in relevant],
        depths_percent(pieces, relevant, draft.bench.count_student_tokens),
        [round_ for a in answered for round_ in a.rounds],
    )
    check_fill(draft, example.num_tokens)
    return example


async def write_instructions(draft: Draft) -> list[Written]:
    """Step 1: different instructions, each from a random chunk of its own. Raises DroppedError if there is none."""
    count = int(draft.rng.choice(draft.config.num_questions))
    written = await asyncio.gather(*map(draft.write_instruction, draft.rng.spawn(count)))
    different = {w.instruction: w for w in reversed(written) if w}
    if not different:
        raise DroppedError("no usable instruction")
    return list(reversed(different.values()))


async def answer_all(draft: Draft, written: Sequence[Written], pieces: Sequence[Piece]) -> list[Answered]:
    """Steps 3 and 4 for each instruction. One that fails a gate is counted and left out of the sample.

    Raises DroppedError with the last reason if none is left.
    """
    outcomes = await asyncio.gather(
        *(answer(draft, number, w, pieces) for number, w in enumerate(written)), return_exceptions=True
    )
    answered: list[Answered] = []
    for outcome in outcomes:
        if isinstance(outcome, DroppedError):
            if len(written) > 1:
                draft.tally.ignored[f"instruction left out: {outcome}"] += 1
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            answered.append(outcome)
    if not answered:
        raise DroppedError(str(outcomes[-1]))
    return answered


async def answer(draft: Draft, number: int, written: Written, pieces: Sequence[Piece]) -> Answered:
    """Read every chunk of every piece, then respond from the findings. Raises DroppedError."""
    chunks, ends = [], []
    for piece in pieces:
        texts = chunks_of(draft, piece)
        chunks += texts
        ends += [(piece.rank, end) for end in itertools.accumulate(map(len, texts))]
    reading = await read(draft, number, written.instruction, chunks)
    if draft.bench.synthesis.gates.one_distinct_finding and len(reading.findings) > 1:
        raise DroppedError("contradicting readings")
    response = await respond(draft, written.instruction, reading.findings, pieces)
    # Ends of one piece grow, so the last one stays.
    relevant = {rank: end for (rank, end), said in zip(ends, reading.relevant, strict=True) if said}
    return Answered(written.instruction, written.task_type, response, relevant, reading.rounds)


def chunks_of(draft: Draft, piece: Piece) -> list[str]:
    """Chunks of a piece: of the whole document, where it is uncut, they are kept from other samples."""
    whole = piece.text == draft.bench.documents[piece.position].text
    return draft.bench.chunks_of(piece.position) if whole else draft.bench.chunks(piece.text)


async def respond(draft: Draft, instruction: str, findings: list[str], pieces: Sequence[Piece]) -> str:
    """Step 4: the response, from the findings alone. Raises DroppedError."""
    prompts, gates = draft.bench.prompts, draft.bench.synthesis.gates
    limit = draft.bench.synthesis.generator.max_response_tokens
    reply = await draft.ask("response", prompts.response(instruction, findings), limit)
    try:
        response = prompts.parse_response(reply.text, instruction, findings)
    except UnusableError as error:
        raise DroppedError(str(error)) from error
    texts = (piece.text for piece in pieces)
    if reason := check_response(response, reply.finish_reason, texts, findings, instruction, gates):
        raise DroppedError(reason)
    return response
