"""Owns the models: what they are given and must answer (interface), where they are found (registry), and themselves."""
