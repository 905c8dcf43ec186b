"""Prices and throughput on the command line: what they come to, and what is refused with an example."""

from pathlib import Path

import pytest

from selflong.cli import main
from selflong.rates import Rates, TokenRates

DEMO = str(Path(__file__).parents[1] / "recipes" / "demo")


def test_price_and_hours_by_hand() -> None:
    rates = Rates(TokenRates(0.05, 0.08), TokenRates(20_000, 4_000))
    assert rates.usd(2_000_000, 500_000) == pytest.approx(0.10 + 0.04)
    assert rates.hours(72_000_000, 14_400_000) == pytest.approx(1 + 1)
    assert Rates().usd(1, 1) is None and Rates().hours(1, 1) is None
    assert Rates(TokenRates(0, 0)).usd(1, 1) == 0  # a server of one's own: free, not unknown


def test_plan_shows_what_the_flags_say(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", DEMO, "--usd-per-million-tokens", "0.05,0.08", "--tokens-per-second", "20000,4000"])
    printed = capsys.readouterr().out
    assert "prompt tokens x 0.05 + reply tokens x 0.08" in printed
    assert "prompt tokens / 20,000 + reply tokens / 4,000" in printed


@pytest.mark.parametrize("text", ["3", "1,2,3", "a,b", "nan,1", "inf,1", "-1,2", ""])
@pytest.mark.parametrize(
    ("flag", "example"), [("--usd-per-million-tokens", "0.05,0.08"), ("--tokens-per-second", "20000,4000")]
)
def test_malformed_rates_are_refused_with_an_example(
    flag: str, example: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plan", DEMO, f"{flag}={text}"])
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and flag in printed and f"write for example {example}" in printed


def test_no_throughput_is_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", DEMO, "--tokens-per-second", "0,100"])
    assert "write for example 20000,4000" in capsys.readouterr().err
