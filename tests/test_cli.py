"""The command line: one line of cause and remedy, exit codes, dry runs that do nothing, a fast --help."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from selflong.cli import main

RECIPES = Path(__file__).parents[1] / "recipes"


def test_a_user_error_is_one_line_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "recipes/absent"])
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert printed == "selflong: error: recipes/absent: no such recipe directory; give one such as recipes/demo\n"


def test_debug_shows_the_traceback() -> None:
    from selflong.errors import UserError

    with pytest.raises(UserError):
        main(["run", "recipes/absent", "--debug"])


@pytest.mark.parametrize("verb", ["run", "synthesize", "train", "build-evals", "evaluate", "report"])
def test_dry_run_lists_every_box_and_writes_nothing(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([verb, str(RECIPES / "demo"), "--out", str(tmp_path / "out"), "--dry-run"])
    printed = capsys.readouterr().out
    for box in ("corpus", "base", "dataset", "train_4_2048", "control_short_only", "evaluate", "report"):
        assert f"{box} " in printed
    assert "not built yet" in printed and "Plan of" in printed
    assert not (tmp_path / "out").exists()


def test_dry_run_refuses_a_wrong_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(RECIPES / "demo", tmp_path / "demo")
    path = tmp_path / "demo" / "synthesis.yaml"
    path.write_text(path.read_text().replace("candidates:", "candidate:"))
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path / "demo"), "--dry-run"])
    assert "did you mean candidates?" in capsys.readouterr().err


def test_an_unknown_stage_and_a_missing_input_are_user_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, message in ((["--stage", "train_9"], "is no box of this recipe"), ([], "build the boxes before it")):
        with pytest.raises(SystemExit):
            main(["train", str(RECIPES / "demo"), "--out", str(tmp_path / "out"), *more])
        assert message in capsys.readouterr().err


def test_help_answers_in_half_a_second() -> None:
    """Three tries, the best counts: this is about what is imported, not about a busy machine."""
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "selflong", "--help"], check=True, capture_output=True)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 0.5
