"""Rows made by several ranks, through datatrove's executors (extra `scale`): processes of this machine, or Slurm jobs.

Each rank owns every N-th block, so N ranks write the blocks that one would write. We add no engine: the executor starts
`make_rank` with a rank and the number of ranks, and skips ranks that are done.
"""

import importlib.util
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from selflong.errors import Submitted, UserError
from selflong.recipe_synthesis import Synthesis
from selflong.synthesis.rank import is_in_process, make_rank


@dataclass(frozen=True)
class Executor:
    """How the ranks run. `slurm` holds sbatch's own options; `partition` and `time` among them are required."""

    kind: Literal["local", "slurm"]
    num_ranks: int
    slurm: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MakeRank:
    """A step of a datatrove pipeline: makes the rows of one rank."""

    synthesis: Synthesis
    out: Path
    work: Path
    own_journal: bool

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        make_rank(self.synthesis, self.out, self.work, rank, world_size, own_journal=self.own_journal)


def check_executor(executor: Executor, synthesis: Synthesis) -> None:
    """Raise UserError for an executor that cannot run, before any box is built."""
    where = f"--executor {executor.kind}"
    if importlib.util.find_spec("datatrove") is None:
        raise UserError(where, "datatrove is not installed", "pip install 'selflong[scale]'")
    if is_in_process(synthesis.generator):
        raise UserError(
            where,
            f"the generator {synthesis.generator.model} runs in this process",
            "leave --executor away, or serve the generator (recipes/serving/README.md)",
        )
    if executor.num_ranks < 1:
        raise UserError("--tasks", f"{executor.num_ranks} is no number of ranks", "give 1 or more")
    missing = [key for key in ("partition", "time") if executor.kind == "slurm" and key not in executor.slurm]
    if missing:
        raise UserError("--sbatch", f"{' and '.join(missing)} missing", "add for example --sbatch time=24:00:00")


def run_ranks(executor: Executor, synthesis: Synthesis, out: Path, work: Path) -> None:
    """Make the rows by ranks. Raises Submitted once Slurm has taken the job."""
    step = MakeRank(synthesis, out.resolve(), work.resolve(), own_journal=executor.kind == "slurm")
    logs = work.resolve() / ".resume" / f"ranks-{executor.num_ranks}"
    if executor.kind == "local":
        from datatrove.executor import LocalPipelineExecutor

        # `spawn`: a child that starts from nothing holds none of this process's threads, loops or locks.
        LocalPipelineExecutor([step], executor.num_ranks, logging_dir=str(logs), start_method="spawn").run()
        return
    _slurm(executor, step, logs).run()
    raise Submitted(
        f"{executor.num_ranks} ranks are queued; when they have ended, `selflong synthesize` without --executor "
        "makes what is missing and assembles the dataset"
    )


def render_slurm_job(executor: Executor, synthesis: Synthesis) -> str:
    """Return the script that sbatch would get, without writing or starting anything."""
    with tempfile.TemporaryDirectory() as folder:
        job = _slurm(executor, MakeRank(synthesis, Path(), Path(), own_journal=True), Path(folder))
        command = f"srun -l -n 1 launch_pickled_pipeline {folder}/executor.pik"
        script = job.get_launch_file_contents(job.get_sbatch_args(executor.num_ranks), command)
        return str(script).replace(folder, f"<out>/dataset.work/.resume/ranks-{executor.num_ranks}")


def _slurm(executor: Executor, step: MakeRank, logs: Path) -> Any:
    from datatrove.executor import SlurmPipelineExecutor

    others = {key: value for key, value in executor.slurm.items() if key not in ("partition", "time")}
    return SlurmPipelineExecutor(
        [step],
        tasks=executor.num_ranks,
        time=executor.slurm["time"],
        partition=executor.slurm["partition"],
        job_name="selflong-synthesize",
        qos="",
        sbatch_args=others,
        logging_dir=str(logs),
        # srun must find the same Python and the same selflong.
        env_command=f"export PATH={Path(sys.executable).parent}:$PATH",
    )
