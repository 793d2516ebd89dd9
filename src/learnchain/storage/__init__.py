"""What a node keeps on disk: the key-value store and the chain in it."""
