"""Letters that the figures' font does not have."""

import dataclasses
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder  # matplotlib needs fontTools too
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from analysis.figures import fonts, style
from tests import factories

LETTER, OTHER = "\u5b66", "\u7fd2"  # two Chinese letters, which DejaVu Sans does not have


@pytest.fixture(autouse=True)
def only_matplotlibs_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the fonts of this machine, which may have the letters, and earlier messages."""
    own = [
        entry
        for entry in font_manager.fontManager.ttflist
        if Path(entry.fname).is_relative_to(mpl.get_data_path())
    ]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(fonts, "named", set())


def install(path: Path, truetype: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a font whose one letter is a full square, and let matplotlib know it."""
    glyphs = {}
    for name in (".notdef", "letter"):
        pen = TTGlyphPen(None) if truetype else T2CharStringPen(1000, None)
        if name == "letter":
            pen.moveTo((0, 0))
            for corner in ((0, 1000), (1000, 1000), (1000, 0)):
                pen.lineTo(corner)
            pen.closePath()
        glyphs[name] = pen.glyph() if truetype else pen.getCharString()
    builder = FontBuilder(1000, isTTF=truetype)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({ord(LETTER): "letter"})
    if truetype:
        builder.setupGlyf(glyphs)
    else:
        builder.setupCFF("Squares", {"FullName": "Squares"}, glyphs, {})
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)
    entry = font_manager.ttfFontProperty(font_manager.get_font(path))
    known = font_manager.fontManager.ttflist
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*known, entry])


def drawn(folder: Path, title: str) -> float:
    """Draw a title without warnings, and return the share of dark pixels."""
    figure, (axes,) = style.subplots(1, 2)
    axes.axis("off")
    axes.set_title(title, fontsize=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        style.save(figure, folder, "f")
    return float(np.mean(np.asarray(Image.open(folder / "f.png").convert("L")) < 100))


@pytest.mark.parametrize("truetype", [True, False], ids=["truetype", "cff"])
def test_another_installed_font_is_taken(
    tmp_path: Path, truetype: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    box = drawn(tmp_path, LETTER)
    assert f"No installed font has {LETTER}: " in capsys.readouterr().out
    assert b"/FontFile2" in (tmp_path / "f.pdf").read_bytes(), "TrueType, of which text stays text"
    install(tmp_path / "squares.otf", truetype, monkeypatch)
    monkeypatch.setattr(fonts, "named", set())
    assert drawn(tmp_path, LETTER) > 2 * box, "a full square, not the outline of a box"
    pdf = (tmp_path / "f.pdf").read_bytes()
    assert b"/Type3" in pdf
    assert b"/FontFile2" not in pdf, "for TrueType outlines only"
    assert capsys.readouterr().out == ""
    drawn(tmp_path, LETTER + OTHER)
    assert f"No installed font has {OTHER}: " in capsys.readouterr().out
    drawn(tmp_path, "a")
    assert b"/FontFile2" in (tmp_path / "f.pdf").read_bytes()
    assert capsys.readouterr().out == ""


def test_a_font_that_cannot_be_drawn_does_not_stop_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    install(tmp_path / "squares.otf", True, monkeypatch)
    *others, entry = font_manager.fontManager.ttflist
    damaged = dataclasses.replace(entry, fname=str(tmp_path / "damaged.otf"), name="Damaged")
    Path(damaged.fname).write_bytes(b"damaged since its letters were read")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*others, damaged])
    letters = {damaged.fname: {ord(LETTER)}}
    monkeypatch.setattr(fonts, "_letters_of", lambda name: letters.get(name, ()))
    drawn(tmp_path, LETTER)
    said = capsys.readouterr().out
    assert "not using the font Damaged in figures: " in said
    assert f"No installed font has {LETTER}: " in said
    assert b"/FontFile2" in (tmp_path / "f.pdf").read_bytes()


@pytest.mark.slow
def test_a_report_names_the_letters_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sweep_path = factories.write_sweep(tmp_path / "made_up.yaml")
    labels = {"optimizer=sgd": f"SGD {LETTER}"}
    folder = tmp_path / "made_up"
    factories.write_study(folder, *factories.tables(sweep_path))
    factories.report(folder, sweep_path, draw=True, labels=labels)
    said = capsys.readouterr().out
    assert said.count("No installed font has") == 1
    assert f"{mpl.get_cachedir()}/fontlist-*.json" in said
