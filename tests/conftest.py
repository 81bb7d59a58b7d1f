"""What every test may rely on: the checkout's own packages are the ones imported."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT / "server", ROOT):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

# A loaded machine is no failure: examples are bounded in number, and time is not asserted.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
