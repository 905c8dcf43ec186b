"""The workflow with a generator that follows rules: where labels come from, budgets, gates, determinism."""

import asyncio
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from selflong.llm.engine import Engine, Message
from selflong.llm.journal import Journal
from selflong.recipe_synthesis import DatasetConfig, Gates, Generator, Reading, Retrieval, Shards, Synthesis
from selflong.records import Example
from selflong.synthesis.agreement import measure_agreement
from selflong.synthesis.corpus import FACTS_FILE, build_corpus
from selflong.synthesis.decontamination import Ngrams
from selflong.synthesis.documents import read_documents
from selflong.synthesis.draft import Counters, Workbench
from selflong.synthesis.make_blocks import make_sample
from selflong.synthesis.prompts import InstructPrompts, ToyPrompts
from selflong.synthesis.reading import promising
from selflong.synthesis.retrieval import build_index, open_retriever
from selflong.synthesis.shards import write_config
from selflong.synthesis.tally import Tally
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


def recipe(corpus: Path, config: DatasetConfig, **changes: Any) -> Synthesis:
    synthesis = Synthesis(
        seed=0, student="", corpus=folder_corpus(corpus), retrieval=Retrieval(20), reading=Reading(40),
        generator=Generator("toy-reader", 100, "toy", 16, 16, 16, 8), gates=Gates(True, 4), configs={"c": config},
        shards=Shards(50, 10),
    )  # fmt: skip
    return dataclasses.replace(synthesis, **changes)


@pytest.fixture
def benches(corpus: Path, tmp_path: Path) -> Iterator[Any]:
    journals: list[Journal] = []

    def make(reader: ToyReader, config: DatasetConfig, **changes: Any) -> Workbench:
        journal = Journal(tmp_path / f"calls{len(journals)}.sqlite", None)
        journals.append(journal)
        counters = Counters(count_words, count_chat)
        engine = Engine(reader, journal, 100, lambda messages: count_words(messages[0]["content"]), "toy-1")
        index = tmp_path / f"index{len(journals)}"
        index.mkdir()
        build_index(Retrieval(20), 0, corpus, index, {})
        return Workbench(
            recipe(corpus, config, **changes),
            read_documents(corpus / "documents.arrow"),
            open_retriever(Retrieval(20), index),
            engine,
            ToyPrompts(),
            counters,
            counters,
            contamination=None,
            in_process=True,
        )

    yield make
    for journal in journals:
        journal.database.close()


Made = list[tuple[Example | None, Tally]]


def make_samples(bench: Workbench, indices: Iterable[int]) -> Made:
    async def gathered() -> Made:
        return await asyncio.gather(*(make_sample(bench, "c", index) for index in indices))

    return asyncio.run(gathered())


def total(made: Made) -> Tally:
    tally = Tally()
    for _, one in made:
        tally.add(one)
    return tally


LONG = DatasetConfig("long_input", 200, 20, (1, 2))
REPLAY = DatasetConfig(
    "short_replay", 120, 40, skills={"instruction": 1, "topic": 1, "reading": 1, "reading another": 6}
)


def kept(made: Made) -> list[Example]:
    found = [example for example, _ in made if example]
    assert len(found) >= 10, total(made)
    return found


def write(folder: Path, examples: list[Example]) -> Path:
    write_config(folder, "c", examples, len(examples), Shards(50, 10))
    return folder


def test_labels_are_the_generators_own_right_or_wrong(benches: Any, corpus: Path, tmp_path: Path) -> None:
    right = write(tmp_path / "right", kept(make_samples(benches(ToyReader(), LONG), range(20))))
    wrong = write(tmp_path / "wrong", kept(make_samples(benches(ToyReader(wrong=True), LONG), range(20))))
    agreement = measure_agreement(corpus, right)
    assert agreement and agreement["right"] == agreement["compared"] >= 10
    misread = measure_agreement(corpus, wrong)
    assert misread and misread["right"] == 0, "labels of a generator that misreads every value were corrected somewhere"


def test_same_rows_when_the_inserted_facts_are_deleted(benches: Any, corpus: Path, tmp_path: Path) -> None:
    before = write(tmp_path / "before", kept(make_samples(benches(ToyReader(), LONG), range(20))))
    (corpus / FACTS_FILE).unlink()
    after = write(tmp_path / "after", kept(make_samples(benches(ToyReader(), LONG), range(20))))
    shards = sorted(p.relative_to(before) for p in before.rglob("*.parquet"))
    assert shards and all((before / s).read_bytes() == (after / s).read_bytes() for s in shards)
    assert measure_agreement(corpus, after) is None


def test_samples_fill_the_target_length_and_never_exceed_it(benches: Any) -> None:
    for example in kept(make_samples(benches(ToyReader(), LONG), range(20))):
        chat = [*example.prompt, {"role": "assistant", "content": example.completion}]
        assert count_chat(chat) == example.num_tokens
        assert 0.98 * LONG.target_length <= example.num_tokens <= LONG.target_length == example.target_length
        assert [m["content"] for m in example.prompt[2::2]] == list(example.instructions[1:])
        assert example.prompt[0]["content"].endswith("\n" + example.instructions[0])
        assert example.relevant_depths_percent and max(example.relevant_depths_percent) < 100


def test_each_row_draws_its_own_target_length(benches: Any) -> None:
    config = dataclasses.replace(LONG, min_target_length=100, num_questions=(1,))
    found = kept(make_samples(benches(ToyReader(), config), range(20)))
    assert len({example.target_length for example in found}) > 8
    assert all(100 <= e.target_length <= 200 and 0.98 * e.target_length <= e.num_tokens for e in found)


def test_spans_hold_the_documents_and_what_was_read_stays_whole(benches: Any) -> None:
    config = dataclasses.replace(LONG, instruction_first_percent=50)
    bench = benches(ToyReader(), config)
    by_id = {d.id: d.text for d in bench.documents}
    first, cut = 0, 0
    for example in kept(make_samples(bench, range(20))):
        content = example.prompt[0]["content"]
        held = [content[start:end] for start, end in example.document_spans]
        assert all(by_id[i].startswith(text) for i, text in zip(example.document_ids, held, strict=True))
        cut += sum(by_id[i] != text for i, text in zip(example.document_ids, held, strict=True))
        first += content.startswith(example.instructions[0] + "\n" + held[0])
        # What the response says stands in the row, whatever gave way.
        assert any(example.completion.rstrip(".") in text for text in held)
        assert example.readings[0].num_chunks >= len(held) and example.readings[0].num_relevant_chunks >= 1
        assert min(map(count_words, held)) >= 3, "a sliver of a document"
    assert 3 <= first <= 17 and cut > 5


def test_every_chunk_is_read_for_every_question(benches: Any) -> None:
    reader = ToyReader()
    example = kept(make_samples(benches(reader, LONG), range(20)))[0]
    content = example.prompt[0]["content"]
    for start, end in example.document_spans:
        for question in example.instructions:
            # The row may hold less of a document than was read: what gave way was cut afterwards.
            assert any(a.startswith(content[start:end]) and a.endswith("\n" + question) for a in reader.asked)


def test_no_call_holds_more_of_a_document_than_one_chunk(benches: Any) -> None:
    for config in (REPLAY, dataclasses.replace(LONG, num_questions=(1,))):
        reader = ToyReader()
        bench = benches(reader, config, reading=Reading(17))
        assert any(len(bench.chunks_of(i)) > 1 for i in range(len(bench.documents)))
        kept(make_samples(bench, range(30)))
        question_words = count_words("Name the magic number for one two")
        assert max(count_words(prompt) for prompt in reader.asked) <= 17 + question_words


def test_a_row_is_a_function_of_its_index_alone(benches: Any) -> None:
    together = make_samples(benches(ToyReader(), LONG), range(12))
    bench = benches(ToyReader(), LONG)
    alone = [make_samples(bench, [index])[0] for index in (11, 3, 7)]
    assert alone == [together[index] for index in (11, 3, 7)]


def test_a_row_that_fails_a_gate_is_tried_anew_and_every_attempt_is_counted(benches: Any) -> None:
    made = make_samples(benches(ToyReader(), LONG), range(40))
    tally = total(made)
    assert tally.tried == tally.kept + sum(tally.dropped.values()) and tally.dropped
    assert any(example.attempt for example in kept(made))
    hopeless = make_samples(benches(ToyReader(), dataclasses.replace(LONG, target_length=30)), range(2))
    assert [example for example, _ in hopeless] == [None, None]
    assert total(hopeless).tried == 2 * Gates(True, 4).max_attempts
    assert set(total(hopeless).failed) == {"c/0", "c/1"}


def test_contradicting_readings_drop_the_sample_unless_the_gate_is_open(benches: Any) -> None:
    class Forgetful(ToyReader):
        def answer(self, content: str) -> str:
            text = super().answer(content)
            # Sees "its" fact in every chunk, with a value that depends on the chunk.
            return text if content.endswith("Ask:") else text.replace("none", f"{len(content) % 1000:06d}")

    closed = total(make_samples(benches(Forgetful(), LONG), range(5)))
    assert closed.dropped["contradicting readings"] and not closed.kept
    open_ = total(make_samples(benches(Forgetful(), LONG, gates=Gates(False, 4)), range(5)))
    assert "contradicting readings" not in open_.dropped


def test_the_round_trip_rejects_readings_of_a_near_miss(benches: Any) -> None:
    class Careless(ToyReader):
        """Takes any fact for the one asked for."""

        def answer(self, content: str) -> str:
            text, facts = super().answer(content), FACT.findall(content)
            return f"{facts[0][1]}." if text == "none." and facts and not content.endswith("Ask:") else text

    believed = total(make_samples(benches(Careless(), LONG), range(20)))
    checked = total(make_samples(benches(Careless(), LONG, gates=Gates(True, 4, round_trip=True)), range(20)))
    assert checked.kept / checked.tried > believed.kept / believed.tried
    assert checked.ignored["reading failed the round trip"] > 0


def test_an_instruction_about_what_its_chunk_does_not_say_is_never_used(benches: Any) -> None:
    class Inventive(ToyReader):
        def answer(self, content: str) -> str:
            return "Name the magic number for purple elephant" if content.endswith("Ask:") else super().answer(content)

    config = dataclasses.replace(LONG, num_questions=(1,))
    tally = total(make_samples(benches(Inventive(), config, gates=Gates(True, 4, max_attempts=1)), range(5)))
    assert tally.dropped == {"no usable instruction": 5}
    assert tally.ignored["instruction asks for what its chunk does not say"] == 5 * 4


def test_long_output_states_the_words_it_then_has(benches: Any) -> None:
    for example in kept(make_samples(benches(ToyReader(), DatasetConfig("long_output", 200, 10)), range(12))):
        assert example.prompt[0]["content"] == f"Write {len(example.completion.split())} words about things."
        assert example.num_tokens <= 200


def test_short_replay_is_the_generators_own_calls_refusals_included(benches: Any) -> None:
    reader = ToyReader()
    examples = kept(make_samples(benches(reader, REPLAY), range(60)))
    for example in examples:
        prompt = example.prompt[0]["content"]
        assert prompt in reader.asked
        assert example.completion == reader.answer(prompt)
    said = [example.completion for example in examples]
    assert said.count("none.") > len(said) // 4 and "things." in said
    assert any(text.startswith("Name") for text in said) and any(text[:6].isdigit() for text in said)


def test_the_filter_reads_the_chunks_with_the_rare_words_of_the_instruction() -> None:
    chunks = [f"common words about everything, number {i}" for i in range(10)]
    chunks[3] += " and the lighthouse keeper"
    chunks[8] += " and the keeper"
    asked = "What is common about the lighthouse and its keeper?"
    assert promising(asked, chunks, 10) == [3]
    assert promising(asked, chunks, 20) == [3, 8]
    assert promising(asked, chunks, 25) == [0, 3, 8], "ties go to the earlier chunk, shares are rounded up"
    assert promising(asked, chunks, None) == list(range(10))


def test_what_the_filter_leaves_out_is_not_read(benches: Any) -> None:
    whole, filtered = ToyReader(), ToyReader()
    everything = kept(make_samples(benches(whole, LONG), range(20)))
    some = kept(make_samples(benches(filtered, LONG, reading=Reading(40, promising_percent=50)), range(20)))
    assert len(filtered.asked) < 0.8 * len(whole.asked)
    assert sum(e.completion == s.completion for e, s in zip(everything, some, strict=False)) >= 8


def test_no_turn_of_a_row_shares_text_with_an_evaluation_row(benches: Any) -> None:
    config = dataclasses.replace(LONG, num_questions=(2,))
    # A reader that misreads says what stands in no document: only the turns can share it.
    made = make_samples(benches(ToyReader(wrong=True), config), range(20))
    index, first = next((e.index, e) for e in kept(made) if len(e.instructions) == 2)
    bench = benches(ToyReader(wrong=True), config)
    bench.contamination = Ngrams(1)
    bench.contamination.add([first.prompt[1]["content"]])
    again, tally = make_samples(bench, [index])[0]
    assert tally.dropped["shares text with an evaluation row"] == 1
    assert again and again.attempt > first.attempt


def test_an_open_prompt_is_the_instruction_with_all_its_lines(benches: Any) -> None:
    class Talker(ToyReader):
        def answer(self, content: str) -> str:
            return (
                "Dear assistant,\nplease sort my notes\nby date." if "sets the scene" in content else "Gladly, at once."
            )

    config = dataclasses.replace(REPLAY, target_length=200, skills={"open prompt": 1.0})
    bench = benches(Talker(), config)
    bench.prompts, bench.engine.context_length = InstructPrompts(()), 400
    for example in kept(make_samples(bench, range(12))):
        assert (
            example.instructions
            == (example.prompt[0]["content"],)
            == ("Dear assistant,\nplease sort my notes\nby date.",)
        )
