"""Entry of the runner: ``python __main__.py [--rank | --spawn N | --array TASKS | --collect] JOB_FOLDER``."""

import os
import sys


def _main(argv: "list[str]") -> int:
    if argv[1:2] == ["--rank"]:
        from nemo_airflow.runner import ranks

        return ranks.run(argv[2])
    if argv[1:2] == ["--spawn"]:
        from nemo_airflow.runner import spawn

        return spawn.run(int(argv[2]), argv[3])
    if argv[1:2] == ["--array"]:
        from nemo_airflow.runner import array

        return array.run(argv[2], argv[3])
    if argv[1:2] == ["--collect"]:
        from nemo_airflow.runner import outputs

        return outputs.send(argv[2], sys.stdout.buffer)
    from nemo_airflow.runner.supervisor import main

    return main(argv)


if __name__ == "__main__":
    # When run by its path, the interpreter puts this folder first on the path: it must not be
    # there, or its modules would hide those of the job. The package's folder is needed instead.
    here = os.path.dirname(os.path.realpath(__file__))
    if sys.path and os.path.realpath(sys.path[0]) == here:
        sys.path[0] = os.path.dirname(os.path.dirname(here))
    sys.exit(_main(sys.argv))
