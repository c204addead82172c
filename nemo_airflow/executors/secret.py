"""Secrets of jobs: named where a task is written, read where its job is submitted, and given to the job alone."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from nemo_airflow import connections
from nemo_airflow.exceptions import ExecutorArgumentError, NotDefinedError, SettingsError, SubmitError
from nemo_airflow.executors.fields import is_deferred

if TYPE_CHECKING:
    from nemo_airflow.executors.base import Executor

    E = TypeVar("E", bound=Executor)

_FIELDS = ("password", "login", "host", "schema", "uri")
_EXTRA = "extra."
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST = 64 << 10
"""Bytes of a value: Linux takes no more than twice that in one environment variable."""


@dataclasses.dataclass(frozen=True)
class Secret:
    """Names a secret that a job finds in an environment variable; its value is no part of it.

    Give ``conn_id``, or ``variable``.

    Attributes:
        conn_id: An Airflow connection.
        field: Which field of the connection: ``password``, ``login``, ``host``, ``schema``, ``uri`` for the whole, or
            ``extra.<key>``.
        variable: An Airflow variable.
    """

    conn_id: str | None = None
    field: str = "password"
    variable: str | None = None

    def __post_init__(self) -> None:
        """Checks that it names something.

        Raises:
            ExecutorArgumentError: It does not.
        """
        given = [name for name in (self.conn_id, self.variable) if name is not None]
        if len(given) != 1 or given[0] == "":
            raise ExecutorArgumentError("Secret takes conn_id=... or variable=..., one of them and not empty")
        if is_deferred(given[0]) or is_deferred(self.field):
            return
        if not isinstance(given[0], str) or not isinstance(self.field, str):
            raise ExecutorArgumentError("Secret: conn_id, variable and field are texts")
        if self.field not in _FIELDS and not (self.field.startswith(_EXTRA) and self.field != _EXTRA):
            raise ExecutorArgumentError(
                f"Secret: field={self.field!r} is not one of {', '.join(_FIELDS)} or extra.<key>"
            )

    @property
    def shown(self) -> str:
        """What stands in the place of the value wherever the job is shown."""
        return f"<secret of {self.source}>"

    @property
    def source(self) -> str:
        """What it names, in words."""
        if self.conn_id is None:
            return f"variable {self.variable!r}"
        field = "" if self.field == "password" else f", field {self.field}"
        return f"connection {self.conn_id!r}{field}"

    def read(self) -> str:
        """Returns the value. Blocks.

        Raises:
            NotDefinedError: It is not there, or empty.
            SettingsError: It cannot be read now.
        """
        if self.variable is not None:
            value = connections.get_variable(self.variable)
        elif self.field == "uri":
            value = connections.get_connection_uri(str(self.conn_id))
        else:
            value = self._field_of(connections.get_connection(str(self.conn_id)))
        if not value:
            raise NotDefinedError(f"{self.source} is empty")
        return value

    def _field_of(self, info: connections.ConnectionInfo) -> str:
        if not self.field.startswith(_EXTRA):
            value = str(getattr(info, self.field))
            if not value:
                raise NotDefinedError(f"connection {self.conn_id!r} has no {self.field}")
            return value
        key = self.field.removeprefix(_EXTRA)
        if info.extra.get(key) in (None, ""):
            raise NotDefinedError(f"the extra fields of connection {self.conn_id!r} have no {key!r}")
        found = info.extra[key]
        return found if isinstance(found, str) else json.dumps(found)


def check_secrets(of: str, secrets: Any, env: Iterable[str] = ()) -> dict[str, Secret]:
    """Returns the secrets of an executor or a task, each from its JSON form too. No error quotes what was given.

    Args:
        of: Whose they are, for an error.
        secrets: What was given.
        env: Names of variables that are given in plain text.

    Raises:
        ExecutorArgumentError: They are not secrets by the names of variables.
    """
    if not isinstance(secrets, Mapping):
        raise ExecutorArgumentError(
            f"{of}: secrets is {type(secrets).__name__}, not a mapping such as {{'TOKEN': Secret(conn_id='...')}}"
        )
    checked = {}
    for name, secret in secrets.items():
        if isinstance(secret, Mapping) and set(secret) <= {field.name for field in dataclasses.fields(Secret)}:
            secret = Secret(**secret)
        if not isinstance(name, str) or not (_NAME.fullmatch(name) or is_deferred(name)):
            raise ExecutorArgumentError(f"{of}: secrets has a name that is not that of an environment variable")
        if not isinstance(secret, Secret) and not is_deferred(secret):
            raise ExecutorArgumentError(
                f"{of}: secrets[{name!r}] is {type(secret).__name__}, not a Secret: put the value into a connection, "
                "and write Secret(conn_id='...')"
            )
        checked[name] = secret
    if both := sorted(checked.keys() & set(env)):
        raise ExecutorArgumentError(f"{of}: {both[0]} is given in env and in secrets: leave it out of one of them")
    return checked


def show_secrets(secrets: Mapping[str, Secret]) -> dict[str, str]:
    """Returns where the values come from, in words, by the names of their variables."""
    return {name: secret.shown for name, secret in secrets.items()}


def give_secrets(executor: E, secrets: Any, env: Iterable[str]) -> E:
    """Returns the executor with the secrets of a task besides its own; those of the task win by name.

    Args:
        executor: The executor.
        secrets: The secrets of the task, by the names of their variables.
        env: Names of the variables that the task gives in plain text.

    Raises:
        ExecutorArgumentError: They are not secrets, or jobs of the executor cannot be given any.
    """
    given = check_secrets("the task", secrets, ())
    check_secrets("the task", {**executor.secrets, **given}, env)
    return dataclasses.replace(executor, secrets={**executor.secrets, **given}) if given else executor


def read_secrets(secrets: Mapping[str, Secret]) -> dict[str, str]:
    """Returns the values of secrets by the names of their variables, and has Airflow mask them. Blocks.

    Raises:
        SubmitError: One is not there, is empty, or cannot be the value of a variable. Not retryable.
        SettingsError: One cannot be read now.
    """
    values = {}
    for name, secret in secrets.items():
        try:
            value = secret.read()
        except NotDefinedError as error:
            raise SubmitError(f"secret {name}: {error}") from None
        except SettingsError as error:
            raise SettingsError(f"secret {name}: {error}") from None
        connections.mask(value)
        if "\0" in value or len(value.encode("utf-8", "surrogatepass")) > _LARGEST:
            raise SubmitError(
                f"secret {name}: the value of {secret.source} has a NUL or is larger than {_LARGEST >> 10} KiB, and no "
                "environment variable can hold it"
            )
        values[name] = value
    return values
