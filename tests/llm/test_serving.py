"""The compose file of recipes/serving: loopback only, no secret in it, images pinned, limits that the recipe needs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "recipes" / "serving" / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
GENERATOR = yaml.safe_load((ROOT / "recipes/llama3.2-1b/synthesis.yaml").read_text(encoding="utf-8"))["generator"]


def flag(service: dict[str, Any], name: str, default: int | None = None) -> int:
    found = [word for word in service["command"] if word.startswith(f"--{name}=")]
    if not found and default is not None:
        return default
    return int(found[0].split("=")[1])


def test_every_server_is_there_in_both_sizes() -> None:
    assert set(SERVICES) == {"vllm-8b", "vllm-70b", "tgi-8b", "tgi-70b"}
    assert all(service["profiles"] == [name] for name, service in SERVICES.items())


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_machine_can_reach_it(name: str) -> None:
    assert [port.split(":")[:2] for port in SERVICES[name]["ports"]] == [["127.0.0.1", "8000"]]
    assert "network_mode" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_the_token_comes_from_the_environment_and_the_image_is_pinned(name: str) -> None:
    assert SERVICES[name]["environment"] == ["HF_TOKEN"]  # a name without a value
    assert re.search(r":v?\d+\.\d+\.\d+$", SERVICES[name]["image"])
    text = COMPOSE.read_text(encoding="utf-8")
    assert not re.search(r"hf_[A-Za-z]{8,}|trust[-_]remote[-_]code|TOKEN\s*[=:]", text)


@pytest.mark.parametrize("name", SERVICES)
def test_it_serves_a_model_of_the_recipes_with_the_context_that_they_need(name: str) -> None:
    service, size = SERVICES[name], name.split("-")[1].upper()
    model = service["command"][0].removeprefix("--model-id=")
    assert model == f"meta-llama/Llama-3.1-{size}-Instruct"
    if size == "8B":
        assert model == GENERATOR["model"]
    limit = flag(service, "max-model-len" if name.startswith("vllm") else "max-total-tokens")
    assert limit >= GENERATOR["context_length"]
    if name.startswith("tgi"):
        longest_answer = max(value for key, value in GENERATOR.items() if key.startswith("max_"))
        assert limit > flag(service, "max-input-tokens") >= GENERATOR["context_length"] - longest_answer
        assert flag(service, "max-concurrent-requests") >= GENERATOR["calls_in_flight"]
    else:
        assert GENERATOR["calls_in_flight"] == 2 * flag(service, "max-num-seqs")


@pytest.mark.parametrize("name", SERVICES)
def test_the_model_is_split_over_all_the_gpus_that_are_reserved(name: str) -> None:
    service = SERVICES[name]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    parts = flag(service, "tensor-parallel-size" if name.startswith("vllm") else "num-shard", default=1)
    assert device["count"] == parts == (4 if name.endswith("70b") else 1)
