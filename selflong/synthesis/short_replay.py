"""Short-replay samples: prompts of the generator's own short skills, answered by the generator as it is.

Mixed into every stage so that short-context skill stays (self-distillation), and the only data of the short-only
control. The skills are those that the workflow calls: writing an instruction about a chunk, naming its topic, reading a
chunk for an instruction written from it, and, most of all, reading one for an instruction written from another, where
"nothing" is the answer.
"""

import functools
from collections.abc import Callable

import numpy as np

from selflong.recipe_synthesis import DatasetConfig
from selflong.records import Example
from selflong.synthesis.prompts import UnusableError
from selflong.synthesis.workflow import DroppedError, Workflow

SKILLS = ("instruction", "topic", "reading", *6 * ("reading another",))


async def short_replay_sample(
    workflow: Workflow, config: DatasetConfig, index: int, rng: np.random.Generator
) -> Example:
    """Make one sample of a skill drawn at random. Raises DroppedError."""
    skill = SKILLS[int(rng.integers(len(SKILLS)))]
    position = int(rng.integers(len(workflow.documents)))
    pieces = workflow.chunks_of(position)
    text = pieces[int(rng.integers(len(pieces)))].text
    generator = workflow.synthesis.generator
    accept: Callable[[str], object] = str
    step, limit = skill, generator.max_instruction_tokens
    if skill == "instruction":
        prompt = workflow.prompts.instruction(text)
    elif skill == "topic":
        prompt, accept = workflow.prompts.topic(text), workflow.prompts.parse_topic
    else:
        written = await workflow.write_instruction(rng)
        if not written:
            raise DroppedError("no usable instruction")
        instruction, source, its_chunk = written
        if skill == "reading":
            position, text = source, its_chunk
        prompt = workflow.prompts.reading(instruction, text)
        step, limit = "reading", generator.max_reading_tokens
        accept = functools.partial(workflow.prompts.parse_reading, instruction=instruction)
    reply = await workflow.engine.ask(step, prompt, limit)
    try:
        accept(reply.text)
    except UnusableError as reason:
        raise DroppedError(str(reason)) from reason
    if reply.finish_reason == "length":
        raise DroppedError("response cut at its token limit")
    instruction = prompt.rsplit("\n", 1)[-1]
    return workflow.single_turn(config, index, prompt, reply.text.strip(), instruction, [position])
