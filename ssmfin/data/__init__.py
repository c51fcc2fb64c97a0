"""Data: sources, the panel contract, range variances, joins as of the moment of knowledge, simulations."""
