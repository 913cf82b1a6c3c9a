"""The story of a batch, in the domain's words: claim, read, merge, write, settle, follow."""
