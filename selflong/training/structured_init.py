"""Initial weights that give a tiny model its look-back heads, so that it learns short skills within minutes on a CPU.

Part of the demo alone, and declared on its card. Three ideas: q = k and o = vᵀ in every layer (mimetic
initialisation, arXiv 2305.09828); heads of the first layer that start out attending 1, 2, 3 tokens back, by the phase
of RoPE, all writing into one shared value subspace; one head of every later layer that compares in that subspace.
Nothing is frozen. Legend: V vocabulary, D model dim, H head dim.
"""

from typing import Any

LOOK_BACK = (1, 2, 3)
ATTENTION_SCALE = 1.5  # strength of v·o at the start
LOOK_BACK_LOGIT = 5.0  # how sharply a look-back head prefers its offset
SLOWEST_PHASE = 0.02  # radians a token; slower RoPE pairs cannot tell neighbours apart


def initialize(model: Any, seed: int) -> None:
    """Overwrite the weights of a fresh `LlamaForCausalLM` with tied embeddings, in place."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    with torch.no_grad():
        constant = _embed(model, randn)
        shared: Any = None
        for index, layer in enumerate(model.model.layers):
            own = _mimetic_attention(layer.self_attn, randn)
            if index == 0:
                shared = own
                _look_back(layer.self_attn, model, constant, randn)
            else:
                head_dim = shared.shape[0]
                layer.self_attn.q_proj.weight[:head_dim] = shared
                layer.self_attn.k_proj.weight[:head_dim] = shared
            for projection in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj):
                weight = projection.weight
                weight.copy_(randn(*weight.shape) * 0.5 * weight.shape[1] ** -0.5)


def _embed(model: Any, randn: Any) -> Any:
    """Random embeddings (V, D) plus one direction (D,) that all tokens share; return that direction."""
    weight = model.model.embed_tokens.weight
    dim = weight.shape[1]
    constant = randn(dim)
    constant /= constant.norm()
    spread = randn(*weight.shape) * 0.5 * dim**-0.5
    weight.copy_(spread - (spread @ constant)[:, None] * constant + 0.5 * constant)
    return constant


def _mimetic_attention(attention: Any, randn: Any) -> Any:
    """Set q = k and o = vᵀ from random orthogonal matrices; return the rows (H, D) of v's first head, unscaled."""
    import torch

    dim = attention.q_proj.weight.shape[1]
    query_key, value = torch.linalg.qr(randn(dim, dim))[0], torch.linalg.qr(randn(dim, dim))[0]
    attention.q_proj.weight.copy_(query_key)
    attention.k_proj.weight.copy_(query_key)
    attention.v_proj.weight.copy_(value * ATTENTION_SCALE**0.5)
    attention.o_proj.weight.copy_(value.T * ATTENTION_SCALE**0.5)
    return value[: attention.head_dim].clone()


def _look_back(attention: Any, model: Any, constant: Any, randn: Any) -> None:
    """Make head h of the first layer attend LOOK_BACK[h] tokens back and share head 0's value and output subspace."""
    import torch

    head_dim, dim = attention.head_dim, constant.shape[0]
    phases = model.model.rotary_emb.inv_freq
    phases = phases[: max(2, int((phases > SLOWEST_PHASE).sum()))]
    pairs = len(phases)
    # After RMSNorm the shared direction carries sqrt(D/2), since both halves of an embedding have equal norm.
    gain = (LOOK_BACK_LOGIT * head_dim**0.5 / ((1 - torch.cos(phases)).sum() * dim / 2)) ** 0.5
    for head, offset in enumerate(LOOK_BACK):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        query, key = torch.zeros(head_dim, dim), torch.zeros(head_dim, dim)
        query[:pairs] = gain * constant
        key[:pairs] = gain * torch.cos(phases * offset)[:, None] * constant
        key[head_dim // 2 : head_dim // 2 + pairs] = gain * torch.sin(phases * offset)[:, None] * constant
        attention.q_proj.weight[rows] = query + 0.02 * randn(head_dim, dim)
        attention.k_proj.weight[rows] = key + 0.02 * randn(head_dim, dim)
        attention.v_proj.weight[rows] = attention.v_proj.weight[:head_dim]
        attention.o_proj.weight[:, rows] = attention.o_proj.weight[:, :head_dim]
