"""Exact duplicates of the corpus: texts that are equal once whitespace is collapsed.

Stands inside box 1. A digest a document goes to a file while the source is read; the file is sorted afterwards. That
needs about 40 bytes a document for a moment, where a Python set would keep 100 throughout.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

# 128 bits: among 10M documents the chance of one false duplicate is 10^-25.
DIGEST_BYTES = 16


def digest(text: str) -> bytes:
    """Return `DIGEST_BYTES` bytes that texts share if they differ in whitespace alone. Raises UnicodeEncodeError."""
    return hashlib.sha256(" ".join(text.split()).encode()).digest()[:DIGEST_BYTES]


def first_of_each(path: Path) -> npt.NDArray[np.bool_]:
    """Return, for a file of digests, which of them have no equal before them."""
    digests = np.fromfile(path, dtype="<u8").reshape(-1, 2)
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: among equals, the first in the file comes first
    repeats = np.ones(max(0, len(order) - 1), dtype=bool)
    for half in (0, 1):
        sorted_half = digests[order, half]
        repeats &= sorted_half[1:] == sorted_half[:-1]
    first = np.ones(len(order), dtype=bool)
    first[order[1:][repeats]] = False
    return first
