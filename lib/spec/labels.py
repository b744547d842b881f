"""Display labels of a study's factors and levels, from its declaration."""

import difflib
import json
import os
from typing import Any

from lib.spec.declaration import Declaration, StudyError
from lib.spec.study import ARM
from lib.spec.sweep import show_value

LONG = 40  # characters of a level that fit into a figure


def read_labels(
    where: str, name: str, declaration: Declaration, parameters: dict[str, list[Any]]
) -> dict[str, str]:
    """Return the display names, declared or shortened, by factor, "factor=level" or study.

    ``parameters``: levels by parameter of the sweep, and the arms. In a declaration a level may be
    written as in YAML or in Python: batch_norm=true or batch_norm=True.

    Raises:
        StudyError: on a label for something that is not in the study.
    """
    known = {name: name}
    known |= {factor: factor for factor in parameters}
    for factor, levels in parameters.items():
        for level in levels:
            key = f"{factor}={show_value(level)}"
            known |= {key: key}
            if not isinstance(level, str):
                known[f"{factor}={json.dumps(level)}"] = key
            elif factor == ARM:
                known[level] = key
    if unknown := [key for key in declaration.labels if key not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise StudyError(
            f"{where}: labels: {', '.join(map(repr, unknown))} not found in this study.{hint} "
            f"Accepted: {', '.join(known)}"
        )
    shortened = {}
    for factor, levels in parameters.items():
        texts = [show_value(level) for level in levels]
        for text, short in zip(texts, _shortened(texts), strict=True):
            if short != text:
                shortened[f"{factor}={text}"] = short if factor == ARM else f"{factor} = {short}"
    return shortened | {known[key]: label for key, label in declaration.labels.items()}


def _shortened(texts: list[str]) -> list[str]:
    """Return ``texts`` shortened to at most LONG characters; unchanged if that makes two equal.

    Removes first a common beginning, such as a path, and then the middle.
    """
    if max(map(len, texts)) <= LONG:
        return texts
    common = os.path.commonprefix(texts) if len(texts) > 1 else ""  # noqa: RUF071  # also no paths
    cut = max((common.rfind(mark) + 1 for mark in "/ ,;_"), default=0)
    short = [f"…{text[cut:]}" if cut > 3 and len(text) > cut else text for text in texts]
    half = LONG // 2
    short = [t if len(t) <= LONG else f"{t[: half - 1]}…{t[-half:]}" for t in short]
    return short if len(set(short)) == len(set(texts)) else texts
