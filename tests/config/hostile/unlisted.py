"""No allow-list has this; to import it is to have failed."""

import sys

sys.stderr.write("imported unlisted\n")


def run(*args: object, **kwargs: object) -> None:
    sys.stderr.write("ran unlisted\n")
