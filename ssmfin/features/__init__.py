"""Owns the features: causal columns as scikit-learn transformers, one file a kind, and their place in a study."""
