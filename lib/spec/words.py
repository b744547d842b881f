"""Small words of messages and pages."""


def capitalize(text: str) -> str:
    """Capitalize the first letter only (str.capitalize lowers the others)."""
    return text[:1].upper() + text[1:]


def count(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural: "1 epoch", "4 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
