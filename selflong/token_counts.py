"""Exact token counts of chats of a million tokens, in the time of a short one.

Stands under synthesis, which counts the same documents again and again in ever new chats. A text may be cut between a
letter and a space where its tokenizer provably cuts it too; of each document all but its first and last words is
counted once, remembered by content, and left out of the chat that is then really encoded.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selflong.fast_bpe import UnsupportedError, load_encoder, split_pattern
from selflong.tokens import DATE, chat_ids

# Shorter texts are encoded as fast as they are looked up.
SHORTEST_FOLDED_CHARS = 256
# About 200 bytes each.
MAX_REMEMBERED = 1_000_000
# Letters in every version of Unicode, so that no regex engine sees them otherwise: Latin, Greek, Cyrillic, Hebrew,
# Arabic, Devanagari, kana, Chinese, Hangul.
_LETTER = (
    r"[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f\u03b1-\u03c9\u0410-\u044f\u05d0-\u05ea\u0621-\u063a\u0641-\u064a"
    r"\u0905-\u0939\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3]"
)
_FIRST_CUT = re.compile(f"{_LETTER}(?=[ \n])")
_LAST_CUT = re.compile(f".*{_LETTER}(?=[ \n])", re.DOTALL)


class Joined(str):
    """A text that remembers the pieces it was joined from: each is then counted once, in whatever text it stands."""

    separator: str
    pieces: tuple[str, ...]

    def __new__(cls, separator: str, pieces: Iterable[str]) -> "Joined":
        pieces = tuple(pieces)
        text = super().__new__(cls, separator.join(pieces))
        text.separator, text.pieces = separator, pieces
        return text

    def __getnewargs__(self) -> tuple[str, tuple[str, ...]]:  # type: ignore[override]
        return self.separator, self.pieces


class TokenCounter:
    """Counts texts and chats by one tokenizer, exactly. Fast where `fast_bpe.SPLITS` knows it, equal everywhere."""

    def __init__(self, tokenizer: Any, sample: Iterable[str]) -> None:
        """`sample` are texts of the corpus, on which fast encoding has to agree with the tokenizer's own."""
        self.tokenizer = tokenizer
        self.encode = load_encoder(tokenizer, sample)
        self._unfoldable = _unfoldable(tokenizer)
        self._remembered: dict[bytes, tuple[str, int]] = {}

    def count(self, text: str) -> int:
        """Return the tokens of a text alone, no special tokens around it."""
        folded, num_tokens = self._fold(text)
        return num_tokens + len(self.encode(folded))

    def count_chat(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Return the tokens of a whole chat, template included: the length of its `chat_ids`."""
        folded = [self._fold(message["content"]) for message in messages]
        short = [{**message, "content": text} for message, (text, _) in zip(messages, folded, strict=True)]
        if not self._are_copied(messages, short):
            return len(chat_ids(self.tokenizer, messages))
        return len(chat_ids(self.tokenizer, short)) + sum(num_tokens for _, num_tokens in folded)

    def _are_copied(self, messages: Sequence[Mapping[str, str]], short: Sequence[Mapping[str, str]]) -> bool:
        """Whether the template writes contents as they are, but for space around them: it could look into them."""
        left_out = sum(len(m["content"]) - len(s["content"]) for m, s in zip(messages, short, strict=True))
        if not left_out:
            return True
        whole, rest = (
            self.tokenizer.apply_chat_template(list(chat), tokenize=False, date_string=DATE)
            for chat in (messages, short)
        )
        return len(whole) - len(rest) == left_out and all(m["content"].strip() in whole for m in messages)

    def _fold(self, text: str) -> tuple[str, int]:
        """A shorter text, and the tokens that it has less than `text`, in whatever text the two stand."""
        if not isinstance(text, Joined):
            return self._fold_piece(text)
        folded = [self._fold_piece(piece) for piece in text.pieces]
        return text.separator.join(piece for piece, _ in folded), sum(num_tokens for _, num_tokens in folded)

    def _fold_piece(self, text: str) -> tuple[str, int]:
        if len(text) < SHORTEST_FOLDED_CHARS or self._unfoldable is None:
            return text, 0
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in self._remembered:
            if len(self._remembered) == MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = self._without_middle(text, self._unfoldable)
        return self._remembered[key]

    def _without_middle(self, text: str, unfoldable: re.Pattern[str]) -> tuple[str, int]:
        first, last = _FIRST_CUT.search(text), _LAST_CUT.match(text)
        if not first or not last or unfoldable.search(text):
            return text, 0
        return text[: first.end()] + text[last.end() :], len(self.encode(text[first.end() : last.end()]))


def _unfoldable(tokenizer: Any) -> re.Pattern[str] | None:
    """What must not stand in a text whose middle is left out: the added tokens. None if no text may be cut.

    In all of SPLITS no piece goes on from a letter to a space, whatever follows; none depends on what stands before it;
    and one that ends with a letter ends there before a space as before the end. So the tokens of both sides of such a
    border are those of the whole. NFC leaves the border alone, and no added token may lie across it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    parts = json.loads(backend.to_str())
    normalizer, added = parts["normalizer"], parts["added_tokens"]
    try:
        split_pattern(parts)
    except UnsupportedError:
        return None
    if normalizer not in (None, {"type": "NFC"}) or any(normalizer and token["normalized"] for token in added):
        return None
    if any(re.search(r"\s", token["content"]) for token in added):
        return None
    return re.compile("|".join(re.escape(token["content"]) for token in added) or r"(?!)")
