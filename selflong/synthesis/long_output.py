"""Long-output samples (paper, section 3.2): text of the corpus as the response to a back-translated instruction.

The generator names what the text is about from its first chunk; the instruction states the required length in words.
"""

from selflong.records import Example
from selflong.synthesis.draft import Draft, DroppedError
from selflong.synthesis.prompts import UnusableError
from selflong.synthesis.quality import check_reply

# Documents looked at (no call is made for it) until one can be the response; long ones are rare in most corpora.
MAX_LOOKS = 256


async def long_output_sample(draft: Draft) -> Example:
    """Make a sample whose response has about the drawn target length. Raises DroppedError."""
    bench = draft.bench
    limit = bench.synthesis.generator.max_instruction_tokens
    # What the instruction adds: its own words, the longest topic, the template.
    overhead = bench.count_chat_tokens([{"role": "user", "content": bench.prompts.writing(100_000, "")}]) + limit
    positions = _text_of_length(draft, draft.target_length - overhead)
    text = bench.prompts.separator.join(bench.documents[i].text for i in positions)
    if reason := check_reply("text", text, "stop"):
        raise DroppedError(reason)
    reply = await draft.ask("topic", bench.prompts.topic(bench.chunks(text)[0]), limit)
    try:
        topic = bench.prompts.parse_topic(reply.text)
    except UnusableError as error:
        raise DroppedError(str(error)) from error
    if reason := check_reply("topic", topic, reply.finish_reason):
        raise DroppedError(reason)
    instruction = bench.prompts.writing(len(text.split()), topic)
    ids = [bench.documents[i].id for i in positions]
    return draft.single_turn(instruction, text, instruction, "writing", ids)


def _text_of_length(draft: Draft, longest_tokens: int) -> list[int]:
    """Positions of a random document and those that follow it in its text, as many as fit.

    They have at least half of `longest_tokens`, or the config's shortest length. Raises DroppedError.
    """
    bench = draft.bench
    shortest = min(longest_tokens // 2, max(1, draft.config.shortest_target_length))
    for _ in range(MAX_LOOKS):
        start = int(draft.rng.integers(len(bench.documents)))
        positions, size = _neighbours(draft, start, longest_tokens)
        if size >= shortest:
            return positions
    raise DroppedError("no text of the target length")


def _neighbours(draft: Draft, start: int, longest_tokens: int) -> tuple[list[int], int]:
    """Documents from `start` on that were cut from one text, while they fit, and their tokens."""
    bench, positions, size = draft.bench, list[int](), 0
    text = _text_id(bench.documents[start].id)
    for position in range(start, len(bench.documents)):
        needed = bench.document_tokens(position)
        if size + needed > longest_tokens or _text_id(bench.documents[position].id) != text:
            break
        positions.append(position)
        size += needed
    return positions, size


def _text_id(document_id: str) -> str:
    """Which text a document was cut from: its id without the number of the piece. Sources may be shared by texts."""
    return document_id.rpartition("#")[0]
