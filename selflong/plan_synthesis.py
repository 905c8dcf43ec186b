"""What the dataset box will take: calls and tokens of each step, rows, disk and memory. Arithmetic on the recipe alone.

In: a `Synthesis`. Out: a `SynthesisPlan`, which `selflong plan` prints (`plan_synthesis_text.py`) and the dataset's
manifest can set beside what the run took. Figures are for the samples that are kept: dropped ones come on top.
"""

import math
from dataclasses import dataclass

from selflong.plan_assumptions import NOTHING_TOKENS, RELEVANT_PERCENT, Expected, chars_per_token, expect
from selflong.recipe_synthesis import DatasetConfig, Synthesis

STEPS = ("instruction", "reading", "round trip", "response", "topic", "open prompt", "replay")
"""As the tally counts them."""

ZSTD_RATIO = 25.0 / 65.0
"""Parquet bytes a byte of text: 100 rows of 650 kB gave 25.0 MB with the writer's settings of `synthesis/shards.py`."""

INDEXING_BYTES_PER_CHAR, INDEX_BYTES_PER_CHAR = 9.0, 1.2
"""bm25s 0.3.16 on documents of 220 words, about 1,300 characters: 12 KB a document at the peak of indexing, 1.6 KB on
disk. It follows the words: 1,600 words a document took 6 times the memory and the disk of 220 (measured)."""


@dataclass(frozen=True)
class StepPlan:
    """The calls of one step."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    max_completion_tokens: int
    """If every reply ran to the step's limit."""

    def __add__(self, other: "StepPlan") -> "StepPlan":
        return StepPlan(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.max_completion_tokens + other.max_completion_tokens,
        )


@dataclass(frozen=True)
class RowPlan:
    """One mean row. Figures a question are for one that got an instruction; zero where nothing is read for it."""

    tokens: float
    """By the student's tokenizer."""
    documents: float = 1.0
    chunks: float = 0.0
    findings: float = 0.0
    """Chunks that say something about a question."""
    rereadings: tuple[tuple[int, float], ...] = ()
    """Pieces and tokens a piece of each further round, in which findings beyond the generator's context are read."""
    findings_tokens: float = 0.0
    """What the response is written from."""


@dataclass(frozen=True)
class ConfigPlan:
    """One config of the dataset."""

    row: RowPlan
    steps: dict[str, StepPlan]
    parquet_bytes: int


@dataclass(frozen=True)
class CorpusPlan:
    """Documents and their index; None where `corpus.max_documents` is not set."""

    document_chars: float
    documents: int | None
    shard_documents: int
    disk_bytes: int | None
    index_bytes: int | None
    indexing_bytes: int | None
    """Memory at the peak of indexing one shard."""


@dataclass(frozen=True)
class SynthesisPlan:
    """What corpus and dataset will take."""

    configs: dict[str, ConfigPlan]
    corpus: CorpusPlan

    @property
    def totals(self) -> dict[str, StepPlan]:
        """Each step's calls over all configs, in the workflow's order."""
        nothing = StepPlan(0, 0, 0, 0)
        plans = self.configs.values()
        return {step: sum((plan.steps.get(step, nothing) for plan in plans), nothing) for step in STEPS}

    @property
    def parquet_bytes(self) -> int:
        return sum(plan.parquet_bytes for plan in self.configs.values())

    def as_facts(self) -> dict[str, object]:
        """Return the totals by step, in the form in which a manifest records the actual ones."""
        totals = self.totals
        names = ("calls", "prompt_tokens", "completion_tokens", "max_completion_tokens")
        by_step = {name: {step: getattr(plan, name) for step, plan in totals.items()} for name in names}
        return {**by_step, "parquet_bytes": self.parquet_bytes}


def plan_synthesis(synthesis: Synthesis) -> SynthesisPlan:
    """Return what a recipe will take, under the assumptions of `plan_assumptions.py`. Same recipe, same plan."""
    expected = expect(synthesis)
    configs = {}
    for name, config in synthesis.configs.items():
        row = _row(synthesis, config, expected)
        text = config.num_samples * row.tokens * chars_per_token(synthesis.student)
        configs[name] = ConfigPlan(row, _steps(synthesis, config, row, expected), round(text * ZSTD_RATIO))
    return SynthesisPlan(configs, _corpus(synthesis, expected))


def mean_questions(config: DatasetConfig) -> float:
    """Questions a sample."""
    return sum(config.num_questions) / len(config.num_questions)


def mean_target_length(config: DatasetConfig) -> float:
    """Mean of the lengths that rows draw, log-uniformly."""
    shortest, longest = config.shortest_target_length, config.target_length
    return (longest - shortest) / math.log(longest / shortest) if shortest < longest else longest


def _row(synthesis: Synthesis, config: DatasetConfig, expected: Expected) -> RowPlan:
    """The mean row of a config."""
    document, target = expected.document_student_tokens, mean_target_length(config)
    if config.kind == "short_replay":
        open_prompt = config.skills.get("open prompt", 0.0) / sum(config.skills.values())
        about_a_chunk = expected.chunk_tokens + expected.instruction_tokens + expected.wording_tokens
        alone = expected.instruction_tokens + expected.response_tokens
        return RowPlan(min(target, open_prompt * alone + (1 - open_prompt) * about_a_chunk))
    if config.kind == "long_output":  # between half of its target length and the whole
        return RowPlan(0.75 * target, max(1.0, 0.75 * target / document))
    # The whole length is filled and read; what instructions and responses need is taken away afterwards.
    documents = max(1.0, target / document)
    chunks = documents * expected.chunks_per_document
    # Where a question has one true answer, one document holds it; a sample without any finding is dropped.
    relevant = 0.0 if synthesis.gates.one_distinct_finding else chunks * RELEVANT_PERCENT / 100
    findings = max(1.0, relevant)
    rereadings, findings_tokens = _reread(synthesis, findings * expected.finding_tokens, expected)
    return RowPlan(target, documents, chunks, findings, rereadings, findings_tokens)


def _reread(
    synthesis: Synthesis, findings_tokens: float, expected: Expected
) -> tuple[tuple[tuple[int, float], ...], float]:
    """Read findings again, chunk by chunk, until they fit one call; each round at least halves them.

    Returns each round's pieces and tokens a piece, and the tokens of the findings that are left.
    """
    generator, rounds = synthesis.generator, []
    taken = generator.max_response_tokens + expected.wording_tokens + expected.instruction_tokens
    while findings_tokens > max(1.0, generator.context_length - taken):
        pieces = math.ceil(findings_tokens / synthesis.reading.chunk_tokens)
        rounds.append((pieces, findings_tokens / pieces))
        findings_tokens = min(pieces * expected.finding_tokens, findings_tokens / 2)
    return tuple(rounds), findings_tokens


def _steps(synthesis: Synthesis, config: DatasetConfig, row: RowPlan, expected: Expected) -> dict[str, StepPlan]:
    if config.kind == "long_output":
        opening = min(synthesis.reading.chunk_tokens, row.tokens)  # joined documents are cut as one text
        return {"topic": _topics(synthesis, config.num_samples, opening, expected)}
    if config.kind == "short_replay":
        return _short_replay_steps(synthesis, config, expected)
    questions = config.num_samples * mean_questions(config)
    asked = questions * expected.asked_share
    reading = _readings(synthesis, asked * (row.chunks - row.findings), asked * row.findings, expected)
    for pieces, piece_tokens in row.rereadings:
        reading += _readings(synthesis, 0, asked * pieces, expected, piece_tokens)
    steps = {"instruction": _instructions(synthesis, questions, expected), "reading": reading}
    if synthesis.gates.round_trip:
        steps["round trip"] = _asking(synthesis, asked * row.findings, asked * row.findings, expected)
    shown = row.findings_tokens + expected.instruction_tokens
    return {**steps, "response": _replies(synthesis, asked, shown, expected)}


def _short_replay_steps(synthesis: Synthesis, config: DatasetConfig, expected: Expected) -> dict[str, StepPlan]:
    whole = sum(config.skills.values())
    samples = {skill: config.num_samples * share / whole for skill, share in config.skills.items()}
    own, another = samples.get("reading", 0.0), samples.get("reading another", 0.0)
    alone, prompts = samples.get("instruction", 0.0), samples.get("open prompt", 0.0)
    steps = {
        "instruction": _asking(synthesis, alone, alone, expected) + _instructions(synthesis, own + another, expected),
        "reading": _readings(synthesis, another * expected.asked_share, own * expected.asked_share, expected),
        "topic": _topics(synthesis, samples.get("topic", 0.0), expected.chunk_tokens, expected),
        "open prompt": _asking(synthesis, prompts, prompts, expected),
        "replay": _replies(synthesis, prompts, expected.instruction_tokens, expected),
    }
    return {step: took for step, took in steps.items() if took.calls}


def _instructions(synthesis: Synthesis, questions: float, expected: Expected) -> StepPlan:
    """Calls until each question has its instruction or no attempt is left."""
    return _asking(synthesis, questions * expected.attempts, questions * expected.asked_share, expected)


def _asking(synthesis: Synthesis, calls: float, usable: float, expected: Expected) -> StepPlan:
    """Calls that show a chunk and want an instruction; those without a usable one say that there is nothing."""
    replies = usable * expected.instruction_tokens + (calls - usable) * NOTHING_TOKENS
    prompt = expected.chunk_tokens + expected.wording_tokens
    return _step(synthesis, calls, prompt, replies, synthesis.generator.max_instruction_tokens)


def _readings(
    synthesis: Synthesis, irrelevant: float, relevant: float, expected: Expected, piece_tokens: float | None = None
) -> StepPlan:
    """Calls that show an instruction and a chunk, or a piece of the findings."""
    shown = expected.chunk_tokens if piece_tokens is None else piece_tokens
    prompt = shown + expected.instruction_tokens + expected.wording_tokens
    replies = irrelevant * NOTHING_TOKENS + relevant * expected.finding_tokens
    return _step(synthesis, irrelevant + relevant, prompt, replies, synthesis.generator.max_reading_tokens)


def _replies(synthesis: Synthesis, calls: float, shown_tokens: float, expected: Expected) -> StepPlan:
    """Calls that want a response."""
    prompt, replies = shown_tokens + expected.wording_tokens, calls * expected.response_tokens
    return _step(synthesis, calls, prompt, replies, synthesis.generator.max_response_tokens)


def _topics(synthesis: Synthesis, calls: float, shown_tokens: float, expected: Expected) -> StepPlan:
    prompt, replies = shown_tokens + expected.wording_tokens, calls * expected.instruction_tokens
    return _step(synthesis, calls, prompt, replies, synthesis.generator.max_instruction_tokens)


def _step(synthesis: Synthesis, calls: float, prompt_tokens: float, replies: float, limit: int) -> StepPlan:
    """Round; no prompt is longer than the generator's context leaves beside the reply."""
    prompt_tokens = min(prompt_tokens, synthesis.generator.context_length - limit)
    return StepPlan(round(calls), round(calls * prompt_tokens), round(replies), round(calls * limit))


def _corpus(synthesis: Synthesis, expected: Expected) -> CorpusPlan:
    documents = synthesis.corpus.max_documents
    if documents is None:
        return CorpusPlan(expected.document_chars, None, synthesis.retrieval.shard_documents, None, None, None)
    heldout = synthesis.corpus.heldout_percent / 100
    text = documents * expected.document_chars
    indexed = text * (1 - heldout)
    shards = math.ceil(documents * (1 - heldout) / synthesis.retrieval.shard_documents)
    return CorpusPlan(
        document_chars=expected.document_chars,
        documents=documents,
        shard_documents=synthesis.retrieval.shard_documents,
        # documents.arrow as it is, for random access; passages.parquet and heldout.parquet compressed.
        disk_bytes=round(indexed + text * ZSTD_RATIO),
        index_bytes=round(indexed * INDEX_BYTES_PER_CHAR),
        indexing_bytes=round(indexed / shards * INDEXING_BYTES_PER_CHAR),
    )
