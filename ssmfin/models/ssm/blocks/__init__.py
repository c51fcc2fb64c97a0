"""Owns the blocks of the deep state-space models, and the windowed attention that hybrids put between them."""
