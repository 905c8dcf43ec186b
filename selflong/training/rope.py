"""RoPE base of a stage: set in `rope_parameters` before the model is built, asserted after reload.

In transformers 5 a config's `rope_theta` attribute is a silent no-op, and editing a built model's config takes effect
only after save and reload: trained with one base, served with another.
"""

from pathlib import Path
from typing import Any

from selflong.errors import UserError


def extended_config(parent: str, rope_theta: float, context_length: int) -> Any:
    """The parent's config with a new RoPE base and context length; every other RoPE parameter is kept.

    Raises UserError if the base or the context length would shrink.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(parent)
    rope = dict(config.rope_parameters)
    if rope_theta < rope["rope_theta"]:
        raise UserError(parent, f"has RoPE base {rope['rope_theta']:g}, the stage {rope_theta:g}", "never lower it")
    if context_length < config.max_position_embeddings:
        raise UserError(
            parent,
            f"supports {config.max_position_embeddings} tokens, the stage {context_length}",
            "a stage never shrinks the context length",
        )
    if rope.get("rope_type") == "llama3":
        # Absent, it would default to max_position_embeddings, which is wrong once that is raised.
        rope.setdefault("original_max_position_embeddings", config.max_position_embeddings)
    rope["rope_theta"] = float(rope_theta)
    config.rope_parameters = rope
    config.max_position_embeddings = context_length
    return config


def check_saved_rope(folder: Path, trained: Any, rope_theta: float) -> None:
    """Assert that the checkpoint on disk has the stage's RoPE base and the frequencies the model was trained with."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    if config.rope_parameters["rope_theta"] != float(rope_theta):
        raise AssertionError(f"{folder}: RoPE base {config.rope_parameters['rope_theta']} on disk, {rope_theta} wanted")
    on_disk = type(trained.model.rotary_emb)(config).inv_freq
    in_use = trained.model.rotary_emb.inv_freq.cpu()
    if in_use.dtype != torch.float32:
        raise AssertionError(f"inv_freq is {in_use.dtype}; positions need float32 (was the model cast by .to()?)")
    if not torch.equal(on_disk, in_use):
        raise AssertionError(f"{folder}: the frequencies on disk are not those the model was trained with")
