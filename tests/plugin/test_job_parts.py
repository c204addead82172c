"""What the API tells of a job's code, files, origins and notes, and how its DAG is started again."""

import json

import httpx
import pytest

from nemo_airflow.plugin.api.previews import kind_of, read_table


@pytest.fixture(scope="module")
def call(server, runs, tokens):
    """Calls a route for the job of a DAG, as a user."""

    def call(method, route, user="ann", dag_id="shown", body=None, **query):
        place = {"dag_id": dag_id, "dag_run_id": runs[dag_id], "task_id": "train"}
        headers = {"Authorization": f"Bearer {tokens[user]}"}
        url = f"{server.url.rstrip('/')}/nemo-airflow/api/v1/job/{route}"
        return httpx.request(method, url, params=place | query, headers=headers, json=body, timeout=300)

    return call


@pytest.fixture
def read(call):
    def read(route, **more):
        answer = call("GET", route, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return read


def test_the_files_of_a_job_are_listed_with_its_report_first_and_shown_by_their_kind(read):
    top = read("files")
    assert [(file["name"], file["kind"]) for file in top["files"]] == [
        ("report.md", "markdown"), ("more", "unknown"), ("nemo_airflow", "unknown"), ("page.html", "html"),
        ("picture.svg", "image"), ("table.csv", "table"), ("values.json", "json"),
    ]  # fmt: skip
    [made] = top["artifacts"]
    assert (made["name"], made["path"], made["size"]) == ("weights", "more/deep/weights.bin", 1000)
    page = read("files", folder="more", offset=1, limit=1)
    assert page["total"] == 3
    assert [file["path"] for file in page["files"]] == ["more/<b> & 'x'.txt"]
    assert "<script>" in read("file", path="report.md")["text"]
    table = read("file", path="table.csv")["table"]
    assert table["columns"] == ["step", "loss"]
    assert len(table["rows"]) == 200
    assert table["more_rows"]
    log = read("file", path="more/train.log")
    assert log["is_cut"]
    assert log["shown"] == len(log["text"]) == 512 << 10
    assert read("file", path="more/deep/weights.bin")["why_not"]


def test_what_a_job_has_written_is_no_page_of_airflow(call):
    shown = call("GET", "file/content", path="page.html", how="inline")
    policy = shown.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script" not in policy
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    saved = call("GET", "file/content", path="more/train.log", how="inline")  # of no kind that is shown so
    assert saved.headers["Content-Type"] == "application/octet-stream"
    assert saved.headers["Content-Disposition"].startswith("attachment")
    assert len(saved.content) == 668_890


@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "more/../../x", "%2e%2e/x", "nemo_airflow/%252e%252e/x"])
def test_no_path_leads_out_of_a_run(call, path):
    for route in ("file", "file/content"):
        assert call("GET", route, path=path).status_code == 422
    assert call("GET", "files", folder=path).status_code == 422
    assert call("GET", "file", path="nothing").status_code == 404


def test_what_a_job_ran_is_told_and_compared(server, runs, call, read):
    code = read("code")["code"]
    assert code["dirty"]
    assert "+key = " in code["patch"]
    environment = read("environment")
    assert "nemo-airflow" in environment["packages"]
    assert {fact["name"] for fact in environment["facts"]} >= {"Python", "Host"}
    assert "shown-train" in read("script")["text"]
    assert "no shared store" in read("package")["why_not"]
    assert "no shared store" in read("checkpoints")["why_not"]
    assert read("code", compared_with="last")["other_run"] is None

    newer = server.trigger("shown", {"rate": 0.3})
    server.wait(lambda: server.run("shown", newer)["state"] == "success", "the run to end")
    compared = read("code", compared_with="good", dag_run_id=newer)
    before = server.call("GET", "/dags/shown/dagRuns?order_by=-run_after&state=success")["dag_runs"]
    assert compared["other_run"]["dag_run_id"] == before[1]["dag_run_id"]  # whichever test has started it
    assert {part["name"]: part["verdict"] for part in compared["changes"]} == {
        "commit": "same", "package": "same", "included files": "same",
    }  # fmt: skip
    assert read("environment", compared_with="last", dag_run_id=newer)["changes"][0]["verdict"] == "same"


def test_a_note_and_tags_are_changed_by_those_who_may_change_the_task(call, read):
    was = read("notes")
    assert was["may_edit"]
    assert not read("notes", user="vera")["may_edit"]
    assert call("POST", "note", "vera", body={"text": "x", "was": was["note"]}).status_code == 403
    assert call("POST", "note", body={"text": "# Good", "was": "something else"}).status_code == 409
    assert call("POST", "note", body={"text": "# Good", "was": was["note"]}).status_code == 200
    assert call("POST", "tags", body={"name": "quality", "value": "good"}).status_code == 200
    now = read("notes")
    assert (now["note"], now["tags"]) == ("# Good", [{"name": "quality", "value": "good"}])
    for name in ("nemo_airflow.state", "airflow.dag_id", "mlflow.user", "a+b", " "):
        assert call("POST", "tags", body={"name": name, "value": "x"}).status_code == 422
    assert call("POST", "tags", body={"name": "quality", "value": None}).status_code == 200
    assert call("POST", "tags", body={"name": "quality", "value": None}).status_code == 404
    assert call("POST", "note", body={"text": was["note"], "was": "# Good"}).status_code == 200
    assert read("notes") == was


def test_a_dag_is_started_again_with_other_values_and_not_with_wrong_ones(server, call, read):
    [field] = read("again")["fields"]
    assert (field["name"], field["value"], field["default"]) == ("rate", "0.1", "0.1")
    assert call("POST", "again", "vera", body={"conf": {"rate": 1}}).status_code == 403
    refused = call("POST", "again", body={"conf": {"rat": 1}})
    assert refused.status_code == 422
    assert "did you mean 'rate'?" in refused.json()["detail"]
    done = call("POST", "again", body={"conf": {"rate": 0.4}, "note": "a try"})
    assert done.status_code == 200, done.text
    run_id = done.json()["message"].split()[1]
    assert server.run("shown", run_id)["conf"] == {"rate": 0.4}
    assert server.run("shown", run_id)["note"] == "a try"
    server.wait(lambda: server.run("shown", run_id)["state"] == "success", "the run to end")
    record = server.xcom("shown", run_id, "train", "nemo_job")
    assert record["config"]["rate"] == "0.4"
    events = server.call("GET", "/eventLogs?event=nemo_trigger_again&dag_id=shown")["event_logs"]
    assert {event["owner"] for event in events} >= {"ann"}


def test_a_run_is_reproduced_with_a_report_by_those_who_may_start_the_dag_that_does_it(server, runs, call, read):
    form = read("reproduce")
    assert (form["dag_id"], form["may_trigger"], form["why_not"]) == ("reproduce_run", True, "")
    assert [field["name"] for field in form["fields"]] == ["on", "overrides"], "the run is that of the page"
    for user in ("vera", "rita"):
        refused = read("reproduce", user=user)
        assert (refused["may_trigger"], refused["fields"]) == (False, [])
    assert call("POST", "reproduce", "vera", body={"conf": {}}).status_code == 403
    refused = call("POST", "reproduce", body={"conf": {"overrride": ["rate=0.3"]}})
    assert refused.status_code == 422
    assert "did you mean 'overrides'?" in refused.json()["detail"]
    done = call("POST", "reproduce", body={"conf": {"run": "another", "overrides": ["rate=0.2"]}, "note": "a try"})
    assert done.status_code == 200, done.text
    place = ("reproduce_run", done.json()["message"].split()[1])
    run_id = server.xcom("shown", runs["shown"], "train", "nemo_job")["run"]["run_id"]
    assert server.run(*place)["conf"]["run"] == run_id
    state = server.wait(lambda: (state := server.run(*place)["state"]) in ("success", "failed") and state, "its end")
    assert state == "success", server.log(*place, "reproduce", 1)
    assert server.xcom(*place, "reproduce", "nemo_job")["config"]["rate"] == "0.2"
    report = server.xcom(*place, "reproduce", "reproduction")
    assert report["run_id"] == run_id
    assert report["overrides"] == ["rate=0.2"]
    assert {name: part["verdict"] for name, part in report["parts"].items()}.items() >= {
        "plan": "differs", "package": "same",
    }.items()  # fmt: skip


def test_commands_name_the_job(server, runs, read):
    run_id = server.xcom("shown", runs["shown"], "train", "nemo_job")["run"]["run_id"]
    lines = {command["name"]: command["text"] for command in read("commands")["commands"]}
    assert lines["reproduce"].startswith(f"nemo-airflow reproduce {run_id}")
    assert lines["fetch"].startswith(f"nemo-airflow fetch {run_id}/weights")
    assert json.loads(lines["shell"].partition("--executor ")[2].strip("'")) == {"kind": "local", "grace": 1}


def test_tables_of_json_lines_and_kinds_by_name():
    table = read_table("x.jsonl", '{"a": 1}\n{"a": NaN, "b": "<b>"}\n', False)
    assert table.columns == ["a", "b"]
    assert table.rows == [["1", ""], ["NaN", "<b>"]]
    assert read_table("x.jsonl", "{", False) is None
    assert read_table("x.csv", "a;b\n1;2\n3;", True).rows == [["1", "2"]]
    assert [kind_of(name) for name in ("a.PNG", "x", "a.pt", "log.txt", "log_2.txt", ".env", "a.b")] == [
        "image", "text", "unknown", "log", "log", "text", "text",
    ]  # fmt: skip
