"""Byte-level BPE tokenizers that split texts as GPT-2, Llama 3 and Qwen 2 do, trained in a second."""

import functools
from typing import Any

from selflong.fast_bpe import SPLITS
from tests.conftest import training_texts
from tests.tiny_llama import CHAT_TEMPLATE

SPECIAL = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]


@functools.cache
def bpe_tokenizer(split: str, vocab_size: int = 3000) -> Any:
    """Return a `PreTrainedTokenizerFast` with Llama 3's special tokens and the layout of its template."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # Llama 3's own takes a piece that is a token whole; Qwen's composes characters first.
    backend = Tokenizer(models.BPE(ignore_merges=split == "llama3"))
    if split == "qwen2":
        backend.normalizer = normalizers.NFC()
    if split == "gpt2":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        cut = pre_tokenizers.Split(Regex(SPLITS[split]), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, byte_level])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(training_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        additional_special_tokens=SPECIAL[2:],
        chat_template=CHAT_TEMPLATE,
    )
