"""Training rows of the demo's short-context model: the skills that the paper takes for granted.

Every row has `context_length` tokens: text said twice (copying), questions about facts in a passage (one question, or
several at once), the refusal "none" where the passage has no such fact, writing a question about a passage, naming its
topic, and writing a passage of a required number of words. Values, keys and positions are drawn anew for every row;
nothing here sees the corpus box's inserted facts. Legend: T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selflong.text_skills import ASK, FACT_REFUSAL, TITLE, first_topic, question, several_questions, writing_request

TEXT, COPY, ANSWER, WORDING, WRITTEN, PAD = range(6)
"""What a token is trained as: text, second saying, an answer's value, the words around it, written, nothing."""

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
    wording: bool
    """Whether the words around an answer are trained apart from plain text: early on that delays binding."""

    @property
    def size(self) -> int:
        return self.copy + self.several + self.single + self.ask + self.title + self.write


class ShortSkills:
    """Draws rows. `documents` are plain passages, `words` the training words of needle keys."""

    def __init__(self, tokenizer: Any, documents: Sequence[str], words: Sequence[str], length: int, seed: int) -> None:
        self.tokenizer, self.length, self.words = tokenizer, length, list(words)
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
            self.answers(int(self.rng.integers(2, 5)) if mix.absent else 4, mix.absent) for _ in range(mix.several)
        ]
        for _ in range(mix.single):
            rows.append(self.notes(mix.absent) if mix.absent and self.rng.random() < 0.4 else self.single(mix.absent))
        rows += [self.ask() for _ in range(mix.ask)]
        rows += [self.title() for _ in range(mix.title)]
        rows += [self.write() for _ in range(mix.write)]
        ids, roles = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])
        return ids, roles if mix.wording else np.where(roles == WORDING, TEXT, roles)

    # -- pieces

    def text(self, count: int) -> NDArray[np.int64]:
        start = int(self.rng.integers(0, len(self.stream) - count - 1))
        return self.stream[start : start + count]

    def keys(self, count: int) -> list[str]:
        """`count` keys of two different words; no word stands in two of them."""
        chosen = self.rng.choice(len(self.words), 2 * count, replace=False)
        return [f"{self.words[a]} {self.words[b]}" for a, b in chosen.reshape(count, 2)]

    def value(self) -> str:
        return f"{self.rng.integers(0, 1_000_000):06d}"

    def fact_parts(self, key: str, value: str | None) -> tuple[list[int], list[int]]:
        """Token ids of "The magic number for KEY is" and of " VALUE." (or the refusal)."""
        return self.encode(f"The magic number for {key} is"), self.encode(f" {value}." if value else FACT_REFUSAL)

    def passage(self, count: int, facts: Sequence[tuple[str, str]], at_edge: float = 0.0) -> NDArray[np.int64]:
        """`count` tokens of text holding each fact on a line of its own, preferably where a line starts."""
        lines = [self.encode("\n" + f"The magic number for {k} is {v}.") for k, v in facts]
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

    def chat(self, passage: NDArray[np.int64], request: Sequence[int], reply: Sequence[Part]) -> Row:
        turn: list[Part] = [([self.bos, self.user], TEXT), (passage, TEXT), (request, TEXT), ([self.assistant], TEXT)]
        return self.row([*turn, *reply])

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
        if absent and present and self.rng.random() < 0.4:  # an absent key that shares a word with a present one
            keys[-1] = " ".join([keys[0].split()[0], keys[-1].split()[1]][:: int(self.rng.choice([1, -1]))])
        facts = [(key, self.value()) for key in keys[:present]]
        left, chosen = list(self.rng.permutation(present)), []
        for key in keys[present:]:
            if left and self.rng.random() >= absent:
                chosen.append(facts[left.pop()])
            else:
                chosen.append((key, None))
        return facts, chosen

    def reply(self, asked: Sequence[tuple[str, str | None]]) -> list[Part]:
        parts: list[Part] = []
        for number, (key, value) in enumerate(asked):
            wording, answer = self.fact_parts(key, value)
            parts += [(self.encode("\n") if number else [], WORDING), (wording, WORDING), (answer, ANSWER)]
        return [*parts, ([self.eos], WORDING)]

    def answers(self, asked: int, absent: float) -> Row:
        """Several questions at once about a passage with up to four facts."""
        present = int(self.rng.integers(1, 5)) if absent else asked
        facts, chosen = self.asked_facts(present, asked, absent)
        request = self.encode("\n" + several_questions([key for key, _ in chosen]))
        return self._fitted(facts, request, self.reply(chosen), self.length)

    def single(self, absent: float) -> Row:
        """One question about a passage with up to three facts, of any length that fits."""
        length = int(self.rng.integers(56, self.length + 1)) if absent else self.length
        present = int(self.rng.integers(0, 4 if length > 90 else 2)) if absent else int(self.rng.integers(1, 4))
        facts, chosen = self.asked_facts(present, 1, absent)
        request = self.encode("\n" + question(chosen[0][0]))
        return self._fitted(facts, request, self.reply(chosen), length)

    def notes(self, absent: float) -> Row:
        """The response call: one to three findings and little else, then one question."""
        facts, chosen = self.asked_facts(int(self.rng.integers(1, 4)), 1, absent / 2)
        request = self.encode("\n" + question(chosen[0][0]))
        lines = self.encode("\n".join(f"The magic number for {k} is {v}." for k, v in facts))
        return self.chat(np.array(lines, dtype=np.int64), request, self.reply(chosen))

    def ask(self) -> Row:
        """Write a question about one of the passage's facts, or say that there is nothing to ask."""
        present = int(self.rng.choice([0, 1, 1, 2]))
        length = int(self.rng.integers(56 if present < 2 else 72, self.length + 1))
        facts, _ = self.asked_facts(present, 0, 0)
        written = question(facts[int(self.rng.integers(present))][0]).removeprefix("Question: ") if present else "none."
        reply: list[Part] = [([*self.encode(written), self.eos], WRITTEN)]
        return self._fitted(facts, self.encode("\n" + ASK), reply, length)

    def title(self) -> Row:
        """Name the topic of a passage: its first plain word."""
        while True:
            document = self.documents[int(self.rng.integers(len(self.documents)))]
            topic = first_topic(document)
            ids = self.encode(document)[: self.length - 24]
            if topic and topic == first_topic(self.tokenizer.decode(ids)):
                reply: list[Part] = [([*self.encode(topic + "."), self.eos], WRITTEN)]
                return self.chat(np.array(ids, dtype=np.int64), self.encode("\n" + TITLE), reply)

    def write(self) -> Row:
        """Write a passage of the required number of words about a topic."""
        while True:
            document = self.documents[int(self.rng.integers(len(self.documents)))]
            words = document.split()
            count = int(self.rng.integers(4, 33))
            topic = first_topic(document)
            if not topic or len(words) < count:
                continue
            request = self.encode(writing_request(count, topic))
            passage = self.encode(" ".join(words[:count]))
            if len(request) + len(passage) + 4 <= self.length:
                reply: list[Part] = [(passage, TEXT), ([self.eos], WRITTEN)]
                return self.chat(np.array([], dtype=np.int64), request, reply)

    def _fitted(self, facts: list[tuple[str, str]], request: list[int], reply: list[Part], length: int) -> Row:
        """Fill the passage so that the row has `length` tokens; if the facts do not fit, use all of T."""
        room = length - 3 - len(request) - sum(len(tokens) for tokens, _ in reply)
        needed = sum(len(self.encode(f"\nThe magic number for {k} is {v}.")) for k, v in facts)
        room = max(room, min(needed, room + self.length - length))
        return self.chat(self.passage(room, facts, at_edge=0.25), request, reply)
