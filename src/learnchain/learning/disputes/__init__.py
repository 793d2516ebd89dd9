"""Check somebody else's training: replay segments, bisect to one step, settle it by the reference computation."""
