"""Execution engines as the node sees them: asynchronous, one call at a time, off the event loop."""
