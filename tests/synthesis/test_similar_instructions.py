"""Near-duplicate instructions: exact Jaccard, the first one stays."""

import random

import pytest

from selflong.synthesis.similar_instructions import similar_instructions
from selflong.synthesis.words import split_words

ASKED = "Compare how the two river towns rebuilt their bridges after the flood of 1953."


def shingles(text: str) -> set[tuple[str, ...]]:
    words = split_words(text)
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def all_pairs(texts: list[str], percent: int) -> set[int]:
    """The plain way: each text against every earlier one that is kept."""
    kept: list[set[tuple[str, ...]]] = []
    dropped = set()
    for position, text in enumerate(texts):
        own = shingles(text)
        if any(100 * len(own & other) > percent * len(own | other) for other in kept):
            dropped.add(position)
        else:
            kept.append(own)
    return dropped


@pytest.mark.parametrize("percent", [30, 50, 70, 80, 95])
def test_equal_to_comparing_all_pairs(percent: int) -> None:
    rng = random.Random(percent)
    words = [f"word{i}" for i in range(60)]
    bases = [[rng.choice(words) for _ in range(rng.randint(1, 30))] for _ in range(25)]
    texts = []
    for _ in range(500):
        text = [rng.choice(words) if rng.random() < 0.07 else word for word in rng.choice(bases)]
        texts.append(" ".join(text[: rng.randint(1, len(text))] if rng.random() < 0.5 else text))
    expected = all_pairs(texts, percent)
    assert 0 < len(expected) < len(texts)
    assert similar_instructions(texts, percent) == expected


def test_the_first_stays_and_case_and_punctuation_do_not_count() -> None:
    assert similar_instructions([ASKED, "Something else altogether, please.", ASKED.upper() + " ?", ASKED], 80) == {
        2,
        3,
    }


def test_what_is_like_a_dropped_one_alone_stays() -> None:
    chain = [" ".join(f"w{i}" for i in range(start, start + 20)) for start in (0, 3, 6)]
    assert similar_instructions(chain, 65) == {1}


def test_other_scripts_short_texts_and_none() -> None:
    assert similar_instructions(["比较两座城市的桥梁重建", "比较两座城市的桥梁重建。", "描述河流的历史"], 80) == {1}
    assert similar_instructions(["Why?", "why", "How?"], 80) == {1}
    assert similar_instructions([], 80) == set()


def test_the_demos_questions_are_different() -> None:
    asked = [f"Name the magic number for {key}" for key in ("amber river", "amber lantern", "copper river")]
    assert similar_instructions(asked, 80) == set()
