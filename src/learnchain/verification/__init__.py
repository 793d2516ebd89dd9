"""Checking: what a node measures, replays and believes, block by block."""
