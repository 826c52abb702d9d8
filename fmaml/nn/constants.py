"""Constants of the networks that the config checks need. Imports no torch."""

NORM_GROUPS = 8  # norm="group" normalises the channels in this many groups
