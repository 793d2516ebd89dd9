"""Nouns and exact arithmetic that every other room builds on; imports nothing of ours and does no I/O."""
