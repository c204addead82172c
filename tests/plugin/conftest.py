"""The DAGs of these tests, in the Airflow that tests share, and calls of the API's routes."""

import functools

import httpx
import pytest
from api_routes import DOCUMENT, example


@pytest.fixture(scope="session")
def server(airflow_server):
    return airflow_server


@pytest.fixture(scope="session")
def runs(server, end_of):
    """A run each of the DAGs with a job to look at, by the DAG's id."""
    started = {dag_id: server.trigger(dag_id) for dag_id in ("shown", "private", "hostile")}
    for dag_id, run_id in started.items():
        assert end_of(dag_id, run_id) == "success"
    return started


@pytest.fixture(scope="module")
def known(server, runs):
    """What the parameters and bodies of routes have, by name, for the job of a DAG."""

    @functools.cache
    def known(dag_id):
        record = server.xcom(dag_id, runs[dag_id], "train", "nemo_job")
        place = {"dag_id": dag_id, "dag_run_id": runs[dag_id], "task_id": "train", "map_index": -1}
        run_id = record["run"]["run_id"]
        run_ids = dict.fromkeys(("mlflow_run_id", "run_id", "run", "runs", "run_ids", "base", "against"), run_id)
        return {
            **run_ids, **place, "place": place, "places": place, "key": record["key"], "metric": "loss",
            "path": "nemo_airflow/plan.json", "name": "loss",
        }  # fmt: skip

    return known


@pytest.fixture(scope="module")
def call(server, tokens, known):
    """Calls a route for the job of a DAG, as a user."""

    def call(route, user=None, dag_id="private", by="place", kind=None, **more):
        path, method = route
        about = DOCUMENT["paths"][path][method]
        values = known(dag_id)
        query = []
        for parameter in about.get("parameters", ()):
            name, schema = parameter["name"], parameter["schema"]
            if name == "metric" and not parameter.get("required"):  # comparisons, by which a list is filtered
                continue
            is_place = name in ("dag_id", "dag_run_id", "task_id", "map_index")
            if name not in values or (is_place and by != "place") or (name == "mlflow_run_id" and by == "place"):
                if parameter.get("required"):
                    query.append((name, example(schema, values)))
                continue
            copies = 2 if schema.get("type") == "array" else 1
            query += [(name, values[name])] * copies
        if "requestBody" in about and "json" not in more and "content" not in more:
            [content] = about["requestBody"]["content"].values()
            more["json"] = example(content["schema"], values)
        headers = {"Authorization": f"Bearer {tokens[user]}"} if user else {}
        if kind is not None:
            headers["Content-Type"] = kind
        prefix = server.url.rstrip("/")
        return httpx.request(method, f"{prefix}{path}", params=query, headers=headers, timeout=300, **more)

    return call
