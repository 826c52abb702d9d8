"""Durations and numbers of bytes as text."""


def minutes_and_seconds(seconds: float) -> str:
    """A duration as text, such as 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
