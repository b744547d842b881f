"""Faults that whoever started the program can mend."""


class UserError(ValueError):
    """Bad input or a bad state of files; its text says what, and what to do. Shown as it is."""
