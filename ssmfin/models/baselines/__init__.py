"""Owns the models that every state-space model must beat, and the fast rolling regression that they share."""
