"""What an installation of Airflow is called, so that two of them may share an account on a back-end."""

import itertools

import pytest

from nemo_airflow.installation import installation_id


@pytest.fixture
def named(monkeypatch):
    def name(url, home="/opt/airflow", given=""):
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", url)
        monkeypatch.setenv("AIRFLOW_HOME", home)
        monkeypatch.setenv("NEMO_AIRFLOW_INSTALLATION", given)
        return installation_id()

    return name


def test_address_names_it_whatever_folder_a_machine_of_it_uses(named):
    assert named("https://airflow.example/team") == named("https://airflow.example/team/", home="/home/worker/airflow")
    assert named("https://airflow.example/team") != named("https://airflow.example/other")


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://127.0.0.1:9000", "http://[::1]:8080", ""])
def test_folder_names_it_where_the_address_is_the_machines_own(named, url):
    assert named(url) == named("http://localhost:1234")
    assert named(url, home="/home/ann/airflow") != named(url, home="/home/bob/airflow")


def test_name_that_is_given_counts_alone(named):
    urls = ("https://airflow.example", "http://localhost:8080")
    names = {named(url, home, given="ours") for url, home in itertools.product(urls, ("/a", "/b"))}
    assert names == {"ours"}
