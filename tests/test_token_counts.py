"""Counts with the middles of documents left out and remembered are the counts of the whole."""

import copy
import pickle
import random
from typing import Any

import pyarrow as pa
import pytest

from selflong import token_counts
from selflong.fast_bpe import SPLITS
from selflong.token_counts import Joined, TokenCounter
from selflong.tokens import chat_ids
from tests.bpe_tokenizers import SPECIAL, bpe_tokenizer
from tests.conftest import training_texts
from tests.test_fast_bpe import random_text
from tests.tiny_llama import train_tokenizer


def chat(*contents: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 9, contents, strict=False)]


@pytest.mark.parametrize("split", [*SPLITS, "unknown"])
def test_counts_are_those_of_the_whole(split: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(token_counts, "SHORTEST_FOLDED_CHARS", 8)
    tokenizer = train_tokenizer() if split == "unknown" else bpe_tokenizer(split)
    counter, rng = TokenCounter(tokenizer, training_texts()), random.Random(1)
    for _ in range(700):
        pieces = [random_text(rng, 25) for _ in range(rng.randint(1, 5))]
        text = Joined(rng.choice(["\n\n", "\n", " ", ""]), pieces)
        assert counter.count(text) == len(tokenizer.encode(str(text), add_special_tokens=False)), pieces
        messages = chat(text, rng.choice(pieces), rng.choice(pieces), rng.choice(pieces))
        assert counter.count_chat(messages) == len(chat_ids(tokenizer, messages)), pieces


def test_long_contents_are_counted_whole_or_joined() -> None:
    tokenizer = bpe_tokenizer("llama3")
    counter, documents = TokenCounter(tokenizer, training_texts()), training_texts()
    joined = Joined("\n\n", [*documents, "What is said of names?"])
    messages = chat(joined, documents[3], documents[5], "Nothing.")
    assert counter.count_chat(messages) == counter.count_chat(chat(str(joined), *documents[3:6:2], "Nothing."))
    assert counter.count_chat(messages) == len(chat_ids(tokenizer, messages)) > 100_000


def test_documents_are_encoded_once_in_whatever_chat_they_stand() -> None:
    counter, documents, encoded = TokenCounter(bpe_tokenizer("llama3"), []), training_texts(), []
    encode = counter.encode
    counter.encode = lambda text: (encoded.append(len(text)), encode(text))[1]  # type: ignore[func-returns-value]
    for document in documents:
        counter.count(document)
    assert sum(encoded) >= 0.99 * sum(map(len, documents))
    encoded.clear()
    for seed in range(3):
        counter.count_chat(chat(Joined("\n\n", random.Random(seed).sample(documents, len(documents))), "Yes."))
    assert sum(encoded) == 0


def test_a_document_with_an_added_token_is_left_whole() -> None:
    tokenizer = bpe_tokenizer("llama3")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<tool_call>"])
    document = f"{'word ' * 99}{SPECIAL[1]}{' word' * 99} <tool_call> {'word ' * 99}"
    counter = TokenCounter(tokenizer, [])
    assert counter._fold(document) == (document, 0)
    assert counter.count(document) == len(tokenizer.encode(document, add_special_tokens=False))
    # A token with a space inside could lie across any border.
    tokenizer.add_tokens(["word word"])
    counter = TokenCounter(tokenizer, [])
    messages = chat("a word " * 200, "Yes.")
    assert counter.count_chat(messages) == len(chat_ids(tokenizer, messages))


@pytest.mark.parametrize(
    "content",
    [
        "message['content'] | trim",
        "message['content'].split('magic')[-1]",
        "message['content'] | upper",
        "('Magic! ' if 'magic' in message['content'] else '') + message['content']",
    ],
)
def test_templates_that_change_contents(content: str) -> None:
    tokenizer = copy.deepcopy(bpe_tokenizer("llama3"))
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}{{ message['role'] + '\n' + (" + content + ") + '<|eot_id|>' }}"
        "{% endfor %}"
    )
    text = "\n  \n" + "some words and the magic one; " * 50 + "\n "
    messages = chat(Joined("\n", [text, "Which word?"]), text)
    assert TokenCounter(tokenizer, []).count_chat(messages) == len(chat_ids(tokenizer, messages))


def test_a_joined_text_is_a_text() -> None:
    text = Joined("\n", ["one", "two"])
    assert text == "one\ntwo" and {text: 1}["one\ntwo"] == 1
    for again in (copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert again == text and again.pieces == ("one", "two") and again.separator == "\n"
    assert pa.array([text], pa.large_string()).to_pylist() == ["one\ntwo"]
