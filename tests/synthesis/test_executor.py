"""Ranks through datatrove: what is refused before a box is built, and the Slurm job that a dry run shows."""

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selflong.errors import UserError
from selflong.recipe import load_recipe
from selflong.synthesis.executor import Executor, MakeRank, check_executor, render_slurm_job

RECIPES = Path(__file__).parents[2] / "recipes"
LLAMA = load_recipe(RECIPES / "llama3.2-1b").synthesis
SLURM = {"partition": "cpu", "time": "24:00:00"}


@pytest.mark.parametrize(
    ("executor", "said"),
    [
        (Executor("slurm", 4), "partition and time missing"),
        (Executor("slurm", 4, {"partition": "cpu"}), "time missing"),
        (Executor("local", 0), "0 is no number of ranks"),
    ],
)
def test_what_cannot_run_is_refused_before_any_box_is_built(executor: Executor, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_executor(executor, LLAMA)


def test_a_generator_in_this_process_has_no_ranks() -> None:
    demo = load_recipe(RECIPES / "demo").synthesis
    with pytest.raises(UserError, match="runs in this process"):
        check_executor(Executor("local", 4), demo)


def test_without_datatrove_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "datatrove" else find_spec(name))
    with pytest.raises(UserError, match=r"selflong\[scale\]"):
        check_executor(Executor("local", 4), LLAMA)


def test_the_slurm_job_has_every_rank_and_option() -> None:
    pytest.importorskip("datatrove")
    script = render_slurm_job(Executor("slurm", 64, {**SLURM, "account": "lab"}), LLAMA)
    lines = script.splitlines()
    assert {"#SBATCH --array=0-63", "#SBATCH --partition=cpu", "#SBATCH --time=24:00:00", "#SBATCH --account=lab"} <= (
        set(lines)
    )
    assert any("launch_pickled_pipeline" in line and "ranks-64" in line for line in lines)
    assert f"export PATH={Path(sys.executable).parent}:$PATH" in script


def test_a_rank_survives_the_pickle_that_slurm_gets() -> None:
    dill: Any = pytest.importorskip("dill")
    step = MakeRank(LLAMA, Path("/a"), Path("/b"), own_journal=True)
    assert dill.loads(dill.dumps(step)) == step and dataclasses.is_dataclass(step)


def test_a_dry_run_shows_the_job_and_writes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    command = [sys.executable, "-m", "selflong", "synthesize", str(RECIPES / "llama3.2-1b"), "--dry-run"]
    command += ["--out", str(tmp_path / "out"), "--executor", "slurm", "--tasks", "8"]
    done = subprocess.run(
        [*command, "--sbatch", "partition=cpu", "--sbatch", "time=24:00:00"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "#SBATCH --array=0-7" in done.stdout and "would be built" in done.stdout
    assert list(tmp_path.iterdir()) == []
    refused = subprocess.run([*command, "--sbatch", "partition"], check=False, capture_output=True, text=True)
    assert refused.returncode == 2 and "partition has no value; write KEY=VALUE" in refused.stderr
