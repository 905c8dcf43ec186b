"""A real `transformers serve` of a tiny random Llama answers our endpoint and the Hub's client alike."""

import asyncio
from pathlib import Path

import pytest

from selflong.llm.endpoint import open_endpoint
from tests.llm.test_endpoint import HELLO, ask_and_close
from tests.transformers_serve import transformers_serve


@pytest.mark.slow
def test_a_real_server_answers_us_and_the_hubs_client_alike(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import InferenceClient

    # The Hub's client refuses loopback calls, too, when told to stay offline.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with transformers_serve(tiny_model_dir) as url:
        monkeypatch.setenv("SELFLONG_BASE_URL", url)
        ours = asyncio.run(ask_and_close(open_endpoint(str(tiny_model_dir), 1, 64)))
        client = InferenceClient(base_url=url, api_key="-", timeout=60)
        theirs = client.chat_completion(HELLO, model=str(tiny_model_dir), max_tokens=5, temperature=0, seed=0)
    assert ours.text == theirs.choices[0].message.content
    assert (ours.prompt_tokens, ours.completion_tokens) == (theirs.usage.prompt_tokens, theirs.usage.completion_tokens)
    assert (ours.completion_tokens, ours.finish_reason) == (5, "length")
