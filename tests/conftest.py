"""What every test may rely on: the checkout's own packages are the ones imported."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT / "server", ROOT):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

# Under sanitizers, modules that were built without them would pass for sound.
if lib := os.environ.get("JSCORE_SANITIZED"):
    for name in ("jscore._log", "jscore._records"):
        found = find_spec(name)
        origin = found.origin if found else None
        assert str(origin).startswith(f"{lib}/"), f"{name} is {origin}, not of {lib}"

# A loaded machine is no failure: examples are bounded in number, and time is not asserted.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
