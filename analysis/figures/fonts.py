"""Letters that the figures' font lacks, such as Chinese ones: another installed font, or a message.

The order of the fonts does not depend on the machine, only on which are installed.
"""

import functools
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

GLYPH = re.compile(r"Glyph (\d+) .*missing from")  # matplotlib's warning
REGULAR = 400  # the weight of an upright, normal font


def written(figure: Figure, write: Callable[[], None]) -> set[str]:
    """Run ``write``, which draws the figure, and return the letters that no font has.

    If the figure's font lacks letters that another installed font has, that font is added to the
    figure's texts and ``write`` is run again.
    """
    lacking = _lacking(write)
    families = _families(lacking)
    if families:
        for text in figure.findobj(Text):
            text.set_fontfamily([*text.get_fontfamily(), *families])
        lacking = _lacking(write)
    return lacking


def advice(letters: set[str]) -> str:
    """Say in a sentence which letters could not be drawn, and what to do."""
    return (
        f"No installed font has {' '.join(sorted(letters))}: the figures show boxes instead. "
        "Install a font that has them (for Chinese, Japanese and Korean: Noto Sans CJK), delete "
        f"{mpl.get_cachedir()}, and write the report again."
    )


def _lacking(write: Callable[[], None]) -> set[str]:
    """Run ``write`` and return the letters that matplotlib warned of; other warnings are shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write()
    letters = set()
    for one in caught:
        if found := GLYPH.match(str(one.message)):
            letters.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return letters


def _families(letters: set[str]) -> list[str]:
    """Return the names of installed fonts that together have as many of the letters as possible."""
    names = []
    for entry in sorted(font_manager.fontManager.ttflist, key=_order) if letters else []:
        has = {letter for letter in letters if ord(letter) in _letters_of(entry.fname)}
        if has:
            names.append(entry.name)
            letters = letters - has
    return names


def _order(entry: font_manager.FontEntry) -> tuple:
    """Sort upright fonts of normal weight first, then by name."""
    slanted = entry.style != "normal"
    return slanted, abs(int(entry.weight) - REGULAR), entry.name, Path(entry.fname).name


@functools.cache
def _letters_of(path: str) -> frozenset[int]:
    """Return the code points of a font file; of fonts for formulas and last resorts, none."""
    if Path(path).is_relative_to(mpl.get_data_path()) or "LastResort" in path:
        return frozenset()
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # gone since matplotlib listed it, or of a kind it cannot read
        return frozenset()
