"""The one process in which lighteval runs: `python -m selflong.evals.child JOB.json`.

Importing lighteval takes seconds, sets global torch state and cannot be undone, so `evaluate.py` starts this child once
for all models. A job names the data folder and what is to do, each part one config with one model:
`{"data": DIR, "scratch": DIR, "threads": 2, "tokens_per_batch": 16384, "parts": [{"model": "base", "path": DIR,
"weights": SHA256, "config": "needle_256", "output": FILE}, ...]}`. Each finished part is one file of compact records,
written at once, so that a killed run goes on where it stopped.
"""

import contextlib
import itertools
import json
import logging
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selflong import manifest
from selflong.errors import UserError
from selflong.evals.tasks import DATA_VARIABLE, SUITE


def main(job_path: Path) -> None:
    """Run every part of the job, models in order, each loaded once."""
    job = json.loads(job_path.read_text(encoding="utf-8"))
    _end_with_parent()
    os.environ[DATA_VARIABLE] = job["data"]
    tasks = json.loads((Path(job["data"]) / "tasks.json").read_text(encoding="utf-8"))
    print("evaluation: loading lighteval", file=sys.stderr, flush=True)
    _quiet()
    _load_own_tasks_only()
    import torch

    torch.set_num_threads(job["threads"])
    num_tokens = {p["output"]: _part_tokens(job["data"], p["config"], tasks[p["config"]]) for p in job["parts"]}
    with tqdm(total=sum(num_tokens.values()), desc="evaluation", unit=" tokens", unit_scale=True) as bar:
        for weights, parts in itertools.groupby(job["parts"], key=lambda part: part["weights"]):
            _evaluate_model(weights, list(parts), job, tasks, bar)


def _evaluate_model(weights: str, parts: list[dict[str, Any]], job: dict[str, Any], tasks: Any, bar: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from selflong.evals.lighteval_run import run_config

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with _linked(parts[0]["path"], weights, Path(job["scratch"])) as link:
        model = AutoModelForCausalLM.from_pretrained(link, dtype="auto").to(device).eval()
        for part in parts:
            task = tasks[part["config"]]
            bar.set_postfix_str(f"{part['model']} {part['config']}")
            batch_size = max(1, job["tokens_per_batch"] // task["context_length"])
            records = run_config(model, link, f"{SUITE}:{part['config']}", task, batch_size, device, bar)
            lines = (json.dumps(record, ensure_ascii=False) for record in records)
            manifest.write_text(Path(part["output"]), "\n".join(lines) + "\n")


@contextlib.contextmanager
def _linked(path: str, weights: str, scratch: Path) -> Iterator[str]:
    """Work in `scratch`, where the relative name `model-<hash>` is the model.

    lighteval makes a folder of the model's name below its cache: a relative name keeps that folder out of the model's
    own, and one that names the weights keeps the predictions of two models apart.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    name, before = f"model-{weights[:16]}", Path.cwd()
    (scratch / name).symlink_to(Path(path).resolve(), target_is_directory=True)
    os.chdir(scratch)
    try:
        yield name
    finally:
        os.chdir(before)
        shutil.rmtree(scratch, ignore_errors=True)


def _load_own_tasks_only() -> None:
    """Keep lighteval's registry from importing every built-in task: one of them downloads a file when imported."""
    from lighteval.tasks.registry import Registry

    Registry._load_from_files = staticmethod(lambda *_: {})
    Registry._load_from_subdirs = staticmethod(lambda *_: {})


def _quiet() -> None:
    """Warnings about few-shot splits, batch sizes and the like say nothing here; errors still come through."""
    import datasets
    import transformers

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()


def _part_tokens(data: str, config: str, task: dict[str, Any]) -> int:
    import pyarrow.parquet as pq

    files = sorted((Path(data) / config).glob("test-*.parquet"))
    num_rows: int = sum(pq.read_metadata(file).num_rows for file in files)
    return num_rows * int(task["context_length"])


def _end_with_parent() -> None:
    """End when the parent is gone, however it ended: a rerun must not find an old child at work."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(str(error))
