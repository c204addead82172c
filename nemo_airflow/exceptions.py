"""Every error of this project, in one tree.

    NemoAirflowError
    ├── ConfigError                  a config is wrong; carries the path of the wrong node
    │   ├── UnknownParameterError    the target has no such parameter
    │   ├── MissingParameterError    a required parameter was not given
    │   ├── ParameterTypeError       a value does not fit its annotation
    │   ├── OverrideError            an override names a path that is not there, or cannot be read
    │   ├── TargetNotImportableError a job could not import the function or class
    │   ├── TargetNotAllowedError    a target is not in the allow-list
    │   └── PlanError                a plan is not valid
    ├── PackagingError               the code to ship cannot be packaged
    │   ├── NotARepositoryError      there is no git repository, or one without a commit
    │   └── UncommittedChangesError  there are changes that the packager refuses
    ├── StoreError                   the store of packages and outputs refused a request, or has damaged content
    │   └── StoreUnavailable         a transport error: try again
    ├── ArtifactError                an artifact is not there any more, is damaged, or cannot be kept
    ├── ExecutorError                a back-end refused something
    │   ├── ExecutorArgumentError    an executor does not accept an argument; a ConfigError too
    │   ├── BackendUnavailable       a transport error: try again, the job's state is not known
    │   ├── OutputsLost              the back-end has a job's outputs no more
    │   ├── NotStarted               the job needs its package from here when it starts, and is queued
    │   └── SubmitError              the back-end refused the job
    ├── JobFailed                    the job ran and did not succeed; carries its failure kind and traceback
    ├── TrackingError                the tracking server refused something, or could not be reached
    ├── RegistryError                the registry of models has no such model or version, or refused something
    │   └── PromotionRefused         a version may not be put into service, and why
    ├── StreamError                  a record on a job's stream cannot be read
    ├── SettingsError                this process's environment is set up wrongly (a port in use ...)
    │   └── NotDefinedError          there is no connection or variable of that name
    └── MissingExtraError            an optional dependency is not installed

Every message is one line that says what is wrong, where, and what to do. The original
exception, where there is one, is chained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemo_airflow.language.errors import ConfigError as ConfigError
from nemo_airflow.language.errors import MissingParameterError as MissingParameterError
from nemo_airflow.language.errors import NemoAirflowError as NemoAirflowError
from nemo_airflow.language.errors import OverrideError as OverrideError
from nemo_airflow.language.errors import ParameterTypeError as ParameterTypeError
from nemo_airflow.language.errors import PlanError as PlanError
from nemo_airflow.language.errors import TargetNotAllowedError as TargetNotAllowedError
from nemo_airflow.language.errors import TargetNotImportableError as TargetNotImportableError
from nemo_airflow.language.errors import UnknownParameterError as UnknownParameterError

if TYPE_CHECKING:
    from nemo_airflow.job import JobHandle


class PackagingError(NemoAirflowError):
    """The code to ship cannot be packaged."""


class NotARepositoryError(PackagingError):
    """No git repository at that path, or one that has no commit yet."""


class UncommittedChangesError(PackagingError):
    """The working tree has changes that the packager refuses."""


class StoreError(NemoAirflowError):
    """The store of packages and outputs refused a request, or the requested content is missing or damaged."""


class StoreUnavailable(StoreError):
    """The store could not be reached, or the connection broke: the same call may succeed later."""


class ArtifactError(NemoAirflowError):
    """An artifact is not there any more, is not what its digest says, or cannot be kept."""


class ExecutorError(NemoAirflowError):
    """A back-end refused a request, or was used wrongly."""


class ExecutorArgumentError(ExecutorError, ConfigError):
    """An executor does not accept an argument. Not retryable."""


class BackendUnavailable(ExecutorError):
    """The back-end could not be reached. The state of its jobs is not known."""


class AccessRefused(ExecutorError):
    """The back-end lets us in no more, or not yet: a login, a token, a right. Says nothing about the state of any job.

    A job that is followed goes on meanwhile; what is submitted is refused.
    """


class SubmitError(ExecutorError):
    """The back-end refused the job.

    Args:
        message: The back-end's own reason, in one line.
        kind: A :class:`nemo_airflow.job.FailureKind` value, for the retry policy.
    """

    def __init__(self, message: str, kind: str = "user_error") -> None:
        self.kind = kind
        super().__init__(message)


class OutputsLost(ExecutorError):
    """The back-end has the outputs of a job no more: nobody fetched them in time, or its machine is gone."""


class NotStarted(ExecutorError):
    """The job is queued, and needs its package from here when it starts: submit it again then.

    Args:
        handle: The :class:`nemo_airflow.job.JobHandle`.
    """

    def __init__(self, handle: JobHandle) -> None:
        self.handle = handle
        super().__init__(f"job {handle.key} has not started yet, and its package cannot be sent before that")


class JobFailed(NemoAirflowError):
    """The job ended without success.

    Args:
        message: One line: the job's own error, or why the back-end ended it.
        kind: A :class:`nemo_airflow.job.FailureKind` value.
        traceback: The job's traceback, or an empty string.
    """

    def __init__(self, message: str, kind: str, traceback: str = "") -> None:
        self.kind = kind
        self.traceback = traceback
        super().__init__(f"{message}\n\n{traceback}" if traceback else message)


class TrackingError(NemoAirflowError):
    """The tracking server refused something, or could not be reached.

    Args:
        message: One line: what was refused, and why.
        transient: Whether the same call may succeed later: the server is down, slow or overloaded.
        code: The server's own error code, or empty.
    """

    def __init__(self, message: str, *, transient: bool = False, code: str = "") -> None:
        self.transient = transient
        self.code = code
        super().__init__(message)


class RegistryError(NemoAirflowError):
    """The registry of models has no such model, version or alias, or refused something."""


class PromotionRefused(RegistryError):
    """A version may not be put into service: one promotion a day, another champion meanwhile, rolled back before."""


class StreamError(NemoAirflowError, ValueError):
    """A record on a job's stream is malformed or of an unknown version."""


class SettingsError(NemoAirflowError):
    """The environment is set up wrongly: a port in use, a folder that cannot be written ..."""


class NotDefinedError(SettingsError):
    """No secrets back-end has a connection, or a variable, of that name, and each of them could be asked."""


class MissingExtraError(NemoAirflowError, ImportError):
    """An optional dependency is not installed.

    Args:
        feature: The feature that needs it, for example ``DockerExecutor``.
        extra: The extra of this distribution that installs it, for example ``docker``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.extra = extra
        super().__init__(
            f"{feature} needs the '{extra}' extra, which is not installed: pip install 'nemo-airflow[{extra}]'"
        )
