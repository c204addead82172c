"""Tells the runner that the job's outputs were fetched and are kept: it need not wait any more."""

import os
import sys

open(os.path.join(sys.argv[1], "job", "collected"), "w").close()
