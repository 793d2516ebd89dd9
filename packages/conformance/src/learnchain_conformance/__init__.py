"""The conformance kit: plays, bad inputs, vectors and documents that every engine is held against."""
