"""Find another installed font for letters that DejaVu Sans lacks, or name them in a message.

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
# Type 3 embeds the outlines of any font. Type 42, which keeps text editable, is for TrueType only.
ANY_OUTLINES = {"pdf.fonttype": 3}

named: set[str] = set()  # the letters that a message has named in this process
unusable: set[str] = set()  # the fonts with which drawing has failed in this process


def draw_with_fallback(figure: Figure, draw: Callable[[], None]) -> None:
    """Call ``draw``, which draws the figure; again with other fonts if letters were missing.

    Prints a message on letters that no installed font has, once for each letter, and on fonts that
    matplotlib cannot draw or embed.
    """
    missing = _missing(draw)
    if families := _families(missing):
        own = {text: text.get_fontfamily() for text in figure.findobj(Text)}
        found = _with_families(own, families, draw)
        if found is None:  # a font cannot be drawn or embedded: leave out which
            bad = [one for one in families if _with_families(own, [one], draw) is None]
            unusable.update(bad or families)
            print(f"not using the font {', '.join(bad or families)} in figures: drawing fails")
            found = _with_families(own, _families(missing), draw)
        missing = _with_families(own, [], draw) if found is None else found
    if new := sorted(missing - named):
        named.update(new)
        print(
            f"No installed font has {' '.join(new)}: figures show boxes instead. Install a font "
            "that has them (for Chinese, Japanese and Korean: Noto Sans CJK), delete matplotlib's "
            f"list of fonts ({mpl.get_cachedir()}/fontlist-*.json), and make the figures again."
        )


def _with_families(
    own: dict[Text, list[str]], families: list[str], draw: Callable[[], None]
) -> set[str] | None:
    """Call ``draw`` with ``families`` after each text's own fonts; return the missing letters.

    None if drawing fails, of which FreeType and fontTools have many kinds.
    """
    for text, family in own.items():
        text.set_fontfamily([*family, *families])
    try:
        with mpl.rc_context(ANY_OUTLINES if families else {}):
            return _missing(draw)
    except Exception:
        if not families:
            raise
        return None


def _missing(draw: Callable[[], None]) -> set[str]:
    """Call ``draw`` and return the letters that matplotlib warns of; other warnings are shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw()
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
        covered = {letter for letter in letters if ord(letter) in _letters_of(entry.fname)}
        if covered and entry.name not in unusable:
            names.append(entry.name)
            letters = letters - covered
    return names


def _order(entry: font_manager.FontEntry) -> tuple:
    """Sort upright fonts of normal weight first, then by name."""
    slanted = entry.style != "normal"
    return slanted, abs(int(entry.weight) - REGULAR), entry.name, Path(entry.fname).name


@functools.cache
def _letters_of(path: str) -> frozenset[int]:
    """Return the code points of a font file.

    Of matplotlib's own fonts none, since some have formulas' signs at other letters' places; and
    none of macOS's LastResort, whose glyphs are boxes.
    """
    if Path(path).is_relative_to(mpl.get_data_path()) or "LastResort" in path:
        return frozenset()
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # removed since matplotlib listed it, or it cannot be read
        return frozenset()
