"""Chunks: joined they are the document; none is over the limit; borders are the best that fit; the work is linear."""

import random
from collections.abc import Callable, Iterator

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from selflong.synthesis.chunks import chunk

GLUE = {
    "text": ["\n\n", "\n", ". ", " ", "  ", "\n\n\n", "! "],
    "crlf": ["\r\n\r\n", "\r\n", ". ", " ", "\r", "\r\n\r\n\r\n", "\n\r\n"],
    "unicode": ["\u3002", "\uff01", "\u2028", "\u00a0", "\u3000", "\x85", "\v", "\f", "\x1c", " ", "\n\n"],
    "no borders": [""],
    "white space": [" ", "\t", "\n", "\r\n", "\n" * 9, " " * 30],
}
LETTERS = {"unicode": "é中文字🎉👩‍👩‍👧ßא", "white space": " \n"}


def count_words(text: str) -> int:
    return len(text.split())


@pytest.fixture(scope="module")
def count_tokens() -> Callable[[str], int]:
    """A byte-level BPE: as with Llama's, counts of neighbours do not add up, and one character may be many tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the river and the stone. A winter garden\n\n"] * 50, trainer)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def random_texts(kind: str) -> Iterator[str]:
    rng = random.Random(kind)
    letters = LETTERS.get(kind, "abcdefg") + " the river and "
    for _ in range(40):
        words = ("".join(rng.choices(letters, k=rng.randint(0, 12))) for _ in range(rng.randint(0, 150)))
        yield "".join(word + rng.choice(GLUE[kind]) for word in words)


@pytest.mark.parametrize("kind", GLUE)
@pytest.mark.parametrize("limit", [4, 7, 50])
def test_joined_chunks_are_the_document_and_none_is_too_long(
    kind: str, limit: int, count_tokens: Callable[[str], int]
) -> None:
    for text in random_texts(kind):
        for count in (count_tokens, len, lambda t: len(t.encode())):
            pieces = list(chunk(text, limit, count))
            assert "".join(pieces) == text
            assert all(pieces)
            # A character of more tokens than the limit cannot be cut.
            assert all(count(piece) <= limit or len(piece) == 1 for piece in pieces)


def test_paragraph_borders_come_before_lines_and_sentences() -> None:
    text = "one two. three\nfour\n\nfive six seven\n\neight"
    assert list(chunk(text, 4, count_words)) == ["one two. three\nfour\n\n", "five six seven\n\neight"]
    text = "one\r\n\r\ntwo\r\nthree four five\r\n"
    assert list(chunk(text, 4, count_words)) == ["one\r\n\r\n", "two\r\nthree four five\r\n"]
    assert list(chunk("第一句\u3002第二句\uff01第三句", 8, len)) == ["第一句\u3002第二句\uff01", "第三句"]


def test_a_chunk_grows_word_by_word_while_the_sum_and_the_joined_text_fit(count_tokens: Callable[[str], int]) -> None:
    words = [word + " " for word in random.Random(1).choices(["the", "river", "stones", "xyzzy", "qu"], k=400)]
    # Counts a border as two tokens more, so that now the sum of the words and now the joined text is over the limit.
    for count in (count_tokens, lambda text: count_tokens(text) + 2 * text.count("s x")):
        expected, piece = [], ""
        for word in words:
            if sum(count(w + " ") for w in (piece + word).split()) > 40 or count(piece + word) > 40:
                expected.append(piece)
                piece = ""
            piece += word
        assert list(chunk("".join(words), 40, count)) == [*expected, piece]


def test_a_word_longer_than_a_chunk_is_cut_between_characters() -> None:
    pieces = list(chunk("x" * 100, 10, len))
    assert "".join(pieces) == "x" * 100
    assert max(map(len, pieces)) <= 10


@pytest.mark.parametrize("text", ["word " * 20_000, "word. " * 20_000, "word\n" * 20_000, "word\n\n" * 20_000])
def test_the_tokens_counted_grow_with_the_document_alone(text: str) -> None:
    counted = 0

    def count(piece: str) -> int:
        nonlocal counted
        counted += len(piece)
        return count_words(piece)

    assert "".join(chunk(text, 4_096, count)) == text
    assert counted < 20 * len(text), "chunks are counted again for every part that joins them"
