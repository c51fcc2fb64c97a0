"""Owns the judging: folds, designs cut at their cutoff, the one path of every forecast, losses, tests, the verdict."""
