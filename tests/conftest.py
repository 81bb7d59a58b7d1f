"""What every test may rely on: the checkout's own packages are the ones imported."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT / "server", ROOT):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
