"""Peers: transports below, one gossip and request protocol above."""
