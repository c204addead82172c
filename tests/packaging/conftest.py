"""Real repositories, a store, and a look into packages as a job would unpack them."""

import itertools

import pytest
from packaging_cases import commit_files, run_git, unpack

from nemo_airflow.packaging import PackageStore


@pytest.fixture
def git():
    return run_git


@pytest.fixture
def commit():
    return commit_files


@pytest.fixture
def store(tmp_path):
    return PackageStore(tmp_path / "store")


@pytest.fixture
def unpacked(store, tmp_path):
    """Unpacks a package as the runner does."""
    numbers = itertools.count()
    return lambda package, store=store: unpack(package, store, tmp_path / f"job{next(numbers)}")


@pytest.fixture
def contents(unpacked):
    """The same, without modes."""
    return lambda package, **where: {
        name: data if isinstance(data, str) else data[0] for name, data in unpacked(package, **where).items()
    }
