"""Owns the deep state-space models: forecasters that correct a frozen linear baseline."""
