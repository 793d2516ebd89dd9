"""Encrypted training rows in the round: the data node's part and the miner's, in a process without torch."""
