"""RoPE base: set before the model is built, equal after reload; the naive ways that do nothing are caught."""

from pathlib import Path

import pytest

from selflong.errors import UserError
from selflong.training.rope import check_saved_rope, extended_config


def build(folder: Path, theta: float, length: int) -> object:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, config=extended_config(str(folder), theta, length))


def test_base_and_length_survive_save_and_reload(tiny_model_dir: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = build(tiny_model_dir, 40_000.0, 256)
    model.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    check_saved_rope(tmp_path, model, 40_000.0)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.max_position_embeddings == 256
    expected = 1 / 40_000.0 ** (torch.arange(0, 16, 2).float() / 16)
    assert torch.allclose(again.model.rotary_emb.inv_freq, expected)
    assert again.model.rotary_emb.inv_freq.dtype == torch.float32


def test_editing_a_built_models_config_is_caught(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = build(tiny_model_dir, 10_000.0, 256)
    model.config.rope_parameters["rope_theta"] = 40_000.0  # type: ignore[attr-defined]
    model.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="not those the model was trained with"):
        check_saved_rope(tmp_path, model, 40_000.0)


def test_the_silent_no_op_is_caught(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = build(tiny_model_dir, 10_000.0, 256)
    model.config.rope_theta = 40_000.0  # type: ignore[attr-defined]
    model.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match=r"RoPE base 10000.0 on disk, 40000.0 wanted"):
        check_saved_rope(tmp_path, model, 40_000.0)


def test_a_model_cast_to_bfloat16_is_caught(tiny_model_dir: Path, tmp_path: Path) -> None:
    import torch

    model = build(tiny_model_dir, 40_000.0, 256)
    model.to(torch.bfloat16)  # type: ignore[attr-defined]
    model.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="float32"):
        check_saved_rope(tmp_path, model, 40_000.0)


def test_shrinking_is_refused(tiny_model_dir: Path) -> None:
    with pytest.raises(UserError, match="never lower it"):
        extended_config(str(tiny_model_dir), 5_000.0, 256)
    with pytest.raises(UserError, match="never shrinks"):
        extended_config(str(tiny_model_dir), 40_000.0, 64)


def test_llama3_scaling_keeps_its_original_length(tiny_model_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tiny_model_dir)
    config.rope_parameters = {
        "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    config.save_pretrained(tmp_path)
    extended = extended_config(str(tmp_path), 40_000.0, 512)
    assert extended.rope_parameters["rope_type"] == "llama3"
    assert extended.rope_parameters["original_max_position_embeddings"] == 32
