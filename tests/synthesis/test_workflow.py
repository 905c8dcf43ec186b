"""The workflow with a generator that follows rules: where labels come from, budgets, gates, determinism."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from selflong.llm.engine import Engine, Message
from selflong.llm.journal import Journal
from selflong.recipe_synthesis import DatasetConfig, Gates, Generator, Reading, Retrieval, Shards, Synthesis
from selflong.records import Example
from selflong.synthesis.agreement import measure_agreement
from selflong.synthesis.corpus import FACTS_FILE, build_corpus, read_documents
from selflong.synthesis.preview import write_preview
from selflong.synthesis.prompts import ToyPrompts
from selflong.synthesis.retrieval import Bm25Retriever
from selflong.synthesis.shards import write_config
from selflong.synthesis.workflow import DroppedError, Workflow
from tests.synthesis.test_corpus import folder_corpus, texts  # noqa: F401
from tests.synthesis.toy_reader import FACT, ToyReader


def count_words(text: str) -> int:
    return len(text.split())


def count_chat(messages: Sequence[Message]) -> int:
    return sum(count_words(message["content"]) + 2 for message in messages) + 1


@pytest.fixture
def corpus(texts: Path, tmp_path: Path) -> Path:  # noqa: F811
    folder = tmp_path / "corpus"
    folder.mkdir()
    build_corpus(folder_corpus(texts), 0, folder, {})
    return folder


def recipe(corpus: Path, **configs: DatasetConfig) -> Synthesis:
    return Synthesis(
        seed=0, student="", corpus=folder_corpus(corpus), retrieval=Retrieval(20), reading=Reading(40),
        generator=Generator("toy-reader", 100, "toy", 16, 16, 16, 8), gates=Gates(True, 4), configs=configs,
        shards=Shards(50, 10),
    )  # fmt: skip


@pytest.fixture
def workflows(corpus: Path, tmp_path: Path) -> Iterator[Any]:
    journals: list[Journal] = []

    def make(reader: ToyReader, synthesis: Synthesis | None = None) -> Workflow:
        journal = Journal(tmp_path / f"calls{len(journals)}.sqlite", None)
        journals.append(journal)
        documents = read_documents(corpus / "documents.parquet")
        engine = Engine(reader, journal, 100, lambda messages: count_words(messages[0]["content"]), "toy-1")
        return Workflow(
            synthesis or recipe(corpus),
            documents,
            Bm25Retriever(documents, 100),
            engine,
            ToyPrompts(),
            count_words,
            count_chat,
        )

    yield make
    for journal in journals:
        journal.database.close()


def make_samples(workflow: Workflow, config: DatasetConfig, count: int) -> list[Example | str]:
    async def guarded(index: int) -> Example | str:
        try:
            return await workflow.sample("c", config, index)
        except DroppedError as reason:
            return str(reason)

    async def gathered() -> list[Example | str]:
        return await asyncio.gather(*(guarded(i) for i in range(count)))

    return asyncio.run(gathered())


LONG = DatasetConfig("long_input", 200, 20, (1, 2))


def kept(samples: list[Example | str]) -> list[Example]:
    found = [s for s in samples if isinstance(s, Example)]
    assert len(found) >= 10, samples
    return found


def write(folder: Path, examples: list[Example]) -> Path:
    write_config(folder, "c", examples, len(examples), Shards(50, 10))
    write_preview(folder, ["c"])
    return folder


def test_labels_are_the_generators_own_right_or_wrong(workflows: Any, corpus: Path, tmp_path: Path) -> None:
    examples = kept(make_samples(workflows(ToyReader()), LONG, 50))
    right = write(tmp_path / "right", examples)
    wrong = write(tmp_path / "wrong", kept(make_samples(workflows(ToyReader(wrong=True)), LONG, 50)))
    agreement = measure_agreement(corpus, right)
    assert agreement == {"compared": len(examples), "right": len(examples)}, "the preview's rows are no second sample"
    misread = measure_agreement(corpus, wrong)
    assert misread and misread["right"] == 0, "labels of a generator that misreads every value were corrected somewhere"


def test_same_rows_when_the_inserted_facts_are_deleted(workflows: Any, corpus: Path, tmp_path: Path) -> None:
    before = write(tmp_path / "before", kept(make_samples(workflows(ToyReader()), LONG, 50)))
    (corpus / FACTS_FILE).unlink()
    after = write(tmp_path / "after", kept(make_samples(workflows(ToyReader()), LONG, 50)))
    shards = sorted(p.relative_to(before) for p in before.rglob("*.parquet"))
    assert shards and all((before / s).read_bytes() == (after / s).read_bytes() for s in shards)
    assert measure_agreement(corpus, after) is None


def test_samples_keep_the_target_length_and_report_it(workflows: Any) -> None:
    for example in kept(make_samples(workflows(ToyReader()), LONG, 50)):
        chat = [*example.prompt, {"role": "assistant", "content": example.completion}]
        assert count_chat(chat) == example.num_tokens <= LONG.target_length
        assert example.num_tokens > 0.6 * LONG.target_length
        assert [m["content"] for m in example.prompt[2::2]] == list(example.instructions[1:])
        assert example.prompt[0]["content"].endswith("\n" + example.instructions[0])
        assert example.relevant_depths_percent and max(example.relevant_depths_percent) < 100


def test_every_chunk_is_read_for_every_question(workflows: Any) -> None:
    reader = ToyReader()
    workflow = workflows(reader)
    example = kept(make_samples(workflow, LONG, 50))[0]
    by_id = {d.id: d for d in workflow.documents}
    for document_id in example.document_ids:
        for question in example.instructions:
            assert f"{by_id[document_id].text}\n{question}" in reader.asked


def test_no_call_holds_more_of_a_document_than_one_chunk(workflows: Any, corpus: Path) -> None:
    reader = ToyReader()
    workflow = workflows(reader, dataclasses.replace(recipe(corpus), reading=Reading(17)))
    assert any(len(workflow.chunks_of(i)) > 1 for i in range(len(workflow.documents)))
    for kind in ("short_replay", "long_input"):
        kept(make_samples(workflow, DatasetConfig(kind, 200, 20, (1,)), 50))
    question_words = count_words("Name the magic number for one two")
    assert max(count_words(prompt) for prompt in reader.asked) <= 17 + question_words


def test_a_sample_is_a_function_of_its_index_alone(workflows: Any) -> None:
    together = make_samples(workflows(ToyReader()), LONG, 12)
    workflow = workflows(ToyReader())

    async def alone(index: int) -> Example | str:
        try:
            return await workflow.sample("c", LONG, index)
        except DroppedError as reason:
            return str(reason)

    assert [asyncio.run(alone(i)) for i in (11, 3, 7)] == [together[i] for i in (11, 3, 7)]


def test_contradicting_readings_drop_the_sample_unless_the_gate_is_open(workflows: Any, corpus: Path) -> None:
    class Forgetful(ToyReader):
        def answer(self, content: str) -> str:
            text = super().answer(content)
            # Sees "its" fact in every chunk, with a value that depends on the chunk.
            return text if content.endswith("Ask:") else text.replace("none", f"{len(content) % 1000:06d}")

    outcomes = make_samples(workflows(Forgetful()), LONG, 10)
    assert "contradicting readings" in outcomes and not any(isinstance(s, Example) for s in outcomes)
    gates = dataclasses.replace(recipe(corpus), gates=Gates(False, 4))
    assert any(isinstance(s, Example) for s in make_samples(workflows(Forgetful(), gates), LONG, 10))


def test_the_round_trip_rejects_readings_of_a_near_miss(workflows: Any, corpus: Path) -> None:
    class Careless(ToyReader):
        """Takes any fact for the one asked for."""

        def answer(self, content: str) -> str:
            text, facts = super().answer(content), FACT.findall(content)
            return f"{facts[0][1]}." if text == "none." and facts and not content.endswith("Ask:") else text

    believed = make_samples(workflows(Careless()), LONG, 30)
    gates = dataclasses.replace(recipe(corpus), gates=Gates(True, 4, round_trip=True))
    workflow = workflows(Careless(), gates)
    checked = make_samples(workflow, LONG, 30)
    assert sum(isinstance(s, Example) for s in checked) > sum(isinstance(s, Example) for s in believed)
    assert workflow.ignored["reading failed the round trip"] > 0


def test_an_instruction_about_what_its_chunk_does_not_say_is_never_used(workflows: Any) -> None:
    class Inventive(ToyReader):
        def answer(self, content: str) -> str:
            return "Name the magic number for purple elephant" if content.endswith("Ask:") else super().answer(content)

    workflow = workflows(Inventive())
    assert set(make_samples(workflow, dataclasses.replace(LONG, num_questions=(1,)), 5)) == {"no usable instruction"}
    assert workflow.ignored["instruction asks for what its chunk does not say"] == 5 * 4


def test_long_output_states_the_words_it_then_has(workflows: Any) -> None:
    config = DatasetConfig("long_output", 200, 10)
    for example in kept(make_samples(workflows(ToyReader()), config, 12)):
        assert example.prompt[0]["content"] == f"Write {len(example.completion.split())} words about things."
        assert example.num_tokens <= 200


def test_short_replay_is_the_generators_own_calls_refusals_included(workflows: Any) -> None:
    reader = ToyReader()
    examples = kept(make_samples(workflows(reader), DatasetConfig("short_replay", 120, 40), 60))
    for example in examples:
        prompt = example.prompt[0]["content"]
        assert prompt in reader.asked
        assert example.completion == reader.answer(prompt)
    said = [example.completion for example in examples]
    assert said.count("none.") > len(said) // 4 and "things." in said
    assert any(text.startswith("Name") for text in said) and any(text[:6].isdigit() for text in said)


def test_shards_split_rows_and_load_with_datasets(workflows: Any, tmp_path: Path) -> None:
    examples = kept(make_samples(workflows(ToyReader()), LONG, 50))
    assert write_config(tmp_path, "c", examples, len(examples), Shards(4, 25)) == {
        "train": len(examples) - len(examples) // 4, "validation": len(examples) // 4,
    }  # fmt: skip
    from datasets import load_dataset

    rows = load_dataset("parquet", data_files=str(tmp_path / "c" / "train-*.parquet"), split="train")
    assert rows[0]["prompt"] == list(examples[0].prompt)
    names = sorted(p.name for p in (tmp_path / "c").iterdir())
    assert names[0].startswith("train-00000-of-0000")
    assert pq.read_schema(tmp_path / "c" / names[0]).names[-1] == "prompt"
    json.dumps(rows[0])
