"""Numbers of the networks that a config check must know. Imports no torch."""

NORM_GROUPS = 8  # channels are normalised in this many groups by norm="group"
