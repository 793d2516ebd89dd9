"""The composition root: one process of one node, from its settings."""
