"""Examples → training rows: `input_ids` and `labels` of exactly `max_length` tokens, no padding, no attention mask.

One pad token would make attention build a T x T mask, so a long example is topped up with whole short ones and then
with the cut beginning of another long one; each starts with its own BOS. Loss as in the paper (section 3.3): on all
tokens of long samples, on the response alone for short ones (-100 elsewhere). Legend: T tokens.
"""

import collections
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selflong.errors import UserError
from selflong.tokens import chat_ids

Tokens = NDArray[np.int32]
NO_LOSS = -100
RESPONSE_ONLY = {"short_replay"}


@dataclass(frozen=True)
class Encoded:
    """A tokenized example: `labels` (T,) is `input_ids` (T,) with -100 where its kind takes no loss."""

    kind: str
    input_ids: Tokens
    labels: Tokens


@dataclass
class RowCounts:
    """What went into the rows, for the manifest."""

    rows: collections.Counter[str] = field(default_factory=collections.Counter)
    supervised_tokens: collections.Counter[str] = field(default_factory=collections.Counter)


def encode(tokenizer: Any, row: dict[str, Any]) -> Encoded:
    """Tokenize one dataset row with the chat template. Raises UserError if the template is not prefix-stable."""
    prompt = chat_ids(tokenizer, row["prompt"], add_generation_prompt=True)
    whole = chat_ids(tokenizer, row["prompt"] + row["completion"])
    if whole[: len(prompt)] != prompt:
        raise UserError(
            f"example {row['index']} ({row['kind']})",
            "the chat template changes the prompt once the response follows",
            "use a template whose generation prompt is a prefix of the full chat",
        )
    input_ids = np.array(whole, dtype=np.int32)
    labels = input_ids.copy()
    if row["kind"] in RESPONSE_ONLY:
        labels[: len(prompt)] = NO_LOSS
    return Encoded(row["kind"], input_ids, labels)


def build_rows(
    sources: Sequence[tuple[Sequence[Encoded], int]], max_length: int, seed: int
) -> tuple[list[tuple[Tokens, Tokens]], RowCounts]:
    """Build the stated number of rows from each source, in seeded order; short examples fill the gaps.

    A source is used again from its start when it runs out. Raises UserError if an example is longer than `max_length`.
    """
    for examples, _ in sources:
        too_long = sum(len(e.input_ids) > max_length for e in examples)
        if too_long:
            raise UserError("training rows", f"{too_long} examples exceed max_length {max_length}", "raise max_length")
    shorts = _endless([e for examples, _ in sources for e in examples if e.kind in RESPONSE_ONLY], seed + 1)
    longs = _endless([e for examples, _ in sources for e in examples if e.kind not in RESPONSE_ONLY], seed + 2)
    counts, rows = RowCounts(), []
    for number, (examples, num_rows) in enumerate(sources):
        supply = _endless(examples, seed + 3 + number)
        for _ in range(num_rows):
            first = next(supply) if supply else None
            if first is None:
                raise UserError("training rows", "a dataset config has no rows", "lower its share to 0 or fill it")
            rows.append(_fill(first, shorts, longs, max_length, counts))
            counts.rows[first.kind] += 1
    order = np.random.default_rng([seed, 9]).permutation(len(rows))
    return [rows[i] for i in order], counts


def _fill(
    first: Encoded,
    shorts: Iterator[Encoded] | None,
    longs: Iterator[Encoded] | None,
    max_length: int,
    counts: RowCounts,
) -> tuple[Tokens, Tokens]:
    """Top up one example to exactly `max_length`: whole short ones while they fit, then a cut long (else short) one."""
    parts, used = [first], len(first.input_ids)
    while shorts and used < max_length:
        following = next(shorts)
        if used + len(following.input_ids) > max_length:
            break
        parts.append(following)
        used += len(following.input_ids)
    while used < max_length:
        cut = next(longs or shorts or iter([first]))
        size = max_length - used
        labels = (
            cut.input_ids if cut.kind not in RESPONSE_ONLY else np.full(len(cut.input_ids), NO_LOSS, dtype=np.int32)
        )
        parts.append(Encoded(cut.kind, cut.input_ids[:size], labels[:size]))
        used += len(parts[-1].input_ids)
    for part in parts:
        counts.supervised_tokens[part.kind] += int((part.labels != NO_LOSS).sum())
    return np.concatenate([p.input_ids for p in parts]), np.concatenate([p.labels for p in parts])


def _endless(examples: Sequence[Encoded], seed: int) -> Iterator[Encoded] | None:
    """Yield examples for ever, in a new seeded order each time round; None if there are none."""
    if not examples:
        return None

    def cycle() -> Iterator[Encoded]:
        rng = np.random.default_rng(seed)
        while True:
            for i in rng.permutation(len(examples)):
                yield examples[i]

    return cycle()
