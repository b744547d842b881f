"""Small words of messages and pages."""

from collections.abc import Sequence


def capitalize(text: str) -> str:
    """Capitalize the first letter only (str.capitalize lowers the others)."""
    return text[:1].upper() + text[1:]


def count(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural: "1 epoch", "4 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(values: Sequence[object]) -> str:
    """Return values as in running text: "3", "3 and 6", "1, 2 and 3"."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last
