"""The explorer: plain pages on the node's own store, without scripts, made anew for every request."""
