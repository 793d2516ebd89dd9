"""Commissioning: task files, the data behind them, the keys that open it, and publishing."""
