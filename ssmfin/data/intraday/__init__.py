"""Intraday prices: lazy reading in pieces, exchange calendars, sessions, checks of ticks, previous-tick sampling."""
