"""recipes/llama3.2-1b end to end, in miniature: its own files and keys with lengths divided by 512, a random 2-layer
Llama of the same config class with its own chat template, and a loopback chat server as the generator.

The run is killed (kill -9) in the middle of synthesis and started again; everything else is asserted on its result.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from selflong.tokens import chat_ids
from tests.chat_server import ChatServer, Fault, Message
from tests.conftest import training_texts
from tests.tiny_llama import write_tiny_llama

RECIPE = Path(__file__).parents[1] / "recipes" / "llama3.2-1b"
SCALE = 512
STAGES = {"train_1_256k": (2e6, 512), "train_2_512k": (8e6, 1024), "train_3_1m": (3.2e7, 2048)}
LENGTHS = {"max_length", "context_length", "tokens_per_step", "target_length", "max_context_length", "tokens_per_batch"}
IN_FLIGHT = 8

# What does not shrink by 512, because wordings and templates keep their size, and what only costs time.
CHANGED: dict[str, Any] = {
    "corpus.min_document_chars": 60,
    "corpus.max_document_chars": 300,
    "corpus.heldout_percent": 10,
    "corpus.num_name_words": 60,
    "corpus.max_documents": 1200,
    "generator.context_length": 1024,
    "generator.max_instruction_tokens": 40,
    "generator.max_reading_tokens": 40,
    "generator.max_response_tokens": 40,
    "generator.samples_in_flight": IN_FLIGHT,
    "generator.calls_in_flight": IN_FLIGHT,
    "retrieval.candidates": 60,
    "reading.chunk_tokens": 96,
    "configs.long_input_256k.num_samples": 8,
    "configs.long_input_512k.num_samples": 6,
    "configs.long_input_1m.num_samples": 5,
    "configs.long_output.num_samples": 6,
    "configs.long_output.target_length": 192,
    "configs.short_8k.num_samples": 10,
    "configs.short_8k.target_length": 256,
    "max_steps": 2,
    "threads": 1,
    "needle.context_lengths": [128, 256, 512, 1024, 2048],
    "needle.depths_percent": [0, 50, 100],
    "needle.samples_per_cell": 1,
    "needle.max_new_tokens": 8,
    "ruler.tasks": ["niah_single_1", "vt"],
    "ruler.context_lengths": [1024, 2048],
    "ruler.num_samples": 1,
    "output_length.required_words": [8, 16],
    "output_length.samples_per_length": 1,
    "output_length.max_new_tokens": 16,
}


@dataclass(frozen=True)
class Miniature:
    """A finished run, and what the server saw before and after the kill."""

    out: Path
    base: Path
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    unanswered: int


def answer(messages: Sequence[Message]) -> str:
    """Play an instruct model: answer each of the generator's prompts from the prompt's own content."""
    prompt = messages[-1]["content"]
    if passage := between(prompt, "passage"):
        words = content_words(passage)
        if len(words) < 3:
            return "NOTHING"
        return f"Compare what is said on {words[0]} and {words[1]}, and explain {words[2]}."
    if document := between(prompt, "document"):
        asked = set(content_words(prompt[: prompt.index("<document>")]))
        told = [line for line in document.splitlines() if asked & set(content_words(line))]
        return " ".join(told[0].split()[:12]) if told else "NOTHING."
    if notes := between(prompt, "notes"):
        return "In short: " + " ".join(notes.split()[:10])
    if text := between(prompt, "text"):
        return "A manual on " + " and ".join(content_words(text)[:2])
    raise AssertionError(f"no prompt of ours: {prompt[:80]!r}")


def between(prompt: str, tag: str) -> str:
    """The text in the first <tag>…</tag>."""
    found = re.search(f"<{tag}>\n(.*?)\n?</{tag}>", prompt, re.DOTALL)
    return found[1] if found else ""


def content_words(text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"[a-z]{6,9}", text.lower())))


def shrink(value: Any, key: str, path: str) -> Any:
    """Divide every length by `SCALE`, except where `CHANGED` says otherwise."""
    if path in CHANGED:
        return CHANGED[path]
    if isinstance(value, dict):
        return {k: shrink(v, k, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list):
        return [shrink(v, key, path) for v in value]
    return max(1, value // SCALE) if key in LENGTHS else value


def write_miniature(folder: Path, base: Path, texts: Path) -> None:
    """Copy the recipe: same files, same keys, smaller numbers, local paths."""
    folder.mkdir()
    names = {
        "meta-llama/Llama-3.2-1B-Instruct@main": str(base),
        "hub:HuggingFaceFW/fineweb-edu@main": f"folder:{texts}",
    }
    for path in sorted(RECIPE.glob("*.yaml")):
        small = shrink(yaml.safe_load(path.read_text(encoding="utf-8")), "", "")
        if path.stem == "synthesis":
            small["generator"]["tokenizer"] = str(base)  # the server's own cannot be fetched offline
        text = yaml.safe_dump(small, sort_keys=False)
        for name, local in names.items():
            text = text.replace(name, local)
        (folder / path.name).write_text(text, encoding="utf-8")


def start(recipe: Path, out: Path, server: ChatServer) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "selflong.cli", "run", str(recipe), "--out", str(out)],
        env={**os.environ, "SELFLONG_BASE_URL": server.base_url, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Miniature]:
    """The whole arrow, killed after 80 calls and run again."""
    folder = tmp_path_factory.mktemp("miniature")
    base, texts, recipe, out = (folder / name for name in ("base", "texts", "recipe", "out"))
    texts.mkdir()
    for number, text in enumerate(training_texts()):
        (texts / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    write_tiny_llama(base, SCALE)
    write_miniature(recipe, base, texts)
    slow = Fault(delay_seconds=0.1)
    models = {"data": [{"id": "meta-llama/Llama-3.1-8B-Instruct", "max_model_len": 1024}]}
    with ChatServer(answer, fault=lambda number: slow if number < 400 else None, models=models) as server:
        run = start(recipe, out, server)
        while len(server.requests) < 80:
            assert run.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        time.sleep(0.5)
        before = list(server.requests)
        run = start(recipe, out, server)
        assert run.wait(800) == 0
        after = server.requests[len(before) :]
        unanswered = sum(request.answered is None for request in before)
        yield Miniature(out, base, [r.body for r in before], [r.body for r in after], unanswered)


def keys_of(content: Any, path: str = "") -> set[str]:
    if not isinstance(content, Mapping):
        return {path}
    return {key for name, value in content.items() for key in keys_of(value, f"{path}.{name}")}


def test_the_miniature_has_the_files_and_keys_of_the_recipe(tmp_path: Path) -> None:
    write_miniature(tmp_path / "recipe", tmp_path / "base", tmp_path / "texts")
    for path in RECIPE.glob("*.yaml"):
        ours, small = (yaml.safe_load(f.read_text(encoding="utf-8")) for f in (path, tmp_path / "recipe" / path.name))
        assert keys_of(small) - {".generator.tokenizer"} == keys_of(ours)


@pytest.mark.slow
def test_a_killed_run_pays_for_nothing_twice_but_what_was_in_flight(miniature: Miniature) -> None:
    asked = [json.dumps(body, sort_keys=True) for body in miniature.before]
    again = {json.dumps(body, sort_keys=True) for body in miniature.after}
    assert len(miniature.before) >= 80
    assert miniature.unanswered <= IN_FLIGHT
    # In flight when killed, or answered a moment before.
    assert len(again & set(asked)) <= 2 * IN_FLIGHT
    assert not (out_of_place := [p.name for p in miniature.out.iterdir() if p.name.endswith(".work")]), out_of_place


@pytest.mark.slow
def test_every_dataset_config_loads_and_keeps_its_target_length(miniature: Miniature, tmp_path: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(miniature.base)
    synthesis = yaml.safe_load((miniature.out.parent / "recipe" / "synthesis.yaml").read_text(encoding="utf-8"))
    for name, config in synthesis["configs"].items():
        rows = load_dataset(str(miniature.out / "dataset"), name, cache_dir=str(tmp_path))
        assert sum(map(len, rows.values())) == config["num_samples"]
        lengths = [len(chat_ids(tokenizer, row["prompt"] + row["completion"])) for row in rows["train"]]
        assert max(lengths) <= config["target_length"]
        if config["kind"] == "long_input":
            # Filled, but for the response budget of up to three questions and a last document that did not fit.
            assert min(lengths) > 0.5 * config["target_length"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_checkpoint_reloads_with_llama3_rope(miniature: Miniature, stage: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rope_theta, context_length = STAGES[stage]
    folder = miniature.out / "checkpoints" / stage
    model = AutoModelForCausalLM.from_pretrained(folder)
    rope = model.config.rope_parameters
    assert (rope["rope_type"], rope["rope_theta"], rope["factor"]) == ("llama3", rope_theta, 32.0)
    assert rope["original_max_position_embeddings"] == 16
    assert model.config.max_position_embeddings == context_length
    inv_freq = model.model.rotary_emb.inv_freq
    assert inv_freq.dtype == torch.float32
    torch.testing.assert_close(inv_freq, torch.tensor(llama3_inv_freq(rope_theta, 16)), rtol=1e-6, atol=0)
    parent = AutoModelForCausalLM.from_pretrained(miniature.base, dtype=torch.float32)
    assert not torch.equal(model.model.layers[1].mlp.up_proj.weight, parent.model.layers[1].mlp.up_proj.weight)
    ids = AutoTokenizer.from_pretrained(folder)("The class statement", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()


def llama3_inv_freq(rope_theta: float, head_dim: int) -> list[float]:
    """Frequencies of Llama 3.2's scaling: slow ones divided by 32, fast ones kept, a ramp between."""
    original = 8192 // SCALE
    frequencies = []
    for pair in range(0, head_dim, 2):
        frequency = rope_theta ** (-pair / head_dim)
        turns = original * frequency / (2 * math.pi)
        keep = min(1.0, max(0.0, (turns - 1.0) / (4.0 - 1.0)))
        frequencies.append(keep * frequency + (1 - keep) * frequency / 32.0)
    return frequencies


@pytest.mark.slow
def test_results_hold_every_model_and_task(miniature: Miniature) -> None:
    rows = json.loads((miniature.out / "results.json").read_text(encoding="utf-8"))["rows"]
    lengths = {m: {r["context_length"] for r in rows if (r["model"], r["task"]) == (m, "needle")} for m in STAGES}
    assert {m: max(found) for m, found in lengths.items()} == {m: length for m, (_, length) in STAGES.items()}
    assert {r["context_length"] for r in rows if r["model"] == "base" and r["task"] == "needle"} == {128, 256}
    tasks = {"needle", "ruler:niah_single_1", "ruler:vt", "output_length:8", "output_length:16"}
    assert {(r["model"], r["task"]) for r in rows} >= {("train_3_1m", task) for task in tasks}
    assert all(0 <= row["score"] <= 1 and row["num_samples"] >= 1 for row in rows)
