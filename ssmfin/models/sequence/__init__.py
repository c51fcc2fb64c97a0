"""Owns the sequence models that state-space models are compared with: recurrent, convolutional, attention, linear."""
