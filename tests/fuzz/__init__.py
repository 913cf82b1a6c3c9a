"""Anything at all where something of ours is expected: only our own errors come out."""
