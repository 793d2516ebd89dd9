"""What the node offers to people and programs: JSON-RPC on the loopback."""
