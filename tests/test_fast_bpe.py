"""tiktoken with a tokenizer's vocabulary gives the tokenizer's ids, or is not used."""

import random
from typing import Any

import pytest

from selflong import fast_bpe
from selflong.fast_bpe import SPLITS, FastBpe, UnsupportedError, load_encoder
from tests.bpe_tokenizers import SPECIAL, bpe_tokenizer
from tests.conftest import training_texts
from tests.tiny_llama import train_tokenizer

CHARACTERS = "a1.-_ \n\t\u00e9\u3002\u00a0\u2028\u3000\u0301\U0001f642\u0600\u00b2\u2167\u017f\u212a"
STRINGS = [
    "the",
    "Word",
    "  ",
    "\n\n",
    " \n",
    "\r\n",
    "1234",
    "...",
    "'s",
    "'S",
    "'\u017f",
    "====",
    "e\u0301",
    "\u4e2d\u6587",
]


def random_text(rng: random.Random, most_parts: int) -> str:
    return "".join(rng.choices([*CHARACTERS, *STRINGS, rng.choice(SPECIAL)], k=rng.randint(0, most_parts)))


def same(tokenizer: Any, text: str) -> bool:
    return bool(FastBpe(tokenizer).encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("split", SPLITS)
def test_ids_are_the_tokenizers(split: str) -> None:
    tokenizer, rng = bpe_tokenizer(split), random.Random(0)
    fast = FastBpe(tokenizer)
    texts = [
        "",
        *training_texts()[::4],
        *(random_text(rng, 40) for _ in range(1500)),
        " " * 9999,
        "=-" * 999,
        "x" * 9999,
    ]
    for text in texts:
        assert fast.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False), text


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_both_regex_engines_know_every_character(split: str) -> None:
    # Tokens that join each first and last byte of UTF-8 with an ASCII neighbour: any other piece gives other ids.
    symbols = {byte: symbol for symbol, byte in fast_bpe._byte_of_character().items()}
    before = [(left, first) for left in b"b2 .'\n" for first in range(0xC2, 0xF5)]
    after = [(last, right) for last in range(0x80, 0xC0) for right in b"as1\n. '"]
    merges = [(symbols[a], symbols[b]) for a, b in before + after]
    tokenizer = tokenizer_of(merges, split)
    fast = FastBpe(tokenizer)
    characters = [chr(code) for code in range(0x80, 0x110000) if not 0xD800 <= code <= 0xDFFF]
    for start in range(0, len(characters), 4096):
        text = "".join(f"ab{c}ab12{c}12 {c} x.{c}.\n{c}\n a'{c}s" for c in characters[start : start + 4096])
        assert fast.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False), hex(start)


def tokenizer_of(merges: list[tuple[str, str]], split: str = "llama3", ignore_merges: bool = False) -> Any:
    """A tokenizer of the 256 bytes and these merges; its ids run against the order of merging."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = list(dict.fromkeys([*fast_bpe._byte_of_character(), *(a + b for a, b in merges)]))
    vocab = {token: len(tokens) - 1 - i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLITS[split]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)


UNREACHABLE = [("b", "c"), ("a", "b"), ("ab", "c")]


def test_ids_need_not_follow_the_order_of_merges() -> None:
    assert same(tokenizer_of([("b", "c"), ("a", "b"), ("a", "bc")]), "abc ab bcab cab xabcx")


def test_a_token_that_its_merges_cannot_make_is_noticed() -> None:
    # The tokenizer merges b and c first and then has no way to abc; tiktoken, which knows no merges, finds one.
    with pytest.raises(UnsupportedError, match="cannot be made"):
        FastBpe(tokenizer_of(UNREACHABLE))
    with pytest.raises(UnsupportedError, match="cannot be made"):
        FastBpe(tokenizer_of(UNREACHABLE, ignore_merges=True))
    # Llama 3's conversion: every pair is a merge, and a piece that is a token stays whole.
    assert same(tokenizer_of([*UNREACHABLE, ("a", "bc")], ignore_merges=True), "abc ab bcab cab xabcx")


@pytest.mark.parametrize(
    "change", ["lowercase", "prefix space", "another split", "added token eats spaces", "no bytes"]
)
def test_other_tokenizers_are_refused(change: str) -> None:
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(bpe_tokenizer("gpt2").backend_tokenizer.to_str())
    if change == "lowercase":
        backend.normalizer = normalizers.Lowercase()
    elif change == "prefix space":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif change == "another split":
        backend = train_tokenizer().backend_tokenizer
    elif change == "added token eats spaces":
        backend.add_tokens([AddedToken("<mask>", lstrip=True)])
    else:
        backend.model = models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")])
    with pytest.raises(UnsupportedError):
        FastBpe(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_a_difference_on_the_sample_is_noticed(monkeypatch: Any, capsys: Any) -> None:
    tokenizer = tokenizer_of(UNREACHABLE)
    monkeypatch.setattr(fast_bpe, "_check_merges", lambda *_: None)
    assert not same(tokenizer, "abc")
    encode = load_encoder(tokenizer, ["nothing to see", "xabcx"])
    assert encode("abc").tolist() == tokenizer.encode("abc", add_special_tokens=False)
    assert "gives other ids" in capsys.readouterr().out


def test_a_tokenizer_that_is_not_known_encodes_for_itself(capsys: Any) -> None:
    tokenizer = train_tokenizer()
    text = "\n\n".join(training_texts()[:9])
    assert load_encoder(tokenizer, [])(text).tolist() == tokenizer.encode(text, add_special_tokens=False)
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert isinstance(load_encoder(bpe_tokenizer("llama3"), training_texts()).__self__, FastBpe)  # type: ignore[attr-defined]
    assert not capsys.readouterr().out
