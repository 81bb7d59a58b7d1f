"""python -m jscore is the command jscore."""

import sys

from jscore.cli import main

sys.exit(main())
