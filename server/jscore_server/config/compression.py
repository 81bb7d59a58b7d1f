"""How a route is compressed: the words of the configuration, and what is wrong with them. Pure."""

from __future__ import annotations

import msgspec

__all__ = ["AUTO", "LEVELS", "MODES", "NOT_SUPPORTED", "OFF", "Compression", "mode_of"]

OFF, ACCEPT, AUTO, FAST, NOT_SUPPORTED = "off", "accept", "s2_auto", "s2_fast", "not supported"
LEVELS = ("s2_uncompressed", FAST, "s2_better", "s2_best")
"""In the data plane's order."""

MODES = {
    **dict.fromkeys((OFF, "disabled", "false"), OFF),
    **dict.fromkeys(("", ACCEPT), ACCEPT),
    **dict.fromkeys((AUTO, "auto"), AUTO),
    **dict.fromkeys((FAST, "fast", "on", "enabled", "true"), FAST),
    **dict.fromkeys(("s2_better", "better"), "s2_better"),
    **dict.fromkeys(("s2_best", "best"), "s2_best"),
    **dict.fromkeys((NOT_SUPPORTED, "not_supported"), NOT_SUPPORTED),
}
"""The words a file may use, in small letters, and what they mean."""

THRESHOLDS_S = (0.01, 0.05, 0.1)
THRESHOLDS_MAX = 4


def mode_of(word: str | bool) -> str | None:
    """The mode a word of the file stands for; None: there is no such word."""
    return MODES.get(str(word).lower())


class Compression(msgspec.Struct):
    """`compression` as it was written: which words there are is checked at a start."""

    word: str | bool = ACCEPT
    rtt_thresholds: list[float] = []  # seconds; none: the usual ones

    @property
    def mode(self) -> str:
        return mode_of(self.word) or ACCEPT

    @property
    def thresholds_ns(self) -> tuple[int, ...]:
        """Up to which round-trip time each level is used; () where that does not matter."""
        if self.mode != AUTO:
            return ()
        return tuple(round(seconds * 1e9) for seconds in self.rtt_thresholds or THRESHOLDS_S)

    def fault(self) -> str:
        """Why no server may start with it; ''."""
        if mode_of(self.word) is None:
            return f'unsupported compression mode "{self.word}"'
        if self.mode != AUTO or not self.rtt_thresholds:
            return ""
        given = self.rtt_thresholds
        shown = f"[{' '.join(f'{seconds * 1000:g}ms' for seconds in given)}]"
        if len(given) > THRESHOLDS_MAX:
            return f'compression mode "{AUTO}" should have no more than {THRESHOLDS_MAX} RTT thresholds: {shown}'
        used = [seconds for seconds in given if seconds > 0]
        if not used:
            return f'compression mode "{AUTO}" requires at least one RTT threshold'
        if used != sorted(used):
            return f"RTT threshold values {shown} should be in ascending order"
        return ""
