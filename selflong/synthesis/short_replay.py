"""Short-replay samples: prompts of the generator's own short skills, answered by the generator as it is.

Mixed into every stage so that short-context skill stays (self-distillation), and the only data of the short-only
control. In equal parts: writing an instruction about a chunk, reading a chunk for an instruction written from it, and
twice reading one for an instruction written from another, which is what most of the workflow's own calls are. "Nothing"
is an answer like any other.
"""

import numpy as np

from selflong.recipe import DatasetConfig
from selflong.records import Example
from selflong.synthesis.prompts import VERSION, UnusableError
from selflong.synthesis.workflow import DroppedError, Workflow, turn

SKILLS = ("instruction", "reading", "reading another", "reading another")


async def short_replay_sample(
    workflow: Workflow, config: DatasetConfig, index: int, rng: np.random.Generator
) -> Example:
    """Make one sample of a skill drawn at random. Raises DroppedError."""
    skill = SKILLS[int(rng.integers(len(SKILLS)))]
    position = int(rng.integers(len(workflow.documents)))
    pieces = workflow.chunks_of(position)
    text = pieces[int(rng.integers(len(pieces)))].text
    generator = workflow.synthesis.generator
    if skill == "instruction":
        prompt = workflow.prompts.instruction(text)
        reply = await workflow.engine.ask("instruction", prompt, generator.max_instruction_tokens)
    else:
        written = await workflow.write_instruction(rng)
        if not written:
            raise DroppedError("no usable instruction")
        instruction, source, its_chunk = written
        if skill == "reading":
            position, text = source, its_chunk
        prompt = workflow.prompts.reading(instruction, text)
        reply = await workflow.engine.ask("reading", prompt, generator.max_reading_tokens)
        try:
            workflow.prompts.parse_reading(reply.text, instruction)
        except UnusableError as reason:
            raise DroppedError(str(reason)) from reason
    if reply.finish_reason == "length":
        raise DroppedError("response cut at its token limit")
    completion = reply.text.strip()
    num_tokens = workflow.count_chat_tokens([turn("user", prompt), turn("assistant", completion)])
    if num_tokens > config.target_length:
        raise DroppedError("longer than the target length")
    return Example(
        index=index,
        kind=config.kind,
        prompt=(turn("user", prompt),),
        completion=completion,
        instructions=(prompt.rsplit("\n", 1)[-1],),
        document_ids=(workflow.documents[position].id,),
        relevant_depths_percent=(),
        num_chunks=1,
        num_relevant_chunks=0,
        num_tokens=num_tokens,
        generator=generator.model,
        prompt_version=VERSION,
        seed=workflow.synthesis.seed,
    )
