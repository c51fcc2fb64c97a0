"""Realized measures of a session from prices within it: estimators, their table, and the pass over a source."""
