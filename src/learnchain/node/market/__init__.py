"""What the roles of the cooperative market share: an EVM chain over JSON-RPC, one task as its events tell it."""
