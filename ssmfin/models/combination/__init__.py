"""Owns the combination of other models' forecasts: its settings, its weights over time, the programme behind them."""
