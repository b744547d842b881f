"""Metrics: presets, and how scores are written."""

import pytest

from lib.spec.metric import last_word, with_part
from lib.spec.metric_declaration import metric


def test_what_rounds_to_zero_has_no_sign() -> None:
    return_ = metric({"key": "eval/return", "goal": "maximize", "decimals": 1})
    assert [return_.show(value) for value in (-0.04, -0.06, -12345.67)] == [
        "0.0",
        "−0.1",
        "−12,345.7",
    ]
    assert return_.show_quoted(-12345.67) == "−12,345.7"
    assert return_.show_signed(-0.04) == "0.0"


def test_the_worst_score_of_a_preset_needs_its_goal() -> None:
    assert metric("test/accuracy").worst_value == 0.0
    turned = metric({"key": "test/accuracy", "goal": "minimize"})
    assert turned.worst_value == 1.0


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("val/acc", "test/acc"),
        ("val_acc", "test_acc"),
        ("val.acc", "test.acc"),
        ("acc", "test/acc"),
    ],
)
def test_another_part_is_written_as_the_key_is(key: str, other: str) -> None:
    assert with_part(key, "test") == other


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("val_acc", "accuracy"),
        ("test/error", "error"),
        ("val_mean_squared_error", "mse"),
        ("root_mean_squared_error", "rmse"),
        ("test/mean-absolute-error", "mae"),
        ("test/l2_error", "l2 error"),
        ("val/loss_dice", "loss"),
        ("focal_loss/test_accuracy", "accuracy"),
        ("val/stop_loss_return", "return"),
    ],
)
def test_an_error_is_a_rate_only_by_itself(key: str, word: str) -> None:
    """So that a squared error is not shown in percent."""
    assert last_word(key) == word


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("val_mean_squared_error", "validation MSE"),
        ("test/balanced_accuracy", "test balanced accuracy"),
        ("val/loss_dice", "validation loss dice"),
        ("val_masked_root_mean_squared_error", "validation masked RMSE"),
    ],
)
def test_a_name_of_several_words_is_not_said_twice(key: str, title: str) -> None:
    assert metric(key).title == title
