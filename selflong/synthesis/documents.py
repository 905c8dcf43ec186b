"""STUB until merge."""

from selflong.synthesis.corpus import read_documents as _r


def read_documents(path):
    return _r(path.with_suffix(".parquet"))
