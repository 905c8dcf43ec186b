"""A real `transformers serve` of a tiny random Llama answers our endpoint and the Hub's client alike."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from selflong.llm.endpoint import open_endpoint
from tests.llm.test_endpoint import HELLO, ask_and_close, free_port


@pytest.fixture
def transformers_serve(tiny_model_dir: Path) -> Iterator[str]:
    """The address of a real `transformers serve` of the tiny model."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(tiny_model_dir), "--device", "cpu"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(240):
            assert server.poll() is None, "transformers serve ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_a_real_server_answers_us_and_the_hubs_client_alike(
    transformers_serve: str, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import InferenceClient

    # The Hub's client refuses loopback calls, too, when told to stay offline.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("SELFLONG_BASE_URL", transformers_serve)
    ours = asyncio.run(ask_and_close(open_endpoint(str(tiny_model_dir), 1, 64)))
    client = InferenceClient(base_url=transformers_serve, api_key="-", timeout=60)
    theirs = client.chat_completion(HELLO, model=str(tiny_model_dir), max_tokens=5, temperature=0, seed=0)
    assert ours.text == theirs.choices[0].message.content
    assert (ours.prompt_tokens, ours.completion_tokens) == (theirs.usage.prompt_tokens, theirs.usage.completion_tokens)
    assert (ours.completion_tokens, ours.finish_reason) == (5, "length")
