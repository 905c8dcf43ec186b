"""`synthesis.yaml` as frozen dataclasses: one a section, each read by the module of `synthesis/` or `llm/` of its name.

Every choice that changes a row stands here; what only changes speed or cost is marked as such.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["long_input", "long_output", "short", "short_replay"]


@dataclass(frozen=True)
class Facts:
    """Synthetic facts put into documents, where the text holds nothing that the generator could be asked."""

    share_percent: int
    """Share of the documents that get one fact each."""

    def __post_init__(self) -> None:
        if not 0 < self.share_percent <= 100:
            raise ValueError(f"share_percent is {self.share_percent}; give 1 to 100")


@dataclass(frozen=True)
class Corpus:
    """The document collection: `python-docs` (this Python's own documentation), `folder:PATH` or `hub:ID@REVISION`."""

    source: str
    license: str
    min_document_chars: int
    max_document_chars: int
    heldout_percent: int
    num_name_words: int
    """Most frequent words kept to form needle keys; a fifth of them is held out for evaluation."""
    text_column: str = "text"
    max_documents: int | None = None
    facts: Facts | None = None

    def __post_init__(self) -> None:
        if self.source != "python-docs" and not self.source.startswith(("folder:", "hub:")):
            raise ValueError(f"source {self.source!r} is unknown; use python-docs, folder:PATH or hub:ID@REVISION")
        if not 0 < self.min_document_chars <= self.max_document_chars:
            raise ValueError("min_document_chars must be positive and at most max_document_chars; change one of them")
        if not 0 < self.heldout_percent < 100:
            raise ValueError("heldout_percent must lie between 0 and 100; evaluation needs documents of its own")


@dataclass(frozen=True)
class Generator:
    """The short-context model that writes instructions, reads and responds."""

    model: str
    """`stage:base` (in process), or the model name that a chat server at $SELFLONG_BASE_URL serves."""
    context_length: int
    prompts: Literal["toy", "instruct"]
    max_instruction_tokens: int
    max_reading_tokens: int
    max_response_tokens: int
    samples_in_flight: int
    threads: int = 2
    tokenizer: str | None = None
    """Where a chat server's tokenizer is found, if not under the model's own name."""


@dataclass(frozen=True)
class Retrieval:
    """bm25s over documents: `candidates` documents an instruction, from which the target length is filled.

    Words that stand in more than `max_document_percent` of the documents do not count: the wording that all
    instructions share would else bring the same few documents into every sample.
    """

    candidates: int
    max_document_percent: float = 100.0

    def __post_init__(self) -> None:
        if self.candidates < 1 or not 0 < self.max_document_percent <= 100:
            raise ValueError("candidates must be positive and max_document_percent 1 to 100; change them")


@dataclass(frozen=True)
class Reading:
    """Query-focused reading: every chunk of at most `chunk_tokens` (generator's tokenizer) is read."""

    chunk_tokens: int


@dataclass(frozen=True)
class Gates:
    """Which samples are dropped, beside those with no usable instruction, no finding or no response."""

    one_distinct_finding: bool
    """Drop a sample whose chunks give contradicting readings; for instructions that have one true answer."""
    max_instruction_attempts: int
    round_trip: bool = False
    """Believe a reading only if the generator, asked for an instruction about that chunk, writes the same one."""
    min_grounded_percent: int | None = None
    """Numbers and names of a reading that must stand in its chunk, and of a response in its findings."""
    max_copied_percent: int | None = None
    """Words of a response that may stand in one document in runs of eight."""
    max_similarity_percent: int | None = None
    """Three-word shingles that an instruction may share with an earlier one (Jaccard index) and both be kept."""
    decontaminate_words: int | None = None
    """Use no document and keep no sample that shares a run of this many words with an evaluation row; 13 is usual."""

    def __post_init__(self) -> None:
        for name in ("min_grounded_percent", "max_copied_percent", "max_similarity_percent"):
            percent = getattr(self, name)
            if percent is not None and not 0 < percent < 100:
                raise ValueError(f"{name} is {percent}; give 1 to 99, or leave it out")
        if self.decontaminate_words is not None and self.decontaminate_words < 5:
            what = f"decontaminate_words is {self.decontaminate_words}, which common phrases reach"
            raise ValueError(f"{what}; give 5 or more, or leave it out")


@dataclass(frozen=True)
class DatasetConfig:
    """One config of the dataset repository."""

    kind: Kind
    target_length: int
    """Tokens of prompt and response by the student's tokenizer and chat template: never exceeded."""
    num_samples: int
    num_questions: tuple[int, ...] = (1,)
    """An instruction asks this many questions, drawn uniformly, each written from its own random chunk."""

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.target_length < 1:
            raise ValueError("num_samples and target_length must be positive; change them")
        if not self.num_questions or min(self.num_questions) < 1:
            raise ValueError("num_questions needs at least one positive number; write for example [1]")


@dataclass(frozen=True)
class Shards:
    """Parquet shards of the dataset repository."""

    rows_per_shard: int
    validation_percent: int


@dataclass(frozen=True)
class Synthesis:
    """`synthesis.yaml`."""

    seed: int
    student: str
    """Whose tokenizer and chat template count `target_length`: a model reference."""
    corpus: Corpus
    generator: Generator
    retrieval: Retrieval
    reading: Reading
    gates: Gates
    configs: dict[str, DatasetConfig]
    shards: Shards
