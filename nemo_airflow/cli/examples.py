"""The example pipeline: its DAG files and their code come with this package."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

from nemo_airflow.exceptions import NemoAirflowError, SettingsError

DAG_FILE = "retrain_digits.py"
"""What a folder with the example pipeline has."""

_PACKAGED = Path(__file__).parents[1] / "examples"
_IN_REPOSITORY = Path(__file__).parents[2] / "dags"
LIBRARIES = {"sklearn": "scikit-learn", "mlflow.store.tracking.sqlalchemy_store": "mlflow"}
"""What the examples need besides this package: each module and its distribution."""

_AUTHOR = ("-c", "user.name=nemo-airflow demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgSign=false")


def find_dags(given: str | None, home: Path) -> Path:
    """Returns the folder of the DAGs to run: the given one, ``dags`` here, or a copy of the examples in the home.

    The copy is a git repository, since the package of a job is named by its commit. It is made once: what somebody
    changes in it stays.

    Args:
        given: The folder that was asked for, or None.
        home: The demo's folder.

    Raises:
        SettingsError: The given folder is none, or git is not installed.
    """
    if given is not None:
        if not Path(given).is_dir():
            raise SettingsError(f"{Path(given).absolute()} is not a folder: give --dags")
        return Path(given)
    return Path("dags") if Path("dags").is_dir() else _copy_examples(home)


def find_example_dags(given: str | None, home: Path) -> Path:
    """Returns a folder with the example pipeline, as :func:`find_dags`; ``dags`` here only where it has that.

    Raises:
        SettingsError: The given folder does not have the pipeline, or git is not installed.
    """
    if given is None:
        return Path("dags") if Path("dags", DAG_FILE).exists() else _copy_examples(home)
    if not Path(given, DAG_FILE).exists():
        raise SettingsError(f"{Path(given).absolute()} has no {DAG_FILE}: leave --dags out to run the packaged example")
    return Path(given)


def is_in_clone(dags: Path) -> bool:
    """Returns whether DAGs are those of a clone of this project, where the commands of its Makefile are at hand."""
    return dags.absolute() == _IN_REPOSITORY == Path("dags").absolute()


def check_libraries() -> None:
    """Checks that the libraries of the examples are installed.

    Raises:
        SettingsError: One of them is not; the message has the command.
    """
    missing = [name for module, name in LIBRARIES.items() if not _is_installed(module)]
    if missing:
        raise SettingsError(
            f"the example needs {' and '.join(missing)}: run 'pip install nemo-airflow[demo]', or without installing "
            "anything: uvx --from 'nemo-airflow[demo]' nemo-airflow demo"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def _copy_examples(home: Path) -> Path:
    project = home / "project"
    dags = project / "dags"
    if (dags / DAG_FILE).exists() and (project / ".git").exists():
        return dags
    source = _PACKAGED if _PACKAGED.is_dir() else _IN_REPOSITORY  # of an editable installation
    home.mkdir(parents=True, exist_ok=True)
    (home / ".gitignore").write_text("*\n")  # the folder may be in somebody's repository
    shutil.copytree(source, dags, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (project / ".gitignore").write_text("__pycache__/\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "The example pipeline of nemo-airflow"]):
        _git(project, command)
    return dags


def _git(folder: Path, arguments: list[str]) -> None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *_AUTHOR, *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise SettingsError(
            "git is not installed, and the packages of jobs are made from a repository: install git"
        ) from error
    if done.returncode:
        raise NemoAirflowError(f"'git {arguments[0]}' failed in {folder}: {done.stderr.strip()[-500:]}")
