"""Chunks: joined they are the document; none is over the limit; borders are the best that fit."""

import random

import pytest

from selflong.synthesis.chunks import chunk


def count_words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("seed", range(20))
def test_joined_chunks_are_the_document_and_none_is_too_long(seed: int) -> None:
    rng = random.Random(seed)
    glue = ["\n\n", "\n", ". ", " ", "  ", "\n\n\n", "! "]
    text = "".join(rng.choice("abcdefg") * rng.randint(1, 9) + rng.choice(glue) for _ in range(rng.randint(1, 300)))
    pieces = list(chunk(text, 7, count_words))
    assert "".join(pieces) == text
    assert max(map(count_words, pieces)) <= 7


def test_paragraph_borders_come_before_lines_and_sentences() -> None:
    text = "one two. three\nfour\n\nfive six seven\n\neight"
    assert list(chunk(text, 4, count_words)) == ["one two. three\nfour\n\n", "five six seven\n\neight"]


def test_a_word_longer_than_a_chunk_is_cut_between_characters() -> None:
    pieces = list(chunk("x" * 100, 10, len))
    assert "".join(pieces) == "x" * 100
    assert max(map(len, pieces)) <= 10
