"""Times as callers have them, in unix nanoseconds as the log has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unix_ns(time: int | float | datetime) -> int:
    """An int is nanoseconds already, a float seconds; a datetime without a time zone is local time.

    Raises: TypeError, ValueError (not finite).
    """
    if isinstance(time, bool):
        raise TypeError("a time is an int of nanoseconds, a float of seconds or a datetime")
    if isinstance(time, int):
        return time
    if isinstance(time, float):
        try:
            return round(time * 1_000_000_000)
        except OverflowError:
            raise ValueError("a time is finite") from None
    if isinstance(time, datetime):
        if time.tzinfo is None:
            time = time.astimezone()
        # Whole microseconds, so nothing is lost on the way through a float.
        return (time - EPOCH) // timedelta(microseconds=1) * 1000
    raise TypeError("a time is an int of nanoseconds, a float of seconds or a datetime")
