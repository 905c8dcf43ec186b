"""Text → words → hashed word n-grams: what the overlap gates, near-duplicates and decontamination compare.

A word is a run of letters, digits and combining marks in lower case; punctuation and layout do not count. Scripts that
write no spaces (Thai, Khmer, Chinese, Japanese, …) have no such runs, so there each character is a word.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Python's \w leaves these out: accents, Hebrew and Arabic points, vowel signs of India's scripts.
MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
WORD = re.compile(f"[^\\W_{UNSPACED}]++(?:[{MARKS}]++[^\\W_{UNSPACED}]*+)*+|[{UNSPACED}]")
ASCII_SEPARATORS_TO_SPACES = bytes(ord(" ") if not chr(byte).isalnum() else byte for byte in range(128)) + bytes(128)
# Odd, so that multiplying loses no bit: 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4).
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def split_words(text: str) -> list[str]:
    """Return the words of a text in order."""
    text = text.lower()
    if text.isascii():  # the same words in less than half the time
        return text.encode().translate(ASCII_SEPARATORS_TO_SPACES).decode().split()
    return WORD.findall(text)


def ngram_hashes(words: Sequence[str], num_words: int) -> Hashes:
    """Hash every run of `num_words` words, in order: the same on every machine and in every process.

    Empty if there are fewer words. Two runs that differ collide with a chance of 2^-32 at most.
    """
    if len(words) < num_words:
        return np.empty(0, dtype=np.uint64)
    hashes = np.fromiter(map(zlib.crc32, map(str.encode, words)), dtype=np.uint64, count=len(words))
    count = len(words) - num_words + 1
    runs = np.zeros(count, dtype=np.uint64)
    for offset in range(num_words):
        runs = (runs + hashes[offset : offset + count] + np.uint64(1)) * MULTIPLIER
        runs ^= runs >> np.uint64(29)
    return runs


def stand_in(hashes: Hashes, known: Hashes) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Say which `hashes` stand in the sorted, non-empty `known`, and at which position they stand or would stand."""
    positions = np.searchsorted(known, hashes)
    positions[positions == len(known)] = 0
    return known[positions] == hashes, positions
