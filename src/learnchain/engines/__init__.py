"""What each paper decides: the ten questions in `contract.py`, one folder per engine, pure."""

DEFAULT_ENGINE = "dlbc"
"""What a local network runs where nobody names a consensus."""
