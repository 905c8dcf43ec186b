"""What a generator's tokens cost and how fast its server makes them: asked on the command line, never in a recipe.

Neither changes a result, so neither may make anything stale. In: two flags. Out: `Rates`, None where nothing was told.
"""

import argparse
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenRates:
    """One figure for prompt tokens (prefill), one for completion tokens (decoding)."""

    prompt: float
    completion: float


@dataclass(frozen=True)
class Rates:
    """Prices and throughput of one generator."""

    usd_per_million_tokens: TokenRates | None = None
    tokens_per_second: TokenRates | None = None
    """Of the whole server, all of its slots together."""

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Price in US dollars, None if no price was told."""
        price = self.usd_per_million_tokens
        if price is None:
            return None
        return (prompt_tokens * price.prompt + completion_tokens * price.completion) / 1e6

    def hours(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Hours if the server does either at a time, None if no throughput was told."""
        speed = self.tokens_per_second
        if speed is None:
            return None
        return (prompt_tokens / speed.prompt + completion_tokens / speed.completion) / 3600


UNKNOWN = Rates()


def add_rate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--usd-per-million-tokens` and `--tokens-per-second`; read them with `rates_of`."""
    group = parser.add_argument_group("generator", "what no recipe holds, because it changes no result")
    group.add_argument(
        "--usd-per-million-tokens",
        type=_prices,
        metavar="PROMPT,COMPLETION",
        help="prices of the generator's tokens, for example 0.05,0.08",
    )
    group.add_argument(
        "--tokens-per-second",
        type=_speeds,
        metavar="PROMPT,COMPLETION",
        help="prefill and decoding throughput of the whole server, for example 20000,4000",
    )


def rates_of(arguments: argparse.Namespace) -> Rates:
    """Return what the two flags said."""
    return Rates(arguments.usd_per_million_tokens, arguments.tokens_per_second)


def _prices(text: str) -> TokenRates:
    rates = _pair(text, "0.05,0.08")
    if min(rates.prompt, rates.completion) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} has a negative price; write for example 0.05,0.08")
    return rates


def _speeds(text: str) -> TokenRates:
    rates = _pair(text, "20000,4000")
    if min(rates.prompt, rates.completion) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no throughput; write for example 20000,4000")
    return rates


def _pair(text: str, example: str) -> TokenRates:
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError:
        prompt = completion = math.nan
    if not math.isfinite(prompt) or not math.isfinite(completion):
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers PROMPT,COMPLETION; write for example {example}")
    return TokenRates(prompt, completion)
