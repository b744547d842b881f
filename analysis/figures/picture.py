"""A figure of the report, before it is drawn: its caption and the runs behind it come first."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure with its caption and the ids of the runs that it shows.

    ``draw`` returns the figure, or None where it needs files that are not here (radiographs are not
    committed). ``provenance``: of its runs where they are not the study's. ``explained``: for a
    newcomer.
    """

    name: str
    caption: str
    draw: Callable[[], Figure | None]
    runs: list[str]
    provenance: dict[str, Any] | None = None
    explained: str = ""
