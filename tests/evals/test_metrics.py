"""Scores at their edges."""

import pytest

from selflong.evals.metrics import length_ratio, metric_name, recall


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("the number is 123456.", ["123456"], 1),
        ("The number is 123 456.", ["123456"], 0),
        ("", ["123456"], 0),
        ("ABCDE and fghij", ["abcde", "FGHIJ", "KLMNO", "PQRST"], 0.5),
        ("abandoned-\x07house", ["abandoned-house"], 0),
        (" \x00 x1 \x1f", ["x1"], 1),
    ],
)
def test_recall_is_the_share_of_answers_found(prediction: str, answers: list[str], score: float) -> None:
    assert recall(prediction, answers) == score


@pytest.mark.parametrize(("words", "score"), [(8, 1), (4, 0.5), (16, 0.5), (0, 0)])
def test_length_ratio_punishes_too_short_and_too_long_alike(words: int, score: float) -> None:
    assert length_ratio("\n word " * words, ["8"]) == score


def test_lighteval_gets_the_same_scores() -> None:
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    from selflong.evals.metrics import lighteval_metric

    metric = lighteval_metric("recall")
    doc = Doc(query="?", choices=["one", "two"], gold_index=[0, 1])
    assert metric.compute_sample(doc=doc, model_response=ModelResponse(text=["ONE"])) == {"recall": 0.5}


def test_every_task_has_a_metric() -> None:
    assert [metric_name(task) for task in ("needle", "ruler:vt", "output_length")] == [
        "recall",
        "recall",
        "length_ratio",
    ]
