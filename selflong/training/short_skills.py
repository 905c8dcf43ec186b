"""Training rows of the demo's short-context model: the skills that the paper takes for granted.

Every row has `context_length` tokens: text said twice (copying), questions about facts in a passage (one question, or
several at once), the refusal "none" where the passage has no such fact, writing a question about a passage, naming its
topic, and writing a passage of a required number of words. Values, keys and positions are drawn anew for every row;
nothing here sees the corpus box's inserted facts. Legend: T tokens.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selflong.text_skills import ASK, NOTHING, TITLE, answer, fact, first_topic, question, writing_request

TEXT, COPY, ANSWER, WRITTEN, PAD = range(5)
"""What a token is trained as: plain text, second saying, answer, something written, nothing."""

Part = tuple[Sequence[int] | NDArray[np.int64], int]
Row = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Mix:
    """How many rows of a batch train which skill."""

    copy: int
    several: int
    single: int
    ask: int
    title: int
    write: int
    absent: float
    """Probability that a question asks for a fact that the passage does not hold."""

    @property
    def size(self) -> int:
        return self.copy + self.several + self.single + self.ask + self.title + self.write


def plain_word_tokens(tokenizer: Any) -> list[str]:
    """Lower-case words of three letters and more that are one token with the space before them, in token order."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    words = [str(token).removeprefix("Ġ") for token in tokens if re.fullmatch("Ġ[a-z]{3,}", str(token))]
    return [word for word in words if word not in {NOTHING, "magic", "number"}]


class ShortSkills:
    """Draws rows. `documents` are plain passages, `names` the words of needle keys.

    Keys are drawn from all of them, those held out from facts included: a pretrained model has met every word too.
    """

    def __init__(
        self, tokenizer: Any, documents: Sequence[str], names: Mapping[str, Sequence[str]], length: int, seed: int
    ) -> None:
        self.tokenizer, self.length = tokenizer, length
        self.words = sorted({*names["train"], *names["heldout"]})
        self.any_words = plain_word_tokens(tokenizer)
        self.rng = np.random.default_rng(seed)
        encoded = tokenizer(list(documents), add_special_tokens=False).input_ids
        newline = self.encode("\n")
        self.documents = list(documents)
        self.stream = np.concatenate([np.array(ids + newline, dtype=np.int64) for ids in encoded])
        starts_line = [str(t).startswith("Ċ") for t in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
        self.starts_line = np.array(starts_line)
        self.bos, self.eos, self.user, self.assistant = tokenizer.convert_tokens_to_ids(
            ["<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>"]
        )

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def batch(self, mix: Mix) -> Row:
        """Return token ids and token roles, each (mix.size, T)."""
        rows = [self.copy() for _ in range(mix.copy)]
        rows += [
            self.several(int(self.rng.integers(2, 5)) if mix.absent else 4, mix.absent) for _ in range(mix.several)
        ]
        for _ in range(mix.single):
            rows.append(self.notes(mix.absent) if mix.absent and self.rng.random() < 0.4 else self.single(mix.absent))
        rows += [self.ask() for _ in range(mix.ask)]
        rows += [self.title() for _ in range(mix.title)]
        rows += [self.write() for _ in range(mix.write)]
        return np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])

    # -- pieces

    def text(self, count: int) -> NDArray[np.int64]:
        start = int(self.rng.integers(0, len(self.stream) - count - 1))
        return self.stream[start : start + count]

    def keys(self, count: int) -> list[str]:
        """`count` keys of two different words; no word stands in two of them.

        Half of the time of any words that are a token, so that copying a key is learned and not a list of words.
        """
        words = self.words if self.rng.random() < 0.5 else self.any_words
        chosen = self.rng.choice(len(words), 2 * count, replace=False)
        return [f"{words[a]} {words[b]}" for a, b in chosen.reshape(count, 2)]

    def value(self) -> str:
        return f"{self.rng.integers(0, 1_000_000):06d}"

    def passage(self, count: int, facts: Sequence[tuple[str, str]], at_edge: float = 0.0) -> NDArray[np.int64]:
        """`count` tokens of text holding each fact on a line of its own, preferably where a line starts."""
        lines = [self.encode("\n" + fact(k, v)) for k, v in facts]
        text = self.text(max(0, count - sum(map(len, lines))))
        spots = [int(s) for s in self.rng.integers(0, len(text) + 1, len(lines))]
        starts = np.flatnonzero(self.starts_line[text]) if len(text) else np.array([], dtype=np.int64)
        spots = [int(self.rng.choice(starts)) if len(starts) and self.rng.random() < 0.7 else s for s in spots]
        if lines and self.rng.random() < at_edge:
            spots[int(self.rng.integers(len(spots)))] = len(text) if self.rng.random() < 0.7 else 0
        pieces, last = [], 0
        for spot, line in sorted(zip(spots, lines, strict=True), key=lambda pair: pair[0]):
            pieces += [text[last:spot], np.array(line, dtype=np.int64)]
            last = spot
        return np.concatenate([*pieces, text[last:]])[:count]

    def row(self, parts: Sequence[Part]) -> Row:
        """Join parts and pad on the right to T. The caller keeps within T."""
        ids = np.concatenate([np.asarray(tokens, dtype=np.int64) for tokens, _ in parts])
        roles = np.concatenate([np.full(len(tokens), role, dtype=np.int64) for tokens, role in parts])
        missing = self.length - len(ids)
        if missing < 0:
            raise ValueError(f"a row of {len(ids)} tokens exceeds {self.length}")
        return np.pad(ids, (0, missing), constant_values=self.eos), np.pad(roles, (0, missing), constant_values=PAD)

    def chat(self, passage: Sequence[int] | NDArray[np.int64], request: str, reply: Sequence[Part]) -> Row:
        """One user turn (passage, then request) and the reply."""
        asked = self.encode("\n" + request if len(passage) else request)
        turn: list[Part] = [([self.bos, self.user], TEXT), (passage, TEXT), ([*asked, self.assistant], TEXT)]
        return self.row([*turn, *reply])

    def written(self, text: str, role: int) -> list[Part]:
        """A reply of plain text; the chat template puts a space before it."""
        return [([*self.encode(" " + text), self.eos], role)]

    # -- skills

    def copy(self) -> Row:
        """Text or shuffled tokens, said twice with something between."""
        count = int(self.rng.integers(8, self.length // 2))
        gap = self.length - 1 - 2 * count
        before = int(self.rng.integers(0, gap + 1))
        span = self.text(count) if self.rng.random() < 0.5 else self.rng.choice(self.stream, count)
        middle = self.text(gap - before)
        return self.row(
            [
                ([self.bos], TEXT),
                (self.text(before), TEXT),
                (span, TEXT),
                (middle, TEXT),
                (span[:1], TEXT),
                (span[1:], COPY),
            ]
        )

    def asked_facts(
        self, present: int, asked: int, absent: float
    ) -> tuple[list[tuple[str, str]], list[tuple[str, str | None]]]:
        """`present` facts for the passage, and `asked` of them, or absent ones with probability `absent`."""
        keys = self.keys(present + asked)
        if absent:
            keys[present:] = [self.near_miss(key, keys[:present]) for key in keys[present:]]
        facts = [(key, self.value()) for key in keys[:present]]
        left, chosen = list(self.rng.permutation(present)), []
        for key in keys[present:]:
            if left and self.rng.random() >= absent:
                chosen.append(facts[left.pop()])
            else:
                chosen.append((key, None))
        return facts, chosen

    def near_miss(self, key: str, present: Sequence[str]) -> str:
        """Half of the time, let an absent key share one word with a present one: what retrieval brings together."""
        if not present or self.rng.random() < 0.5:
            return key
        near = present[int(self.rng.integers(len(present)))].split()
        return f"{near[0]} {key.split()[1]}" if self.rng.random() < 0.5 else f"{key.split()[0]} {near[1]}"

    def conversation(self, asked: Sequence[tuple[str, str | None]]) -> tuple[str, list[Part]]:
        """The first question, and the reply to it followed by further questions and replies."""
        parts: list[Part] = []
        for number, (key, value) in enumerate(asked):
            if number:
                parts.append(([self.user, *self.encode(question(key)), self.assistant], TEXT))
            parts += self.written(answer(value), ANSWER)
        return question(asked[0][0]), parts

    def several(self, asked: int, absent: float) -> Row:
        """Several questions, one after the other, about a passage with up to four facts."""
        present = int(self.rng.integers(1, 5)) if absent else asked
        facts, chosen = self.asked_facts(present, asked, absent)
        return self._fitted(facts, *self.conversation(chosen), self.length)

    def single(self, absent: float) -> Row:
        """One question about a passage with up to three facts, of any length that fits."""
        shorter = absent > 0 and self.rng.random() < 0.5
        length = int(self.rng.integers(40, self.length + 1)) if shorter else self.length
        present = int(self.rng.integers(0, 4 if length > 90 else 2)) if absent else int(self.rng.integers(1, 4))
        facts, chosen = self.asked_facts(present, 1, absent)
        return self._fitted(facts, *self.conversation(chosen), length)

    def notes(self, absent: float) -> Row:
        """The response call: one to three findings and nothing else, then one question."""
        facts, chosen = self.asked_facts(int(self.rng.integers(1, 4)), 1, absent / 2)
        return self.chat(self.encode("\n".join(fact(k, v) for k, v in facts)), *self.conversation(chosen))

    def ask(self) -> Row:
        """Write a question about one of the passage's facts, or say that there is nothing to ask."""
        present = int(self.rng.choice([0, 1, 1, 2]))
        length = int(self.rng.integers(48 if present < 2 else 64, self.length + 1))
        facts, _ = self.asked_facts(present, 0, 0)
        text = question(facts[int(self.rng.integers(present))][0]) if present else f"{NOTHING}."
        return self._fitted(facts, ASK, self.written(text, WRITTEN), length)

    def title(self) -> Row:
        """Name the topic of a passage: its first plain word."""
        while True:
            document = self.documents[int(self.rng.integers(len(self.documents)))]
            topic = first_topic(document)
            ids = self.encode(document)[: self.length - 24]
            if topic and topic == first_topic(self.tokenizer.decode(ids)):
                return self.chat(ids, TITLE, self.written(topic + ".", WRITTEN))

    def write(self) -> Row:
        """Write a passage of the required number of words about a topic."""
        while True:
            document = self.documents[int(self.rng.integers(len(self.documents)))]
            words, count = document.split(), int(self.rng.integers(4, 33))
            topic = first_topic(document)
            if not topic or len(words) < count:
                continue
            request, passage = writing_request(count, topic), self.encode(" " + " ".join(words[:count]))
            if len(self.encode(request)) + len(passage) + 4 <= self.length:
                return self.chat([], request, [(passage, TEXT), ([self.eos], WRITTEN)])

    def _fitted(self, facts: list[tuple[str, str]], request: str, reply: list[Part], length: int) -> Row:
        """Fill the passage so that the row has `length` tokens; if the facts do not fit, use all of T."""
        room = length - 3 - len(self.encode("\n" + request)) - sum(len(tokens) for tokens, _ in reply)
        needed = sum(len(self.encode("\n" + fact(k, v))) for k, v in facts)
        room = max(room, min(needed, room + self.length - length))
        return self.chat(self.passage(room, facts, at_edge=0.25), request, reply)
