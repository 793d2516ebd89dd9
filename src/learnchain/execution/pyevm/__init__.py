"""The embedded engine: py-evm's Prague rules at the level of states, over our own store, with our own fork choice."""

import os

# The family's default hash back end is four times slower; the choice is made at the first hash, so it stands here.
os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")
