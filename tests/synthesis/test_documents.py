"""Documents on disk: order, random access without loading, batches, another process."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selflong.records import Document
from selflong.synthesis import documents as documents_module
from selflong.synthesis.documents import Documents, DocumentWriter, read_documents, write_documents


def some_documents(count: int) -> list[Document]:
    return [Document(f"d{i}#0", f"text é\U0001f389\r\n{i}\n" * (i % 7), f"s{i // 3}", "CC0-1.0") for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25])
def test_documents_come_back_in_order_and_by_position(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_module, "BATCH_DOCUMENTS", 10)
    written = some_documents(count)
    assert write_documents(tmp_path / "documents.arrow", iter(written)) == count
    found = read_documents(tmp_path / "documents.arrow")
    assert list(found) == [found[i] for i in range(count)] == written
    assert len(found) == count
    assert found[1:-1] == written[1:-1]
    if count:
        assert found[-1] == found[np.int64(count - 1)] == written[-1]
    for outside in (count, -count - 1):
        with pytest.raises(IndexError):
            found[outside]


def test_a_batch_is_full_by_characters_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_module, "BATCH_CHARS", 100)
    write_documents(tmp_path / "d.arrow", (Document(str(i), "x" * 60, "s", "l") for i in range(5)))
    assert pa.ipc.open_file(str(tmp_path / "d.arrow")).num_record_batches == 3


def test_documents_are_pickled_by_their_path(tmp_path: Path) -> None:
    written = some_documents(2_000)
    write_documents(tmp_path / "d.arrow", written)
    pickled = pickle.dumps(read_documents(tmp_path / "d.arrow"))
    assert len(pickled) < 1_000
    again = pickle.loads(pickled)
    assert isinstance(again, Documents) and again[1_234] == written[1_234]


def test_the_parquet_files_hold_the_same_columns(tmp_path: Path) -> None:
    written = some_documents(30)
    with DocumentWriter(tmp_path / "passages.parquet") as writer:
        for document in written:
            writer.write(document)
    rows = pq.read_table(tmp_path / "passages.parquet").to_pylist()
    assert [Document(r["id"], r["text"], r["source"], r["license"]) for r in rows] == written


def test_a_failing_source_is_not_taken_for_a_short_one(tmp_path: Path) -> None:
    def failing() -> Iterator[Document]:
        yield from some_documents(3)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_documents(tmp_path / "d.arrow", failing())


OPEN_AND_PICK = """
import sys
from pathlib import Path
from selflong.synthesis.documents import read_documents

def peak_kib():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

before = peak_kib()
documents = read_documents(Path(sys.argv[1]))
picked = [documents[i].id for i in range(0, len(documents), 500)]
passed = sum(len(d.text) for d in documents)
print(len(picked), passed, peak_kib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_neither_picking_nor_a_whole_pass_loads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "d.arrow"
    text = "river stone " * 8_000
    write_documents(path, (Document(str(i), text, "s", "l") for i in range(2_000)))
    done = subprocess.run([sys.executable, "-c", OPEN_AND_PICK, str(path)], capture_output=True, text=True, check=True)
    picked, passed, grown_kib = map(int, done.stdout.split())
    assert (picked, passed) == (4, 2_000 * len(text))
    assert grown_kib * 1024 < path.stat().st_size / 2, "192 MB of documents were loaded"
