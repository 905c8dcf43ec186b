"""recipes/llama3.2-1b: it loads, TRL and accelerate take it, and its stages differ only by the step."""

import difflib
from pathlib import Path
from typing import Any

import pytest

from selflong.recipe import Recipe, load_recipe
from selflong.training.trl_recipe import parse_with_trl

RECIPES = Path(__file__).parents[1] / "recipes"
LLAMA = RECIPES / "llama3.2-1b"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(LLAMA)


def test_each_stage_doubles_the_length_and_quadruples_the_base(recipe: Recipe) -> None:
    context_length, rope_theta, parent = 131_072, 5e5, "meta-llama/Llama-3.2-1B-Instruct@main"
    assert len(recipe.stages) == 3
    for name, train in recipe.stages.items():
        assert train.stage.context_length == train.trl["max_length"] == 2 * context_length
        assert train.stage.rope_theta == 4 * rope_theta
        assert train.parent == parent
        context_length, rope_theta, parent = train.stage.context_length, train.stage.rope_theta, f"stage:{name}"
    assert context_length == 2**20


@pytest.mark.parametrize(("older", "newer"), [("train_1_256k", "train_2_512k"), ("train_2_512k", "train_3_1m")])
def test_a_diff_of_two_stages_shows_only_the_step(older: str, newer: str) -> None:
    texts = [(LLAMA / f"{name}.yaml").read_text(encoding="utf-8").splitlines() for name in (older, newer)]
    changed = [line[1:].strip() for line in difflib.unified_diff(*texts, n=0, lineterm="") if line[0] in "+-"][2:]
    keys = {line.removeprefix("- {").partition(":")[0] for line in changed}
    step = {"model_name_or_path", "max_length", "context_length", "rope_theta", "dataset"}
    assert step <= keys <= step | {"learning_rate"}


def test_trl_takes_every_stage(recipe: Recipe, tmp_path: Path) -> None:
    for train in recipe.stages.values():
        sft_config, model_config = parse_with_trl(train, tmp_path)
        assert sft_config.max_length == train.stage.context_length
        assert sft_config.get_warmup_steps(sft_config.max_steps) == 5
        assert model_config.attn_implementation == "sdpa"


def test_the_dataset_holds_enough_rows_for_every_stage(recipe: Recipe) -> None:
    for train in recipe.stages.values():
        for share in train.stage.data:
            config = recipe.synthesis.configs[share.dataset.removeprefix("dataset:")]
            if config.kind == "long_input":
                needed = share.share * train.max_steps * train.stage.tokens_per_step / config.target_length
                assert config.num_samples * (1 - recipe.synthesis.shards.validation_percent / 100) >= needed


def test_ruler_tasks_are_built_here(recipe: Recipe) -> None:
    from selflong.evals.ruler import check_task

    assert recipe.evals.ruler
    for task in recipe.evals.ruler.tasks:
        check_task(task)


@pytest.mark.parametrize(("name", "num_processes"), [("single_gpu", 1), ("fsdp2_cp8", 8)])
def test_accelerate_takes_the_hardware_files(name: str, num_processes: int) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config: Any = load_config_from_file(str(RECIPES / "accelerate" / f"{name}.yaml"))
    assert config.num_processes == num_processes
    assert config.mixed_precision is None, "precision is the train recipe's"
    parallel = config.parallelism_config
    assert parallel.get("parallelism_config_cp_size", 1) * parallel.get("parallelism_config_dp_shard_size", 1) == (
        num_processes
    )
