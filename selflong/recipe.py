"""Recipes: every choice that changes a result, as strict YAML read into frozen dataclasses.

A recipe directory holds `base.yaml` (only where the short-context model is trained by us), `synthesis.yaml`,
`train_*.yaml` and `control_*.yaml` (TRL's keys, and ours under `selflong:`; see `training/trl_recipe.py`) and
`evals.yaml`. A section of YAML, its dataclass here and the module that reads it share one name.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from selflong.errors import UserError
from selflong.strict import build, load_yaml

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


@dataclass(frozen=True)
class BaseTokenizer:
    """BPE trained on the corpus by `tokenizers`."""

    vocab_size: int


@dataclass(frozen=True)
class BaseModel:
    """A small `LlamaForCausalLM`."""

    context_length: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    rope_theta: float


@dataclass(frozen=True)
class BaseTraining:
    """Two phases: binding (until the several-needle answer loss falls), then the other short skills."""

    batch_size: int
    learning_rate: float
    warmup_steps: int
    stop_answer_loss: float
    stalled_answer_loss: float
    max_binding_steps: int
    skills_steps: int
    decay_steps: int
    max_restarts: int


@dataclass(frozen=True)
class Base:
    """`base.yaml`: the demo's short-context instruct model, because a fresh machine has no weights."""

    seed: int
    threads: int
    tokenizer: BaseTokenizer
    model: BaseModel
    training: BaseTraining


@dataclass(frozen=True)
class Needle:
    """The needle grid: context length x depth."""

    context_lengths: tuple[int, ...]
    depths_percent: tuple[float, ...]
    samples_per_cell: int
    max_new_tokens: int
    sentence: str
    question: str

    def __post_init__(self) -> None:
        for name, text, wanted in (
            ("sentence", self.sentence, ("{key}", "{value}")),
            ("question", self.question, ("{key}",)),
        ):
            if any(w not in text for w in wanted):
                raise ValueError(f"{name} lacks {' or '.join(wanted)}; write it into the text")


@dataclass(frozen=True)
class Ruler:
    """RULER tasks by name; lengths below a task's own minimum are refused."""

    tasks: tuple[str, ...]
    context_lengths: tuple[int, ...]
    num_samples: int


@dataclass(frozen=True)
class OutputLength:
    """Required against actual output length, in words."""

    required_words: tuple[int, ...]
    samples_per_length: int
    max_new_tokens: int
    prompt: str

    def __post_init__(self) -> None:
        if "{words}" not in self.prompt or "{topic}" not in self.prompt:
            raise ValueError("prompt lacks {words} or {topic}; write them into the text")


@dataclass(frozen=True)
class EvaluatedModel:
    """One model of the results table."""

    model: str
    """A model reference: `stage:…`, a folder or `id@revision`."""
    max_context_length: int
    """Longest needle length asked; longer cells are grey."""
    label: str
    role: Literal["base", "control", "stage", "final"]
    ruler: bool = False
    output_length: bool = False
    up_to: dict[int, str] = field(default_factory=dict)
    """Models asked instead of `model` at context lengths up to each key: for a control made anew for every length."""

    def at(self, context_length: int) -> str:
        """Reference of the model that is asked at this context length."""
        fitting = [length for length in self.up_to if context_length <= length]
        return self.up_to[min(fitting)] if fitting else self.model

    @property
    def references(self) -> tuple[str, ...]:
        """Every model that this entry may ask."""
        return (*self.up_to.values(), self.model)


@dataclass(frozen=True)
class Evals:
    """`evals.yaml`."""

    seed: int
    tokenizer: str
    threads: int
    tokens_per_batch: int
    needle: Needle
    models: dict[str, EvaluatedModel]
    ruler: Ruler | None = None
    output_length: OutputLength | None = None


@dataclass(frozen=True)
class Recipe:
    """A whole recipe directory. `stages` and `controls` map file stems to `TrainRecipe`s in file order."""

    directory: Path
    base: Base | None
    synthesis: Synthesis
    stages: dict[str, "TrainRecipe"]
    controls: dict[str, "TrainRecipe"]
    evals: Evals


@dataclass(frozen=True)
class DataShare:
    """Rows drawn from one dataset config. `dataset:<config>` is the recipe's own; `id:<config>@revision` the Hub's."""

    dataset: str
    share: float


@dataclass(frozen=True)
class Stage:
    """The `selflong:` mapping of a train recipe: what TRL has no key for."""

    context_length: int
    rope_theta: float
    tokens_per_step: int
    data: tuple[DataShare, ...]
    threads: int = 2

    def __post_init__(self) -> None:
        if self.data and abs(sum(d.share for d in self.data) - 1) > 1e-6:
            raise ValueError(f"the shares of data sum to {sum(d.share for d in self.data):g}; make them sum to 1")


@dataclass(frozen=True)
class TrainRecipe:
    """One `train_*.yaml` or `control_*.yaml`: `trl` are TRL's own keys, untouched."""

    path: Path
    stage: Stage
    trl: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def parent(self) -> str:
        """The model this stage starts from: a model reference."""
        return str(self.trl["model_name_or_path"])

    @property
    def max_steps(self) -> int:
        return int(self.trl["max_steps"])


def load_train_recipe(path: Path) -> TrainRecipe:
    """Read one train recipe. TRL's keys are checked here by name and again by TRL's own parser when training starts."""
    from selflong.training.trl_recipe import check_trl_keys

    content = load_yaml(path)
    if "selflong" not in content:
        raise UserError(path, "has no `selflong:` mapping", "add context_length, rope_theta, tokens_per_step and data")
    stage = build(Stage, content.pop("selflong"), f"{path}: selflong")
    check_trl_keys(content, path)
    return TrainRecipe(path, stage, content)


def load_recipe(directory: Path, seed: int | None = None) -> Recipe:
    """Read and check a whole recipe directory. `seed` overrides the seeds of base, synthesis and training."""
    from selflong.recipe_checks import check

    if not directory.is_dir():
        raise UserError(directory, "no such recipe directory", "give one such as recipes/demo")
    known = {"base", "synthesis", "evals"}
    stages: dict[str, TrainRecipe] = {}
    controls: dict[str, TrainRecipe] = {}
    for path in sorted(directory.glob("*.yaml")):
        if path.stem.startswith("train_"):
            stages[path.stem] = load_train_recipe(path)
        elif path.stem.startswith("control_"):
            controls[path.stem] = load_train_recipe(path)
        elif path.stem not in known:
            raise UserError(path, "is not a recipe file", "name it base, synthesis, evals, train_* or control_*")
    base_path = directory / "base.yaml"
    recipe = Recipe(
        directory=directory,
        base=build(Base, load_yaml(base_path), str(base_path)) if base_path.exists() else None,
        synthesis=build(Synthesis, load_yaml(directory / "synthesis.yaml"), f"{directory}/synthesis.yaml"),
        stages=stages,
        controls=controls,
        evals=build(Evals, load_yaml(directory / "evals.yaml"), f"{directory}/evals.yaml"),
    )
    if seed is not None:
        recipe = with_seed(recipe, seed)
    check(recipe)
    return recipe


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """Return the recipe with `seed` for base, synthesis and training; evaluation keeps its own: runs compare."""

    def reseeded(recipes: dict[str, TrainRecipe]) -> dict[str, TrainRecipe]:
        return {name: dataclasses.replace(r, trl={**r.trl, "seed": seed}) for name, r in recipes.items()}

    return dataclasses.replace(
        recipe,
        base=dataclasses.replace(recipe.base, seed=seed) if recipe.base else None,
        synthesis=dataclasses.replace(recipe.synthesis, seed=seed),
        stages=reseeded(recipe.stages),
        controls=reseeded(recipe.controls),
    )


def as_mapping(section: Any) -> Any:
    """Return a dataclass (or a mapping of them) as plain data, for fingerprints and the saved `recipe.yaml`."""
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        return {f.name: as_mapping(getattr(section, f.name)) for f in dataclasses.fields(section)}
    if isinstance(section, dict):
        return {k: as_mapping(v) for k, v in section.items()}
    if isinstance(section, list | tuple):
        return [as_mapping(v) for v in section]
    return str(section) if isinstance(section, Path) else section
