"""Calibration: error rates on simulated studies with a known truth."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from analysis import calibrate
from analysis.runs import blocks
from analysis.statistics import rank_tests
from lib.spec.study import Study
from tests import factories
from tests.conftest import call


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Give a 2×2 study."""
    return factories.study(factories.write_sweep(tmp_path / "s.yaml"))


def test_every_kind_of_claim_is_wrong_in_few_studies(study: Study) -> None:
    """At 1,000 studies a rate of .05 stays below .077 in all but 1 of 10,000 cases."""
    for name, make in calibrate.scenarios(study).items():
        rates = calibrate.count_wrong(study, make(np.random.default_rng(1), 1000, 8))
        assert set(rates.wrong) == set(calibrate.KINDS)
        assert max(rates.wrong.values()) < 77, (name, rates.wrong)
    for n, alpha in calibrate.LOOKS.items():  # at each look something can be claimed
        assert 3 * rank_tests.smallest_p(n) < alpha
    for effect in (0, 1):
        rates = calibrate.over_looks(study, effect, 1000, np.random.default_rng(2))
        assert max(rates.wrong.values()) < 77


def test_a_true_effect_of_delta_counts_as_both_sides_of_it(study: Study) -> None:
    """Whatever the round-off of the true effects: neither beyond nor within ±δ is true of δ."""
    rng = np.random.default_rng(1)
    exact = calibrate.scenarios(study)["all effects δ, low noise"](rng, 2000, 8)
    found = calibrate.wrong_claims(study, exact)
    for off in (1e-12, -1e-12):
        near = dataclasses.replace(exact, truth=np.full(3, 1.0 + off))
        for kind, wrong in calibrate.wrong_claims(study, near).items():
            assert wrong.tolist() == found[kind].tolist(), kind
    assert found["beyond ±δ"].any()
    assert found["within ±δ"].any()


def test_effects_are_found_and_permuted_ones_are_not(study: Study) -> None:
    table = np.random.default_rng(1).normal(0, 0.1, (4, 8)) + np.array([[0], [0], [5], [5]])
    made = calibrate.Studies(table[:, None], np.array([5.0, 0, 0]), np.array([False, True, True]))
    assert calibrate.count_wrong(study, made).wrong["difference"] == 0
    nothing = calibrate.Studies(table[:, None], np.zeros(3), np.ones(3, dtype=bool))
    wrong = calibrate.count_wrong(study, nothing).wrong
    assert (wrong["difference"], wrong["beyond ±δ"], wrong["within ±δ"]) == (1, 1, 0)
    opposite = calibrate.Studies(table[:, None], np.array([-5.0, 0, 0]), nothing.same & False)
    assert calibrate.count_wrong(study, opposite).wrong["difference"] == 1
    permuted = calibrate.permuted(study, table, 1000, np.random.default_rng(0))
    assert permuted.wrong["difference"] < 77


@pytest.mark.slow
def test_without_a_correction_the_command_fails(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["calibrate", str(tmp_path / "s.yaml"), "--studies", "1000", "--seeds", "8"]
    monkeypatch.setattr("sys.argv", words)
    calibrate.main()
    monkeypatch.setattr(rank_tests, "holm", np.asarray)
    with pytest.raises(SystemExit) as stopped:
        calibrate.main()
    message = str(stopped.value)
    assert message.startswith("error: error rate significantly above α = 0.05: ")
    assert "difference (no effect, 8 seeds)" in message


def test_the_command(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "s.yaml")
    factories.write_study(tmp_path / "study", *factories.tables(sweep_path))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- calibrate -->\nold\n<!-- /calibrate -->\nafter\n")
    words = ("-m", "analysis.calibrate", sweep_path, "--studies", "20")
    output = call(*words, "--seeds", "7", "--into", page).stdout
    rows = output.splitlines()
    shown = f"<!-- calibrate -->\n\n{output.strip()}\n\n<!-- /calibrate -->"
    assert page.read_text() == f"before\n{shown}\nafter\n"
    assert rows[0] == "| seeds | scenario | difference | beyond ±δ | within ±δ | interval |"
    study = factories.study(sweep_path)
    shown = [row.split(" | ")[1] for row in rows[2:]]
    assert shown[: len(calibrate.scenarios(study))] == list(calibrate.scenarios(study))
    assert rows[-1].startswith("| 10 / 14 / 18 | three looks (10 at 0.01, 14 at 0.02, 18 at 0.02)")
    assert "permuted" in call(*words, "--permute", tmp_path / "study").stdout
    (tmp_path / "study" / "history.csv").unlink()
    assert "error: " in call(*words, "--permute", tmp_path / "study").stderr


def test_blocks_count_alike_on_the_stated_scale() -> None:
    scores = np.array([[[1.0, 2], [3, 4]], [[10, 20], [40, 30]]])  # (blocks, variants, seeds)
    np.testing.assert_array_equal(blocks.average(scores), [[5.5, 11], [21.5, 17]])
    ranks = blocks.average(scores, "rank") * 3
    np.testing.assert_allclose(ranks, [[0, 1], [2.5, 2.5]])
    relative = blocks.average(scores, "relative")  # to 1.5 and 15, the first variant's medians
    np.testing.assert_allclose(relative, [[-1 / 3, 1 / 3], [4 / 3, 4 / 3]])
    negative = blocks.average(-scores, "relative")
    np.testing.assert_allclose(negative, -relative)
    with pytest.raises(ValueError, match="baseline score is 0"):
        blocks.average(scores - [[[1.5]], [[15]]], "relative")
