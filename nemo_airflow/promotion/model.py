"""A registered model of MLflow, an alias of it, and the changes of that: promoted, rolled back, each done once."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from nemo_airflow.exceptions import PromotionRefused, RegistryError
from nemo_airflow.hooks.mlflow import MLflowHook
from nemo_airflow.language.nearest import similar
from nemo_airflow.promotion.changes import (
    ALIAS_CHANGES,
    CHAMPION,
    PROMOTION,
    ROLLBACK,
    Change,
    effective_changes,
    format_changes,
    parse_changes,
    versions_in_turn,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_T = TypeVar("_T")

_ROLLED_BACK = "nemo_airflow.rolled_back"
"""Tag of a version that was in service and is so no more: why."""

_DAY = 86_400.0
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's codes for a model, a version and an alias that is not there."""


@dataclasses.dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        version: Its number.
        run_id: The run that made it; empty if it was registered without one.
        tags: Its tags.
    """

    version: str
    run_id: str
    tags: Mapping[str, str]


class PromotedModel:
    """A registered model whose version in service has an alias. Methods block.

    The record of changes is a tag of the registered model. MLflow has no transactions: let one DAG, with
    ``max_active_runs=1``, be what promotes.

    Args:
        name: The model's name in the registry.
        alias: The alias of the version in service.
        conn_id: An Airflow connection with MLflow's address and login; found as for a tracker when None.
        tracking_uri: The address, instead of the connection's.
        client: MLflow's client, instead of one for that address.

    Raises:
        MissingExtraError: MLflow is not installed.
        SettingsError: The connection is not defined.
    """

    def __init__(
        self,
        name: str,
        alias: str = CHAMPION,
        *,
        conn_id: str | None = None,
        tracking_uri: str | None = None,
        client: MlflowClient | None = None,
    ) -> None:
        self.name = name
        self.alias = alias
        self._client = client or MLflowHook(conn_id, tracking_uri).get_conn()

    def current(self) -> Version | None:
        """Returns the version in service, or None where there is none, or no such model."""
        return self.version_of(self.alias)

    def version_of(self, alias: str) -> Version | None:
        """Returns the version of an alias, or None."""
        with self._errors(f"find {self.name}@{alias}"):
            return _find(lambda: _read_version(self._client.get_model_version_by_alias(self.name, alias)))

    def changes(self) -> list[Change]:
        """Returns the promotions and rollbacks, the oldest first.

        Raises:
            RegistryError: There is no such model, or something else has written the record.
        """
        return self._state()[0]

    def register(self, run_id: str, model: str, tags: Mapping[str, str], description: str = "") -> str:
        """Registers a model that a job has logged as a version, and returns its number; once for a run and a model.

        Args:
            run_id: The job's run.
            model: The name that the job gave :func:`nemo_airflow.log_model`.
            tags: Tags of the version; also set where it is registered already.
            description: What MLflow's page says of it.

        Raises:
            RegistryError: The run has no such model, or MLflow refuses.
        """
        with self._errors(f"register the model {model} of run {run_id} as a version of {self.name}"):
            source, model_id = self._logged_model(run_id, model)
            for version in self._client.search_model_versions(f"run_id = '{run_id}'"):
                if (version.name, version.source) == (self.name, source):
                    for name, value in tags.items():
                        self._client.set_model_version_tag(self.name, str(version.version), name, value)
                    return str(version.version)
            with _unless_exists():
                self._client.create_registered_model(self.name)
            made = self._client.create_model_version(
                self.name, source, run_id=run_id, tags=dict(tags), description=description, model_id=model_id
            )
            return str(made.version)

    def _logged_model(self, run_id: str, model: str) -> tuple[str, str | None]:
        """Returns where the files of a logged model are, and its id; without id from servers before MLflow 3."""
        run = self._client.get_run(run_id)
        for output in run.outputs.model_outputs if run.outputs else ():
            logged = self._client.get_logged_model(output.model_id)
            if logged.name == model:
                return logged.artifact_location, logged.model_id
        folder = f"models/{model}"
        if f"{folder}/MLmodel" not in {file.path for file in self._client.list_artifacts(run_id, folder)}:
            raise RegistryError(
                f"run {run_id} has logged no model {model!r}: let its job call nemo_airflow.log_model(path, {model!r})"
            )
        return f"{run.info.artifact_uri}/{folder}", None

    def set_tag(self, version: str, name: str, value: str) -> None:
        """Sets a tag of a version."""
        with self._errors(f"set the tag {name} of {self.name}/{version}"):
            self._client.set_model_version_tag(self.name, version, name, value)

    def set_alias(self, alias: str, version: str | None) -> None:
        """Lets another alias, such as ``challenger``, name a version, or nothing. Not recorded."""
        with self._errors(f"set {self.name}@{alias}"):
            if version is None:
                self._client.delete_registered_model_alias(self.name, alias)
            else:
                self._client.set_registered_model_alias(self.name, alias, version)

    def promote(
        self,
        version: str,
        *,
        why: str,
        by: str = "",
        operation: str = "",
        instead_of: str | None = None,
        most_a_day: int | None = None,
        again: bool = False,
    ) -> Change:
        """Puts a version into service, and returns the change; the one that there is if it is in service already.

        Args:
            version: Its number.
            why: The reason, in one line.
            by: Who or what does it; the user of this process when empty.
            operation: What asks for it, as ``DAG/RUN/TASK``. Asked again, also after a crash or a later change, it
                returns the change that it has made.
            instead_of: The version that has to be in service now; empty for none. Any when None.
            most_a_day: Promotions within 24 hours, this one included; any number when None.
            again: Whether it may be a version that was rolled back.

        Raises:
            PromotionRefused: One of the conditions is not met; the message says which.
            RegistryError: There is no such version, or MLflow refuses.
        """
        changes, current = self._state()
        if earlier := self._find_operation(changes, current, operation):
            return earlier
        found = self.get(version)
        if current == version:
            last = next((change for change in reversed(changes) if change.version == version), None)
            return last or Change(PROMOTION, version, "", time.time(), by, why)
        where = f"version {version} of {self.name} is not promoted"
        if instead_of is not None and current != instead_of:
            raise PromotionRefused(
                f"{where}: it was compared with {_say(instead_of)}, and meanwhile {self.alias} is {_say(current)}: "
                "compare it again"
            )
        if not again and (rolled_back := found.tags.get(_ROLLED_BACK)):
            raise PromotionRefused(
                f"{where}: it was rolled back ({rolled_back}); 'nemo-airflow promote {self.name} {version} --again' "
                "promotes it all the same"
            )
        recent = [each for each in changes if each.kind == PROMOTION and each.at > time.time() - _DAY]
        if most_a_day is not None and len(recent) >= most_a_day:
            raise PromotionRefused(
                f"{where}: at most {most_a_day} may be within 24 hours, and version {recent[-1].version} was "
                f"{(time.time() - recent[-1].at) / 3600:.1f} h ago; wait, or run 'nemo-airflow promote {self.name} "
                f"{version}'"
            )
        self._forgive(found)
        change = Change(PROMOTION, version, current, time.time(), by or getpass.getuser(), why, operation, done=False)
        return self._move(changes, change)

    def rollback(self, *, why: str, to: str = "", of: str = "", by: str = "", operation: str = "") -> Change:
        """Puts back the version that was in service before, and returns the change.

        The version that leaves is tagged, and not promoted any more unless that is asked for by ``again``.

        Args:
            why: The reason, in one line.
            to: The version to put back; when empty the one before, leaving out those that were rolled back.
            of: The version that has to be in service now; any when empty.
            by: Who or what does it; the user of this process when empty.
            operation: See :meth:`promote`.

        Raises:
            RegistryError: There is none to go back to, another one is in service, or MLflow refuses.
        """
        changes, current = self._state()
        if earlier := self._find_operation(changes, current, operation):
            return earlier
        if not current:
            raise RegistryError(f"the model {self.name} has no alias {self.alias!r}: there is nothing to roll back")
        if of and of != current:
            raise RegistryError(f"version {of} of {self.name} is not in service: {self.alias} is {_say(current)}")
        target = to or self._find_earlier(changes, current)
        if target == current:
            raise RegistryError(f"{self.alias} of {self.name} is {_say(current)} already")
        self._forgive(self.get(target))
        self.set_tag(current, _ROLLED_BACK, why)
        change = Change(ROLLBACK, target, current, time.time(), by or getpass.getuser(), why, operation, done=False)
        return self._move(changes, change)

    def get(self, version: str) -> Version:
        """Returns a version by its number.

        Raises:
            RegistryError: There is no such version.
        """
        with self._errors(f"find {self.name}/{version}"):
            found = _find(lambda: _read_version(self._client.get_model_version(self.name, version)))
            if found is not None:
                return found
            known = [str(each.version) for each in self._client.search_model_versions(f"name = '{self.name}'")]
        raise RegistryError(
            f"the model {self.name} has no version {version!r}: it has {', '.join(sorted(known, key=int)) or 'none'}"
        )

    def _forgive(self, version: Version) -> None:
        if _ROLLED_BACK in version.tags:
            with self._errors(f"delete the tag {_ROLLED_BACK} of {self.name}/{version.version}"):
                self._client.delete_model_version_tag(self.name, version.version, _ROLLED_BACK)

    def _find_earlier(self, changes: list[Change], current: str) -> str:
        turn = versions_in_turn(changes, current)[:-1]
        while turn and _ROLLED_BACK in self.get(turn[-1]).tags:
            turn.pop()
        if turn:
            return turn[-1]
        raise RegistryError(
            f"{self.name} has no version to go back to: {_say(current)} is the first that was promoted; name one with "
            f"'nemo-airflow rollback {self.name} --to VERSION'"
        )

    def _find_operation(self, changes: list[Change], current: str, operation: str) -> Change | None:
        """Returns what an operation has changed, or was about to when its process died; None if it was not here."""
        found = next((change for change in changes if operation and change.operation == operation), None)
        if found is None or found.done:
            return found
        if current not in (found.before, found.version):
            raise RegistryError(
                f"{operation} was to set {self.alias} of {self.name} to {_say(found.version)} and died, and "
                f"meanwhile it is {_say(current)}: decide by hand, with 'nemo-airflow promote {self.name} VERSION'"
            )
        return self._move([each for each in changes if each is not found], found)

    def _move(self, changes: list[Change], change: Change) -> Change:
        """Records a change before and after the alias is moved, so that whoever asks again finds what was done."""
        done = dataclasses.replace(change, done=True)
        changes = effective_changes(changes, change.before)
        with self._errors(f"set {self.name}@{self.alias} to version {change.version}"):
            tag = ALIAS_CHANGES.format(self.alias)
            self._client.set_registered_model_tag(self.name, tag, format_changes([*changes, change]))
            self._client.set_registered_model_alias(self.name, self.alias, change.version)
            self._client.set_registered_model_tag(self.name, tag, format_changes([*changes, done]))
        return done

    def _state(self) -> tuple[list[Change], str]:
        """Returns the changes, the oldest first, and the version in service; empty for none.

        Raises:
            RegistryError: There is no such model, or something else has written the record.
        """
        with self._errors(f"find the model {self.name}"):
            model = _find(lambda: self._client.get_registered_model(self.name))
            if model is None:
                known = [each.name for each in self._client.search_registered_models()]
                raise RegistryError(
                    f"MLflow has no registered model {self.name!r}{similar(self.name, known)}; it has "
                    f"{', '.join(known) or 'none'}"
                )
        tag = ALIAS_CHANGES.format(self.alias)
        try:
            return parse_changes(model.tags.get(tag, "")), str(model.aliases.get(self.alias, ""))
        except ValueError as error:
            raise RegistryError(
                f"the tag {tag} of the model {self.name} cannot be read ({error}): delete it in MLflow to begin anew"
            ) from None

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise RegistryError(f"MLflow cannot {doing}: {' '.join(str(error).split())[:500]}") from error


def _find(ask: Callable[[], _T]) -> _T | None:
    """Returns what MLflow has, or None where it has none."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in _MISSING:
            return None
        raise


@contextlib.contextmanager
def _unless_exists() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _read_version(found: Any) -> Version:
    # A number from a database, but a text from a server.
    return Version(str(found.version), found.run_id or "", dict(found.tags))


def _say(version: str) -> str:
    return f"version {version}" if version else "no version"
