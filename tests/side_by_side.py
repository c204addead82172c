"""Pytest plugin: tests of one back-end run one after the other, different back-ends side by side.

Most tests of a back-end wait for it, so under ``pytest -n N --dist loadgroup --no-loadscope-reorder`` several of them
share two cores. A group is what must not be disturbed: a cluster's queue, a daemon that is killed, an Airflow; or what
is dear to start: a server of MLflow, the first run of a DAG in a process. Any other test is grouped with those of its
file, since they share their fixtures.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

# The fixtures that decide a test's group, the more particular before the others; the order is also that in which groups
# start: those that take longest begin at once, but Ray, which computes and gives up where it starts slowly, only when a
# lab of its own has come up for the tests that break things.
GROUPS = {
    "slurm": ("lab_slurm", "lab_torch"),
    "breaking": ("lab_to_break",),
    "gridengine": ("lab_gridengine",),
    "kubernetes": ("lab_kubeconfig",),
    "ray": ("several_nodes", "lab_ray"),
    "airflow": ("airflow_server",),
    "crash": ("airflow",),
    "mlflow": ("server", "uri"),
    "dag": ("airflow_database", "nemo_airflow_home"),
    "skypilot": ("sky_server",),
    "ssh": ("lab_ssh",),
    "docker": ("lab_docker",),
}


def find_group(item: pytest.Item) -> str:
    """Returns the name of the group that a test belongs to."""
    fixtures = set(getattr(item, "fixturenames", ()))
    for group, names in GROUPS.items():
        if fixtures.intersection(names):
            return group
    return Path(item.location[0]).as_posix()


# First: xdist writes the group into a test's id in the same hook, and must find the mark.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks each test with its group, and puts the groups that take longest in front."""
    if not getattr(config.option, "loadgroup", False):  # how xdist tells its workers
        return
    ranks = {group: rank for rank, group in enumerate(GROUPS)}
    groups = {item: find_group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: ranks.get(groups[item], len(ranks)))  # stable: the order within a group stays


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fails where xdist did not take the groups: tests of one back-end would disturb each other, now and then."""
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist leaves the groups of tests out: use the versions of constraints.txt")


class FailuresAtOnce:
    """Tells of a failure when it occurs: a run takes a while, and may be cut."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            write = self.config.get_terminal_writer()
            write.line()
            write.sep("-", report.nodeid)
            write.line(report.longreprtext)


def pytest_configure(config: pytest.Config) -> None:
    """Registers what tells of failures where the results come together."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(config), "failures-at-once")


_SERVICES = pytest.StashKey[list[Callable[[], object]]]()


def end_after_group(request: pytest.FixtureRequest, stop: Callable[[], object]) -> None:
    """Has a service that lasts a session end when its group has: idle daemons would take their part of the cores.

    Args:
        request: Of the fixture that started the service, and will call ``stop`` again.
        stop: Ends the service; again it changes nothing.
    """
    request.session.stash.setdefault(_SERVICES, []).append(stop)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Ends the services of a group after its last test; without groups they last as long as the session."""
    if getattr(item.config.option, "loadgroup", False) and (
        nextitem is None or find_group(nextitem) != find_group(item)
    ):
        for stop in item.session.stash.get(_SERVICES, []):
            stop()
        item.session.stash[_SERVICES] = []
