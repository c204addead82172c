"""Entry of the runner: ``python .../nemo_airflow/runner/__main__.py JOB_FOLDER``."""

import sys

if __name__ == "__main__":
    # Run by its path, the interpreter puts this folder first on the path: it must not be
    # there, or its modules would hide those of the job. What counts is the folder of the package.
    here = __file__.rpartition("/")[0] or "."
    if sys.path and sys.path[0] == here:
        sys.path[0] = here + "/../.."
    from nemo_airflow.runner.supervisor import main

    sys.exit(main(sys.argv))
