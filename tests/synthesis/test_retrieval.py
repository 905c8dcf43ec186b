"""Retrieval: which words count, and the order of what is found."""

import pytest

from selflong.records import Document
from selflong.synthesis.retrieval import Bm25Retriever

TEXTS = [
    "report on the harbor", "report on the river", "report report report", "the lantern and the river",
    "nothing of the kind", "a river, a lantern, a meadow", "copper",
]  # fmt: skip


def retriever(max_document_percent: float) -> Bm25Retriever:
    return Bm25Retriever([Document(str(i), text, "", "") for i, text in enumerate(TEXTS)], max_document_percent)


def test_common_words_of_a_question_bring_no_documents() -> None:
    assert set(retriever(100).retrieve("Report on the lantern", 7)) == {0, 1, 2, 3, 5}
    assert retriever(40).retrieve("Report on the lantern", 7) == [3, 5]


def test_a_question_of_common_words_alone_still_finds_documents() -> None:
    assert set(retriever(40).retrieve("a report on a river", 7)) == {0, 1, 2, 3, 5}


def test_documents_with_more_of_the_words_come_first() -> None:
    assert retriever(100).retrieve("meadow lantern", 2) == [5, 3]
    assert retriever(100).retrieve("copper", 7) == [6]


@pytest.mark.parametrize("question", ["", "the of and", "zebra"])
def test_a_question_without_known_words_finds_nothing(question: str) -> None:
    assert retriever(100).retrieve(question, 7) == []
