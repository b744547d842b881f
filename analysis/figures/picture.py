"""A figure of a report with its caption and runs, known before the figure is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure with its caption and the ids of the runs that it shows.

    ``draw`` returns the figure, or None if files are missing (radiographs are not committed).
    ``provenance``: of its runs if they belong to another study. ``explained``: an introduction for
    readers who are new to the topic.
    """

    name: str
    caption: str
    draw: Callable[[], Figure | None]
    runs: list[str]
    provenance: dict[str, Any] | None = None
    explained: str = ""
