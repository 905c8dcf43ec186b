"""Rows of the demo's base training: exact length, true answers, near misses refused."""

import re

import numpy as np
import pytest

from selflong.training.base_model import BINDING, SKILLS
from selflong.training.base_tokenizer import train_tokenizer
from selflong.training.short_skills import ANSWER, COPY, PAD, TEXT, WRITTEN, Row, ShortSkills
from tests.conftest import training_texts

WORDS = ["anchor", "silver", "meadow", "lantern", "harbor", "pepper", "velvet", "timber", "candle", "pocket", "mirror"]
WORDS += [
    "saddle",
    "copper",
    "garden",
    "window",
    "basket",
    "marble",
    "ribbon",
    "walnut",
    "feather",
    "thimble",
    "kettle",
]
NAMES = {"train": WORDS[:-4], "heldout": WORDS[-4:]}
FACT = re.compile(r"The magic number for (\w+ \w+) is (\d{6})\.")
DIALOGUE = re.compile(r"Name the magic number for (\w+ \w+)<\|assistant\|> (\w+)\.")


@pytest.fixture(scope="module")
def skills() -> ShortSkills:
    documents = [text[i : i + 300] for text in training_texts()[:60] for i in range(0, len(text), 300)]
    phrases = [
        "\nName the magic number for a",
        "\nThe magic number for is none.",
        "\nAsk:\nTitle:\nWrite 1 words about",
    ]
    return ShortSkills(train_tokenizer(documents, WORDS, phrases, 900), documents, NAMES, 128, 0)


def text_of(skills: ShortSkills, row: Row) -> str:
    ids, roles = row
    return str(skills.tokenizer.decode(ids[roles != PAD]))


def test_every_name_word_and_digit_pair_is_one_token(skills: ShortSkills) -> None:
    assert all(len(skills.encode(f" {word}")) == 1 for word in WORDS)
    assert all(len(skills.encode(f" {value}")) == 3 for value in ("000000", "482193", "999999"))


def test_batches_have_the_mixs_size_and_the_models_length(skills: ShortSkills) -> None:
    for mix in (BINDING, SKILLS):
        ids, roles = skills.batch(mix)
        assert ids.shape == roles.shape == (mix.size, 128)
        assert mix.size == 16
    assert {TEXT, COPY, ANSWER, WRITTEN, PAD} == set(np.unique(skills.batch(SKILLS)[1]))


@pytest.mark.parametrize("absent", [0.0, 0.4, 1.0])
def test_answers_are_what_the_passage_says_and_none_otherwise(skills: ShortSkills, absent: float) -> None:
    refusals = answers = 0
    for _ in range(60):
        for row in (skills.several(3, absent), skills.single(absent), skills.notes(absent)):
            text = text_of(skills, row)
            facts = dict(FACT.findall(text))
            for asked, value in DIALOGUE.findall(text):
                assert value == facts.get(asked, "none")
                refusals, answers = refusals + (value == "none"), answers + (value != "none")
    assert answers > 0 or absent == 1.0
    assert refusals > 0 or absent == 0.0


def test_refused_keys_often_share_a_word_with_a_fact(skills: ShortSkills) -> None:
    near = total = 0
    for _ in range(100):
        facts, chosen = skills.asked_facts(3, 1, 1.0)
        key = chosen[0][0]
        assert chosen[0][1] is None and key not in dict(facts)
        total += 1
        near += any(set(key.split()) & set(k.split()) for k, _ in facts)
    assert 0.3 < near / total < 0.7


def test_only_values_count_as_answers(skills: ShortSkills) -> None:
    for _ in range(20):
        ids, roles = skills.several(2, 0.4)
        said = skills.tokenizer.decode(ids[roles == ANSWER])
        assert re.fullmatch(r"( (\d{6}|none)\.<\|eos\|>)+", said), said


def test_copies_say_the_same_twice(skills: ShortSkills) -> None:
    for _ in range(20):
        ids, roles = skills.copy()
        count = int((roles == COPY).sum()) + 1
        assert any(np.array_equal(ids[-count:], ids[i : i + count]) for i in range(128 - 2 * count + 1))


def test_written_passages_have_the_required_words(skills: ShortSkills) -> None:
    for _ in range(20):
        text = text_of(skills, skills.write())
        words, passage = re.search(r"Write (\d+) words about .*?<\|assistant\|>(.*)<\|eos\|>", text, re.DOTALL).groups()  # type: ignore[union-attr]
        assert len(passage.split()) == int(words)


def test_same_seed_same_rows(skills: ShortSkills) -> None:
    def first(seed: int) -> np.ndarray:
        again = ShortSkills(skills.tokenizer, skills.documents, NAMES, 128, seed)
        return again.batch(SKILLS)[0]

    assert np.array_equal(first(5), first(5)) and not np.array_equal(first(5), first(6))


def test_keys_use_the_words_held_out_from_facts_too(skills: ShortSkills) -> None:
    used = {word for _ in range(200) for key in skills.keys(2) for word in key.split()}
    assert used.issuperset(WORDS)
