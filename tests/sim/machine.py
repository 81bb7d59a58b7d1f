"""What a simulated replica makes of the records that it applies, and a snapshot holds. Pure."""

from __future__ import annotations

import json
import zlib
from typing import Any


class Digest:
    """A number for all records ever applied, in their order."""

    def __init__(self) -> None:
        self.value = 0
        self.count = 0

    def apply(self, index: int, data: Any) -> None:
        """Record `index`, if it is one of the state's: a leader's first one and those of members are not."""
        if isinstance(data, str):
            self.value = zlib.crc32(data.encode(), self.value ^ index)
            self.count += 1

    def print(self) -> Any:
        """Equal for equal states."""
        return self.value, self.count

    def dump(self) -> str:
        return json.dumps([self.value, self.count])

    def load(self, dumped: str) -> None:
        self.value, self.count = json.loads(dumped)
