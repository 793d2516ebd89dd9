"""The roles of the papers under one name each: publisher, miner, full node; one class each, one method per action."""
