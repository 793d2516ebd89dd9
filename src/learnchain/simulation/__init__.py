"""Shipped test kit: simulated clock and network, chain builder, vector filler."""
