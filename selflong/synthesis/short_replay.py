"""Short-replay samples: short prompts answered by the generator as it is, so that short-context skill stays.

Our remedy for the paper's loss of instruction following. `open prompt` has the generator write a message as users send
it and answer it; the other skills are those that the workflow calls: writing an instruction about a chunk, naming its
topic, reading a chunk for an instruction written from it, and reading one for an instruction written from another,
where "nothing" is the answer.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from selflong.records import Example
from selflong.synthesis.draft import Draft, DroppedError, draw
from selflong.synthesis.prompts import UnusableError


@dataclass(frozen=True)
class Replayed:
    """A prompt to be answered as it is, and how its reply is checked."""

    step: str
    prompt: str
    position: int
    max_tokens: int
    accept: Callable[[str], object]


async def short_replay_sample(draft: Draft) -> Example:
    """Make one sample of a skill drawn at random. Raises DroppedError."""
    skill = draw(draft.rng, draft.config.skills)
    asked = await _ask_for(draft, skill)
    reply = await draft.ask(asked.step, asked.prompt, asked.max_tokens)
    try:
        asked.accept(reply.text)
    except UnusableError as reason:
        raise DroppedError(str(reason)) from reason
    if reply.finish_reason == "length":
        raise DroppedError("response cut at its token limit")
    instruction = asked.prompt.rsplit("\n", 1)[-1]
    ids = [draft.bench.documents[asked.position].id]
    return draft.single_turn(asked.prompt, reply.text.strip(), instruction, skill, ids)


async def _ask_for(draft: Draft, skill: str) -> Replayed:
    prompts, generator = draft.bench.prompts, draft.bench.synthesis.generator
    position, text = draft.random_chunk(draft.rng)
    if skill == "instruction":
        return Replayed(skill, prompts.instruction(text, "question"), position, generator.max_instruction_tokens, str)
    if skill == "topic":
        return Replayed(skill, prompts.topic(text), position, generator.max_instruction_tokens, prompts.parse_topic)
    if skill == "open prompt":
        reply = await draft.ask(skill, prompts.open_prompt(text), generator.max_instruction_tokens)
        message = _usable(prompts.parse_open_prompt, reply.text)
        return Replayed("replay", message, position, generator.max_response_tokens, _not_empty)
    written = await draft.write_instruction(draft.rng)
    if not written:
        raise DroppedError("no usable instruction")
    if skill == "reading":
        position, text = written.position, written.chunk
    accept = functools.partial(prompts.parse_reading, instruction=written.instruction)
    prompt = prompts.reading(written.instruction, text)
    return Replayed("reading", prompt, position, generator.max_reading_tokens, accept)


def _usable(parse: Callable[[str], str], reply: str) -> str:
    try:
        return parse(reply)
    except UnusableError as reason:
        raise DroppedError(str(reason)) from reason


def _not_empty(reply: str) -> str:
    if not reply.strip():
        raise UnusableError("empty reply")
    return reply
