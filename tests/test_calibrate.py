"""Calibration: rates that are counted, on studies of which the truth is known."""

from pathlib import Path

import numpy as np
import pytest

from analysis import calibrate
from tests import factories
from tests.conftest import call


def test_null_studies_rarely_claim(tmp_path: Path) -> None:
    study = factories.study(factories.write_sweep(tmp_path / "s.yaml"))
    tally = calibrate.simulate(study, 7, 300, "normal", np.random.default_rng(2))
    assert (tally.studies, tally.covering.shape, tally.confidence) == (300, (300,), 0.95)
    assert tally.false_alarms / 300 < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    assert tally.covering.mean() > 0.95 - 4 * (0.05 * 0.95 / 900) ** 0.5


def test_a_real_effect_is_claimed_until_it_is_permuted(tmp_path: Path) -> None:
    study = factories.study(factories.write_sweep(tmp_path / "s.yaml"))
    table = np.random.default_rng(0).normal(0, 0.1, (4, 7)) + np.array([[0], [0], [5], [5]])
    kept = calibrate._tally(study, iter([table]), 1, np.zeros(4))
    assert kept.false_alarms == 1
    kept = calibrate._tally(study, iter([table]), 1, np.array([0, 0, 5, 5]))
    assert (kept.false_alarms, kept.effects, kept.found) == (0, 1, 1)
    permuted = calibrate.permute(study, table, 200, np.random.default_rng(0))
    assert permuted.false_alarms / 200 < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.parametrize("noise", ["normal", "skewed"])
def test_a_known_effect_is_covered_and_found(tmp_path: Path, noise: str) -> None:
    study = factories.study(factories.write_sweep(tmp_path / "s.yaml"))
    tally = calibrate.simulate(study, 7, 200, noise, np.random.default_rng(3), effect=2.0)
    assert (tally.studies, tally.effects) == (200, 200)
    assert tally.covering.mean() > 0.95 - 4 * (0.05 * 0.95 / 600) ** 0.5
    assert tally.found / 200 == pytest.approx(0.85, abs=0.12)  # statistics of the design: d = 2
    assert tally.false_alarms / 200 < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_the_command(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "s.yaml")
    factories.write_study(tmp_path / "study", *factories.tables(sweep_path))
    words = ("-m", "analysis.calibrate", sweep_path, "--studies", "20")
    lines = call(*words, "--seeds", "7").stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "7 seeds, normal noise, no effect",
        "7 seeds, normal noise, an effect of 1.5 SD",
        "7 seeds, skewed noise, no effect",
        "7 seeds, skewed noise, an effect of 1.5 SD",
    ]
    assert "of 20 studies" in call(*words, "--permute", tmp_path / "study").stdout
    (tmp_path / "study" / "history.csv").unlink()
    assert "error: " in call(*words, "--permute", tmp_path / "study").stderr
