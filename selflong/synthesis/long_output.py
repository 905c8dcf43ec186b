"""Long-output samples (paper, section 3.2): text of the corpus as the response to a back-translated instruction.

The generator names what the text is about from its first chunk; the instruction states the required length in words.
"""

import numpy as np

from selflong.recipe_synthesis import DatasetConfig
from selflong.records import Example
from selflong.synthesis.chunks import chunk
from selflong.synthesis.prompts import UnusableError
from selflong.synthesis.workflow import DroppedError, Workflow

SHORTEST_TOKENS = 16
INSTRUCTION_TOKENS = 32  # room for the instruction beside the text; a longer one drops the sample


async def long_output_sample(
    workflow: Workflow, config: DatasetConfig, index: int, rng: np.random.Generator
) -> Example:
    """Make one sample: a text length is drawn log-uniformly up to the target length. Raises DroppedError."""
    start = int(rng.integers(len(workflow.documents)))
    longest = config.target_length - INSTRUCTION_TOKENS
    wanted_tokens = int(np.exp(rng.uniform(np.log(SHORTEST_TOKENS), np.log(longest))))
    used = _neighbours(workflow, start, wanted_tokens, longest)
    text = "\n".join(workflow.documents[i].text for i in used)
    limit = workflow.synthesis.reading.chunk_tokens
    opening = next(chunk(text, limit, workflow.count_generator_tokens))
    topic_limit = workflow.synthesis.generator.max_instruction_tokens
    reply = await workflow.engine.ask("topic", workflow.prompts.topic(opening), topic_limit)
    try:
        topic = workflow.prompts.parse_topic(reply.text)
    except UnusableError as reason:
        raise DroppedError(str(reason)) from reason
    instruction = workflow.prompts.writing(len(text.split()), topic)
    return workflow.single_turn(config, index, instruction, text, instruction, used)


def _neighbours(workflow: Workflow, start: int, wanted_tokens: int, limit: int) -> list[int]:
    """Documents of one source from `start` on, until there are `wanted_tokens`, and never more than `limit`."""
    used, size = [start], workflow.document_tokens(start)
    source = workflow.documents[start].source
    for position in range(start + 1, len(workflow.documents)):
        needed = workflow.document_tokens(position)
        if workflow.documents[position].source != source or size >= wanted_tokens or size + needed > limit:
            break
        used.append(position)
        size += needed
    return used
