"""Initial weights that give a tiny model its look-back and matching heads, so that it learns to bind within minutes.

Part of the demo alone, and declared on its card. Three ideas: q = k and o = vᵀ in every layer (mimetic initialisation,
arXiv 2305.09828); three heads of the first layer start out attending 1, 2, 3 tokens back, by the phase of RoPE, and
write what they see into a subspace each; two heads of every later layer start out looking for a place whose tokens 2
(3) back equal their own 1 (2) back, which is where an answer to "… for KEY is" stands. Nothing is frozen; copying a
value, refusing, asking and everything else is learned. With one subspace shared by all three look-back heads, one seed
in three did not bind values to keys within 900 steps; with one each, three of three did after 255 to 280.

Legend: V vocabulary, D model dim, H head dim.
"""

from typing import Any

LOOK_BACK = (1, 2, 3)
MATCHES = ((0, 1), (1, 2))  # a later head's query reads what look-back head 0 (1) wrote, its key what head 1 (2) wrote
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
        written: list[Any] = []
        for index, layer in enumerate(model.model.layers):
            _mimetic_attention(layer.self_attn, randn)
            if index == 0:
                written = _look_back(layer.self_attn, model, constant, randn)
            else:
                _match(layer.self_attn, written)
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


def _mimetic_attention(attention: Any, randn: Any) -> None:
    """Set q = k and o = vᵀ from random orthogonal matrices."""
    import torch

    dim = attention.q_proj.weight.shape[1]
    query_key, value = torch.linalg.qr(randn(dim, dim))[0], torch.linalg.qr(randn(dim, dim))[0]
    attention.q_proj.weight.copy_(query_key)
    attention.k_proj.weight.copy_(query_key)
    attention.v_proj.weight.copy_(value * ATTENTION_SCALE**0.5)
    attention.o_proj.weight.copy_(value.T * ATTENTION_SCALE**0.5)


def _look_back(attention: Any, model: Any, constant: Any, randn: Any) -> list[Any]:
    """Make head h attend LOOK_BACK[h] tokens back and write into a subspace of its own; return the subspaces (D, H)."""
    import torch

    head_dim, dim = attention.head_dim, constant.shape[0]
    phases = model.model.rotary_emb.inv_freq
    phases = phases[: max(2, int((phases > SLOWEST_PHASE).sum()))]
    pairs = len(phases)
    # After RMSNorm the shared direction carries sqrt(D/2), since both halves of an embedding have equal norm.
    gain = (LOOK_BACK_LOGIT * head_dim**0.5 / ((1 - torch.cos(phases)).sum() * dim / 2)) ** 0.5
    # What is read of a token, without the direction that all tokens share: it would make all of them match.
    read = attention.v_proj.weight[:head_dim] - (attention.v_proj.weight[:head_dim] @ constant)[:, None] * constant
    directions = torch.linalg.qr(randn(dim, dim))[0]
    written = [directions[:, head * head_dim : (head + 1) * head_dim] for head in range(len(LOOK_BACK))]
    for head, offset in enumerate(LOOK_BACK):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        query, key = torch.zeros(head_dim, dim), torch.zeros(head_dim, dim)
        query[:pairs] = gain * constant
        key[:pairs] = gain * torch.cos(phases * offset)[:, None] * constant
        key[head_dim // 2 : head_dim // 2 + pairs] = gain * torch.sin(phases * offset)[:, None] * constant
        attention.q_proj.weight[rows] = query + 0.02 * randn(head_dim, dim)
        attention.k_proj.weight[rows] = key + 0.02 * randn(head_dim, dim)
        attention.v_proj.weight[rows] = read
        attention.o_proj.weight[:, rows] = written[head] * ATTENTION_SCALE**0.5
    return written


def _match(attention: Any, written: list[Any]) -> None:
    """Let the first heads compare what different look-back heads of the first layer wrote."""
    for head, (asked, found) in enumerate(MATCHES):
        rows = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
        attention.q_proj.weight[rows] = written[asked].T
        attention.k_proj.weight[rows] = written[found].T
