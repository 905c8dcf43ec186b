"""A cut document is its own beginning, never over the budget, nearly all of it, and ends on the best border near."""

import random
import re

import pytest

from selflong.fast_bpe import load_encoder
from selflong.synthesis.cut import cut_to_tokens
from tests.bpe_tokenizers import bpe_tokenizer
from tests.conftest import training_texts


def count_words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("seed", range(10))
def test_the_longest_beginning_within_the_budget(seed: int) -> None:
    rng, encode = random.Random(seed), load_encoder(bpe_tokenizer("llama3"), [])
    # Dense and thin parts: tokens a character vary along the text.
    parts = [*rng.sample(training_texts(), 12), "=" * 5000, "1 2 3 " * 900, "\u4e2d\u6587 " * 900]
    rng.shuffle(parts)
    text = "\n\n".join(parts)
    for max_tokens in (0, 1, 7, 100, 1000, 20_000, 10**6):
        counted: list[int] = []

        def count(piece: str, counted: list[int] = counted) -> int:
            counted.append(len(piece))
            return len(encode(piece))

        piece = cut_to_tokens(text, max_tokens, count)
        assert text.startswith(piece)
        num_tokens = len(encode(piece))
        assert num_tokens <= max_tokens
        if piece != text:
            assert not re.search(r"\s\Z", piece)
            assert num_tokens >= 0.98 * max_tokens - 12, "only a last word may be lost beside the 1 %"
        # Linear: a handful of counts, none of a text much longer than what was asked for.
        assert sum(counted) <= 40 * len(piece) + 4000
        assert len(counted) <= 40


def test_the_best_border_within_one_percent() -> None:
    words = "word " * 990
    assert cut_to_tokens(f"{words}end.\n\nNext line\nof it. And more words", 996, count_words) == f"{words}end."
    assert cut_to_tokens(f"{words}end\nnext one. And more words", 994, count_words) == f"{words}end"
    assert cut_to_tokens(f"{words}end. And more words", 993, count_words) == f"{words}end."
    # The paragraph's end lies too far back to be worth it.
    early = "word " * 100 + "end.\n\n" + "word " * 890
    assert cut_to_tokens(f"{early}more words", 991, count_words) == early.strip()


def test_words_are_whole_where_there_are_words() -> None:
    assert cut_to_tokens("several longer words", 12, len) == "several"
    assert cut_to_tokens("several longer words", 14, len) == "several longer"
    assert cut_to_tokens("several longer words", 20, len) == "several longer words"
    assert cut_to_tokens("x" * 100, 12, len) == "x" * 12
    assert cut_to_tokens("text", 0, len) == ""


def test_a_shorter_text_with_more_tokens_is_not_taken() -> None:
    def count(text: str) -> int:
        return len(text.split()) + text.endswith("a")

    assert count("b b b a ") == 4 and count("b b b a") == 5
    assert cut_to_tokens("b b b a c c c c c c c", 4, count) == "b b b"
