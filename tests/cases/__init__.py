"""Inputs that people really have: each works, or is refused in words that help."""
