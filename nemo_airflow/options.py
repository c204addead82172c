"""The settings of this project: options of Airflow's section ``[nemo_airflow]``, and how each is read.

A setting is the first of these that is there and not empty:

1. ``$NEMO_AIRFLOW_<NAME>``;
2. ``$AIRFLOW__NEMO_AIRFLOW__<NAME>``, as for any of Airflow's options;
3. ``<name>`` in the section ``[nemo_airflow]`` of ``airflow.cfg``;
4. its default.

The command line, and a job on a back-end, read them without Airflow: ``airflow.cfg`` is read here as Airflow reads it.
"""

from __future__ import annotations

import configparser
import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import SettingsError

SECTION = "nemo_airflow"


@dataclasses.dataclass(frozen=True)
class Option:
    """A setting.

    Attributes:
        name: Its name in ``[nemo_airflow]``.
        kind: ``string``, ``integer``, ``float`` or ``boolean``, as Airflow's schema has them.
        default: What counts where it is not set; empty for none.
        example: A value.
        description: What it does, in one or two sentences.
        version_added: The version of this project that had it first.
    """

    name: str
    kind: str
    default: str
    example: str
    description: str
    version_added: str = "0.1.0"

    @property
    def variable(self) -> str:
        """The environment variable that goes before Airflow's."""
        return f"NEMO_AIRFLOW_{self.name.upper()}"

    @property
    def airflow_variable(self) -> str:
        """Airflow's own environment variable for it."""
        return f"AIRFLOW__{SECTION.upper()}__{self.name.upper()}"


OPTIONS = {
    option.name: option
    for option in (
        Option(
            "home",
            "string",
            "",
            "/var/lib/nemo_airflow",
            "Folder for packages, local jobs, records that wait for a tracking server, and the default store of runs. "
            "Unless set, nemo_airflow in AIRFLOW_HOME.",
        ),
        Option(
            "store",
            "string",
            "",
            "s3://aws_default@bucket/nemo",
            "Address of the store that workers on several machines share: a folder, ssh://, s3://, gs:// or abfs://.",
        ),
        Option(
            "allow",
            "string",
            "",
            "zoo.,shop.models:Net",
            "What configs may import besides their own code: names and prefixes, with commas between them.",
        ),
        Option(
            "package_format",
            "string",
            "",
            "tar.gz",
            "Format of packages, tar.gz or tar.zst. Unless set, one that the job is known to read.",
        ),
        Option(
            "defer_after",
            "float",
            "10",
            "30",
            "Seconds for which a worker follows a job before its task is deferred.",
        ),
        Option(
            "lost_after",
            "float",
            "60",
            "300",
            "Seconds after which a job that its back-end does not know counts as lost. Three answers have to say so.",
        ),
        Option(
            "give_up_after",
            "float",
            "",
            "86400",
            "Seconds of an outage of a back-end after which a task fails, whatever its job does. Never unless set.",
        ),
        Option(
            "spool_limit",
            "integer",
            str(10 << 30),
            "1073741824",
            "Bytes that records may take on disk while their tracking server is away.",
        ),
        Option(
            "patch_with_secret",
            "string",
            "apart",
            "refuse",
            "What becomes of uncommitted changes that hold a secret: apart keeps their patch on this machine, refuse "
            "fails the task.",
        ),
        Option(
            "mlflow_page",
            "string",
            "",
            "https://mlflow.example",
            "Address of an MLflow page that shows the default store of runs, for links.",
        ),
        Option(
            "mlflow_connection",
            "string",
            "",
            "mlflow_default",
            "Airflow connection of the MLflow whose runs the pages list. Unless set, that of tasks that name none.",
        ),
        Option(
            "back_ends",
            "string",
            "",
            "slurm_prod,ray_prod",
            "Connections that the page of back-ends shows beside those in Airflow's database and in variables of its "
            "API server: those that only a secrets back-end has, with commas between them.",
        ),
        Option(
            "reproduce_dag",
            "string",
            "reproduce_run",
            "again",
            "DAG that the page of a job starts to reproduce it: one with a NemoReproduceOperator and the param run.",
        ),
        Option(
            "consoles",
            "string",
            "",
            '{"kubernetes": "https://k8s.example/#/search?q={key}"}',
            "Addresses of jobs in the consoles of back-ends, by kind of executor, as a JSON object: {key}, {id} and "
            "{cluster} are replaced. Ray's dashboard is known without.",
        ),
        Option(
            "installation",
            "string",
            "",
            "research",
            "Name of this installation of Airflow where several of one [api] base_url share an account of a back-end.",
        ),
        Option(
            "preload",
            "boolean",
            "True",
            "False",
            "Whether a scheduler or Celery worker imports what tasks need once, before it forks them.",
        ),
    )
}
"""Every setting, by its name."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a setting is.

    Attributes:
        text: Its value.
        source: What it comes from, for messages: a variable, an option with its file, or ``default``.
    """

    text: str
    source: str


def read_option(name: str) -> Reading:
    """Returns what a setting is, by the order above.

    Raises:
        SettingsError: ``airflow.cfg`` cannot be read.
    """
    option = OPTIONS[name]
    if text := os.environ.get(option.variable):
        return Reading(text, option.variable)
    if text := _expand(os.environ.get(option.airflow_variable, "")):
        return Reading(text, option.airflow_variable)
    path = _config_file()
    if text := _expand(_read_section(path).get(name, "")):
        return Reading(text, f"{path}: [{SECTION}] {name}")
    return Reading(option.default, "default")


def config_section() -> dict[str, Any]:
    """Returns the section in the form of Airflow's ``provider_info.schema.json``."""
    options = {
        option.name: {
            "description": option.description,
            "version_added": option.version_added,
            "type": option.kind,
            "example": option.example,
            "default": option.default or None,
        }
        for option in OPTIONS.values()
    }
    return {SECTION: {"description": "Settings of nemo-airflow: docs/provider.md.", "options": options}}


def _config_file() -> Path:
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    return Path(_expand(os.environ.get("AIRFLOW_CONFIG") or f"{home}/airflow.cfg"))


def _expand(text: str) -> str:
    """Expands variables and ``~`` as Airflow does: until nothing changes."""
    while text != (expanded := os.path.expanduser(os.path.expandvars(text))):
        text = expanded
    return text


def _read_section(path: Path) -> dict[str, str]:
    try:
        status = path.stat()
    except OSError:
        return {}
    return _parse(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _parse(path: Path, changed: int, size: int) -> dict[str, str]:
    # Its time and size are arguments only to read it again once it is another.
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign] # as Airflow's
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
        return dict(parser.items(SECTION)) if parser.has_section(SECTION) else {}
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        said = " ".join(str(error).split())
        raise SettingsError(
            f"{path} cannot be read as Airflow's configuration: {said}; mend it, or set what is needed "
            f"as ${OPTIONS['home'].variable} and the like"
        ) from error
