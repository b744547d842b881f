"""Letters that the figures' font does not have."""

import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from analysis.figures import style
from tests import factories

LETTER = "\u5b66"  # a Chinese letter, which DejaVu Sans does not have


def install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a font whose one letter is a full square, and let matplotlib know it."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "letter"])
    builder.setupCharacterMap({ord(LETTER): "letter"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "letter": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "letter": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)
    entry = font_manager.ttfFontProperty(font_manager.get_font(path))
    known = font_manager.fontManager.ttflist
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*known, entry])


def drawn(folder: Path, title: str) -> tuple[set[str], float]:
    """Return the letters that were lacking, and the share of dark pixels."""
    figure, (axes,) = style.subplots(1, 2)
    axes.axis("off")
    axes.set_title(title, fontsize=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lacking = style.save(figure, folder, "f")
    assert (folder / "f.pdf").read_bytes().startswith(b"%PDF")
    return lacking, float(np.mean(np.asarray(Image.open(folder / "f.png").convert("L")) < 100))


def test_another_installed_font_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = drawn(tmp_path, LETTER)
    install(tmp_path / "squares.ttf", monkeypatch)
    found = drawn(tmp_path, LETTER)
    assert (without[0], found[0]) == ({LETTER}, set())
    assert found[1] > 2 * without[1], "a full square, not the outline of a box"
    assert drawn(tmp_path, LETTER + "\u7fd2")[0] == {"\u7fd2"}
    assert drawn(tmp_path, "a")[0] == set()


def test_a_report_names_the_letters_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sweep_path = factories.write_sweep(tmp_path / "made_up.yaml")
    labels = {"optimizer=sgd": f"SGD {LETTER}"}
    folder = tmp_path / "made_up"
    factories.write_study(folder, *factories.tables(sweep_path))
    factories.report(folder, sweep_path, draw=True, labels=labels)
    said = capsys.readouterr().out
    assert said.count(f"No installed font has {LETTER}: ") == 1
    assert mpl.get_cachedir() in said
