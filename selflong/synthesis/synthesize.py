"""Box 3 of the arrow: corpus → `dataset/`, a folder that is a Hub dataset repository.

Samples are made in groups of consecutive indices; a config is full when `num_samples` have passed the gates, taken in
the order of their indices. The journal lies in `.resume/` of the work folder, so a killed run pays for nothing twice.
"""

import asyncio
import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selflong.errors import UserError
from selflong.llm.engine import ChatModel, Engine, Message
from selflong.llm.journal import GROUP_SECONDS, Journal
from selflong.recipe_synthesis import DatasetConfig, Generator, Synthesis
from selflong.records import Example
from selflong.sources import model_path
from selflong.synthesis.corpus import read_documents
from selflong.synthesis.preview import write_preview
from selflong.synthesis.prompts import VERSION, load_prompts
from selflong.synthesis.retrieval import Bm25Retriever
from selflong.synthesis.shards import write_config
from selflong.synthesis.workflow import DroppedError, Workflow
from selflong.tokens import chat_counter, chat_ids, text_counter

# A config gives up when this many samples were tried for each one wanted: the gates then say what is wrong.
MAX_TRIES_PER_SAMPLE = 16


def synthesize(synthesis: Synthesis, out: Path, work: Path, facts: dict[str, Any]) -> None:
    """Write the dataset repository's Parquet files into `work`; counts go into `facts`."""
    documents = read_documents(out / "corpus" / "documents.parquet")
    generator = synthesis.generator
    model, count_messages, count_text = open_generator(generator, out)
    journal = Journal(work / ".resume" / "calls.sqlite", None if count_messages else GROUP_SECONDS)
    with journal:
        engine = Engine(model, journal, generator.context_length, count_messages, f"{generator.prompts}-{VERSION}")
        workflow = Workflow(
            synthesis,
            documents,
            Bm25Retriever(documents, synthesis.retrieval.max_document_percent),
            engine,
            load_prompts(generator.prompts),
            count_text,
            chat_counter(_load_tokenizer(synthesis.student, out)),
        )
        counts = asyncio.run(_make_configs(workflow, synthesis, work))
        write_preview(work, list(counts))
    facts.update(
        configs=counts,
        generator={
            "model": generator.model,
            "sha256": model.identity,
            "context_length": generator.context_length,
            "prompts": generator.prompts,
            "prompt_version": VERSION,
        },
        calls={step: engine.calls[step] for step in ("instruction", "reading", "round trip", "response", "topic")},
        ignored=dict(sorted(workflow.ignored.items())),
        longest_call_tokens=engine.longest_call_tokens,
        seed=synthesis.seed,
        agreement=None,
    )


def open_generator(
    generator: Generator, out: Path
) -> tuple[ChatModel, Callable[[Sequence[Message]], int] | None, Callable[[str], int]]:
    """Open the generator: in process, or a chat server. Returns it with its prompt counter and its text counter.

    A chat server checks its own limit, so its prompt counter is None; texts are counted with the model's tokenizer.
    """
    if generator.model.startswith("stage:"):
        from selflong.llm.in_process import InProcessModel

        local = InProcessModel(Path(model_path(generator.model, out)), generator.threads)

        def count_messages(messages: Sequence[Message]) -> int:
            return len(chat_ids(local.tokenizer, messages, add_generation_prompt=True))

        return local, count_messages, text_counter(local.tokenizer)
    from selflong.llm.endpoint import open_endpoint

    endpoint = open_endpoint(generator.model, generator.samples_in_flight, generator.context_length)
    return endpoint, None, text_counter(_load_tokenizer(generator.tokenizer or generator.model, out))


def _load_tokenizer(reference: str, out: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path(reference, out))


async def _make_configs(workflow: Workflow, synthesis: Synthesis, work: Path) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    try:
        for name, config in synthesis.configs.items():
            examples, dropped, tried = await _make_config(workflow, synthesis, name, config)
            splits = write_config(work, name, examples, len(examples), synthesis.shards)
            sizes = [example.num_tokens for example in examples]
            counts[name] = {
                "kind": config.kind,
                "target_length": config.target_length,
                "tried": tried,
                "kept": len(examples),
                "dropped": dict(sorted(dropped.items())),
                "splits": splits,
                "tokens": {"min": min(sizes), "mean": round(sum(sizes) / len(sizes), 1), "max": max(sizes)},
            }
    finally:
        await workflow.engine.model.close()
    return counts


async def _make_config(
    workflow: Workflow, synthesis: Synthesis, name: str, config: DatasetConfig
) -> tuple[list[Example], collections.Counter[str], int]:
    """The first `num_samples` samples that pass the gates, the reasons of the others, and how many were tried."""
    kept: list[Example] = []
    dropped: collections.Counter[str] = collections.Counter()
    size, tried = synthesis.generator.samples_in_flight, 0
    with tqdm(total=config.num_samples, desc=f"dataset {name}", unit=" samples") as bar:
        while len(kept) < config.num_samples:
            if tried >= MAX_TRIES_PER_SAMPLE * config.num_samples + size:
                raise UserError(
                    f"synthesis.configs.{name}",
                    f"only {len(kept)} of {tried} samples pass the gates ({dict(dropped.most_common(3))})",
                    "look at the most frequent reason; raise target_length or change the generator",
                )
            made = await asyncio.gather(*(_guarded(workflow, name, config, i) for i in range(tried, tried + size)))
            workflow.engine.journal.commit()
            for result in made:
                if len(kept) == config.num_samples:
                    break
                tried += 1
                if isinstance(result, Example):
                    kept.append(result)
                    bar.update()
                else:
                    dropped[result] += 1
            bar.set_postfix(tried=tried, calls=sum(workflow.engine.calls.values()), refresh=False)
    return kept, dropped, tried


async def _guarded(workflow: Workflow, name: str, config: DatasetConfig, index: int) -> Example | str:
    """A sample, or the reason why it was dropped."""
    try:
        return await workflow.sample(name, config, index)
    except DroppedError as reason:
        return str(reason)
