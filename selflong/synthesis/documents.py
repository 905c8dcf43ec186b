"""Documents on disk: `corpus/documents.arrow`, which synthesis reads by position without loading it into memory.

Arrow's IPC file format, uncompressed, so that a memory map of it is the table: ten million documents open in a second
and cost the pages that are read. `passages.parquet` and `heldout.parquet` have the same columns.
"""

import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq

from selflong.records import Document

SCHEMA = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("license", pa.string()), ("text", pa.large_string())]
)
# A batch is what a writer or an iteration holds in memory: full at either bound. Batches of fewer rows would make the
# file's own directory, which opening reads, grow: 4,096 rows are 2,442 batches for ten million documents.
BATCH_DOCUMENTS = 4_096
BATCH_CHARS = 16_777_216


class DocumentWriter:
    """Writes documents one by one, holding one batch: Arrow IPC, or Parquet if the name ends in `.parquet`."""

    def __init__(self, path: Path) -> None:
        if path.suffix == ".parquet":
            # Texts do not repeat: a dictionary of them is built only to be thrown away.
            self._file: Any = pq.ParquetWriter(
                path, SCHEMA, compression="zstd", use_dictionary=["id", "source", "license"]
            )
        else:
            self._file = pa.ipc.new_file(str(path), SCHEMA)
        self._batch: list[Document] = []
        self._batch_chars = 0
        self.num_documents = 0

    def write(self, document: Document) -> None:
        """Append one document."""
        self._batch.append(document)
        self._batch_chars += len(document.text)
        self.num_documents += 1
        if len(self._batch) == BATCH_DOCUMENTS or self._batch_chars >= BATCH_CHARS:
            self._flush()

    def _flush(self) -> None:
        columns = [pa.array([getattr(d, f.name) for d in self._batch], f.type) for f in SCHEMA]
        self._file.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        self._batch, self._batch_chars = [], 0

    def __enter__(self) -> "DocumentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._batch:
            self._flush()
        self._file.close()


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write documents in their order, one batch in memory at a time; return how many they were."""
    with DocumentWriter(path) as writer:
        for document in documents:
            writer.write(document)
    return writer.num_documents


class Documents(Sequence[Document]):
    """A file of documents as a sequence. Memory-mapped: any position in microseconds, nothing loaded beforehand.

    Pickled by its path, so another process opens the same file again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._columns = [table[name] for name in ("id", "text", "source", "license")]

    def __len__(self) -> int:
        return len(self._columns[0])

    @overload
    def __getitem__(self, position: int) -> Document: ...

    @overload
    def __getitem__(self, position: slice) -> list[Document]: ...

    def __getitem__(self, position: int | slice) -> Document | list[Document]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        index = operator.index(position)  # numpy's integers too
        return Document(*(column[index].as_py() for column in self._columns))

    def __iter__(self) -> Iterator[Document]:
        # Ordinary reads, batch by batch: a pass through the memory map would leave the whole file in resident memory.
        with pa.OSFile(str(self.path)) as file:
            batches = pa.ipc.open_file(file)
            for number in range(batches.num_record_batches):
                batch = batches.get_batch(number)
                columns = (batch[name].to_pylist() for name in ("id", "text", "source", "license"))
                yield from map(Document, *columns)

    def __reduce__(self) -> tuple[type["Documents"], tuple[Path]]:
        return Documents, (self.path,)


def read_documents(path: Path) -> Documents:
    """Open what `write_documents` wrote as Arrow."""
    return Documents(path)
