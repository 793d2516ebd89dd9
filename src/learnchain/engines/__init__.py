"""What each paper decides: the ten questions in `contract.py`, one folder per engine, pure."""
