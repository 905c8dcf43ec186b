"""RULER: its own strings, right answers, honest lengths."""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selflong.errors import UserError
from selflong.evals import ruler_strings
from selflong.evals.prompt import render_prompt
from selflong.evals.ruler import TASKS, build_ruler_rows, check_task
from selflong.records import EvalRow


def rows_of(name: str, context_length: int, tokenizer: Any, num_samples: int = 3) -> list[EvalRow]:
    return list(build_ruler_rows(name, context_length, num_samples, 3, tokenizer))


def test_the_strings_are_rulers_own() -> None:
    strings = ruler_strings.load_ruler_strings()
    assert {name: ruler_strings.sha256_prefix(text) for name, text in strings.items()} == ruler_strings.SHA256_PREFIXES
    assert all(strings[name].startswith(" ") for name in strings if name.endswith("answer_prefix"))


def test_a_changed_string_in_the_package_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ruler_strings._package_folder("lm_eval") / "tasks" / "ruler"
    fake = tmp_path / "tasks" / "ruler"
    fake.mkdir(parents=True)
    for path in real.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        (fake / path.name).write_text(text.replace("numbered list of words", "list of words"), encoding="utf-8")
    monkeypatch.setattr(ruler_strings, "_package_folder", lambda name: tmp_path)
    with pytest.raises(UserError, match="cwe_template is not RULER's"):
        ruler_strings.load_ruler_strings.__wrapped__()


def test_a_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruler_strings.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"lm_eval is not installed; pip install \"lm-eval\[ruler\]==0.4.13\""):
        ruler_strings.load_ruler_strings.__wrapped__()


@pytest.mark.parametrize("name", TASKS)
def test_rows_fit_and_are_full(name: str, tokenizer: Any) -> None:
    rows = rows_of(name, 2_048, tokenizer)
    assert len({row.input for row in rows}) == 3
    for row in rows:
        prompt = render_prompt(tokenizer, row.input, row.answer_prefix)
        assert prompt.endswith("<|assistant|>" + row.answer_prefix)
        num_tokens = len(tokenizer(prompt, add_special_tokens=False).input_ids) + TASKS[name].max_new_tokens
        assert num_tokens == row.num_tokens <= 2_048
        assert row.num_tokens >= 0.95 * 2_048
        assert all(answer in row.input for answer in row.answers) and row.depth_percent is None


@pytest.mark.parametrize("name", ["vt", "niah_single_1", "cwe", "fwe"])
def test_a_length_below_the_minimum_names_it_and_the_minimum_works(name: str, tokenizer: Any) -> None:
    with pytest.raises(UserError) as refused:
        rows_of(name, 200, tokenizer)
    minimum = int(re.search(r"at least (\d+) tokens", str(refused.value))[1])  # type: ignore[index]
    assert len(rows_of(name, minimum, tokenizer)) == 3
    with pytest.raises(UserError, match=f"use {minimum} or more"):
        rows_of(name, minimum - 1, tokenizer)


def test_variable_tracking_chains_every_answer(tokenizer: Any) -> None:
    for row in rows_of("vt", 2_048, tokenizer):
        value = re.search(r"assigned the value (\d+) in the text above\.$", row.input)[1]  # type: ignore[index]
        found = set(re.findall(rf"VAR (\w+) = {value}", row.input))
        for copy, source in re.findall(r"VAR (\w+) = VAR (\w+)", row.input):
            if source in found:
                found.add(copy)
        assert found == set(row.answers) and len(found) == 5
        assert row.input.count("VAR ") == 2 * (1 + 2 * 4), "the task's chain and the example's"


def test_one_needle_is_worded_in_the_singular(tokenizer: Any) -> None:
    row = rows_of("niah_single_1", 512, tokenizer)[0]
    key = re.search(r"magic numbers for (\S+) is: ", row.input)[1]  # type: ignore[index]
    assert row.input.startswith("A special magic number is hidden within")
    assert row.input.endswith(f"What is the special magic number for {key} mentioned in the provided text?")
    assert row.answer_prefix == f" The special magic number for {key} mentioned in the provided text is"


def test_the_asked_key_never_recurs_among_the_other_needles(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"adjective": ("red", "blue"), "noun": ("cat", "dog")}  # four keys, so that they would recur at once
    monkeypatch.setattr("selflong.evals.ruler.load_words", words.__getitem__)
    for row in rows_of("niah_multikey_2", 2_048, tokenizer):
        key = re.search(r"for (\S+) mentioned in the provided text\?$", row.input)[1]  # type: ignore[index]
        assert re.findall(rf"numbers for {key} is: (\d+)\.", row.input) == list(row.answers)


def test_common_words_are_the_most_common(tokenizer: Any) -> None:
    for row in rows_of("cwe", 2_048, tokenizer):
        listed = row.input.split("appear most often.\n")[-1].split("\nQuestion:")[0]
        counts = Counter(re.findall(r"\d+\. (\D+?)(?= \d+\. |$)", listed))
        assert {word for word, _ in counts.most_common(10)} == set(row.answers)


@pytest.mark.parametrize("context_length", [512, 1_024, 2_048])
def test_frequent_words_have_one_right_answer(context_length: int, tokenizer: Any) -> None:
    for row in rows_of("fwe", context_length, tokenizer):
        coded = row.input.split("coded words. ")[-1].split("\nQuestion:")[0]
        ranked = Counter(coded.split()).most_common(5)
        assert ranked[0][0] == "..." and tuple(word for word, _ in ranked[1:4]) == row.answers
        assert len(ranked) == 4 or ranked[3][1] > ranked[4][1], "the third answer is no tie"


def test_common_words_go_on_after_the_word_lists() -> None:
    from random import Random

    from selflong.evals.ruler import _shuffled_words

    words = _shuffled_words(Random(0), 20_000)
    assert len(set(words)) == 20_000 and words[:5] == _shuffled_words(Random(0), 5)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UserError, match="qa_9 is not built here"):
        check_task("qa_9")


def test_a_model_without_chat_template_continues_the_answer_prefix() -> None:
    assert render_prompt(SimpleNamespace(chat_template=None), "Q?", " A:") == "Q? A:"
