"""What a Llama costs to train: parameters, FLOPs and memory from its dimensions, by arithmetic alone (no torch).

Used by `plan.py`. Legend: L layers, D hidden size, H heads, hd head size, KV key and value heads, I MLP width,
V vocabulary, S tokens of a row.
"""

from dataclasses import dataclass

from selflong.recipe import BaseModel, BaseTokenizer


@dataclass(frozen=True)
class Dimensions:
    """The shape of a `LlamaForCausalLM`."""

    num_layers: int
    hidden_size: int
    num_heads: int
    head_size: int
    num_kv_heads: int
    intermediate_size: int
    vocab_size: int
    tied_embeddings: bool

    @property
    def num_parameters(self) -> int:
        """Embeddings (twice unless tied), L layers of attention, MLP and two norms, and the last norm."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        norms = (2 * self.num_layers + 1) * self.hidden_size
        return embeddings + self.num_layers * self._linear_parameters_of_a_layer + norms

    @property
    def _linear_parameters_of_a_layer(self) -> int:
        queries_and_output = 2 * self.hidden_size * self.num_heads * self.head_size
        keys_and_values = 2 * self.hidden_size * self.num_kv_heads * self.head_size
        return queries_and_output + keys_and_values + 3 * self.hidden_size * self.intermediate_size

    def linear_flops(self, num_tokens: int) -> int:
        """One forward pass without attention, every position scored: 2·S·(L·(2·D·H·hd + 2·D·KV·hd + 3·D·I) + V·D)."""
        head = self.vocab_size * self.hidden_size
        return 2 * num_tokens * (self.num_layers * self._linear_parameters_of_a_layer + head)

    def attention_flops(self, num_tokens: int) -> int:
        """One forward pass of causal attention over one row: 2·S²·H·hd·L."""
        return 2 * num_tokens**2 * self.num_heads * self.head_size * self.num_layers


@dataclass(frozen=True)
class Precision:
    """What a parameter and its optimizer take. TRL loads weights as float32 unless a recipe says otherwise."""

    weight_bytes: int
    moment_bytes: int
    """Both moments of AdamW together."""
    lora: bool
    checkpointing: bool

    def state_bytes(self, num_parameters: int) -> int:
        """Weights, gradients and moments: 16 B a parameter in float32, 8 in bfloat16; LoRA keeps weights alone."""
        return num_parameters * (self.weight_bytes if self.lora else 2 * self.weight_bytes + self.moment_bytes)

    def checkpoint_bytes(self, model: Dimensions, num_tokens: int) -> int:
        """One hidden state a layer and token: L·S·D, as wide as the weights (float32 weights keep it float32)."""
        return model.num_layers * num_tokens * model.hidden_size * self.weight_bytes if self.checkpointing else 0

    def attention_share(self, model: Dimensions, num_tokens: int) -> float:
        """Attention's share of a step's hardware FLOPs.

        Linear layers pass forward, again for checkpointing, and twice back (LoRA once); attention passes forward,
        again for checkpointing, and 2.5 times back (flash kernels recompute the scores).
        """
        forward = 2 if self.checkpointing else 1
        linear = (forward + (1 if self.lora else 2)) * model.linear_flops(num_tokens)
        attention = (forward + 2.5) * model.attention_flops(num_tokens)
        return attention / (linear + attention)


# From the models' `config.json`; their parameter counts are tested.
LLAMAS = {
    "Llama-3.2-1B": Dimensions(16, 2048, 32, 64, 8, 8192, 128_256, True),
    "Llama-3.2-3B": Dimensions(28, 3072, 24, 128, 8, 8192, 128_256, True),
    "Llama-3.1-8B": Dimensions(32, 4096, 32, 128, 8, 14_336, 128_256, False),
}


def known_dimensions(reference: str) -> Dimensions | None:
    """Return the dimensions of a Hub id or folder named after a Llama that we know, else None."""
    return next((dimensions for name, dimensions in LLAMAS.items() if name.lower() in reference.lower()), None)


def base_dimensions(model: BaseModel, tokenizer: BaseTokenizer) -> Dimensions:
    """Return the dimensions of a base model trained here: as many key heads as heads, tied embeddings."""
    heads = model.num_attention_heads
    return Dimensions(
        num_layers=model.num_hidden_layers,
        hidden_size=model.hidden_size,
        num_heads=heads,
        head_size=model.hidden_size // heads,
        num_kv_heads=heads,
        intermediate_size=model.intermediate_size,
        vocab_size=tokenizer.vocab_size,
        tied_embeddings=True,
    )
