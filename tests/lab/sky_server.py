"""A stand-in for SkyPilot's API server and the clouds behind it, for SkyPilot's own client.

It answers as the real server was seen to (version 0.10.3), in that server's own encoding, and what a task has a
machine do it does on this one, in a folder in a machine's place, with the log as Ray writes it.
"""

import contextlib
import io
import json
import os
import pickle
import signal
import subprocess
import tempfile
import threading
import time
import uuid
import zipfile
from base64 import b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

HEALTH = {
    "status": "healthy", "api_version": "18", "version": "0.10.3", "version_on_disk": "0.10.3",
    "commit": "1e23b5b222311decfb86cf6feba8a93b8572dcea", "basic_auth_enabled": False, "user": None,
}  # fmt: skip


NONE = b64encode(pickle.dumps(None)).decode()

CLUSTER = {
    "status": "UP", "handle": NONE, "storage_mounts_metadata": NONE, "launched_at": 0, "last_use": "", "autostop": 10,
    "to_down": True, "cluster_hash": "h", "cluster_ever_up": True, "status_updated_at": 0, "user_hash": "u",
    "user_name": "u", "workspace": "default", "nodes": 1,
}  # fmt: skip


class Job:
    """A job on one of the clusters, or one that the controller manages."""

    def __init__(self, number: int, name: str, cluster: str, machines: list[Path], task: dict[str, Any]) -> None:
        self.number, self.name, self.cluster = number, name, cluster
        self.submitted_at = time.time()
        self.status = "RUNNING"
        self.log: list[str] = ["\x1b[2mJob started. Streaming logs...\x1b[0m\n"]
        self._copies: list[threading.Thread] = []
        self._processes = [self._start(rank, machines, task) for rank in range(len(machines))]
        threading.Thread(target=self._wait, daemon=True).start()

    def _start(self, rank: int, machines: list[Path], task: dict[str, Any]) -> subprocess.Popen[str]:
        env = {
            "PATH": os.environ["PATH"], "HOME": str(machines[rank]), **task.get("envs", {}), **task.get("secrets", {}),
            "SKYPILOT_NUM_NODES": str(len(machines)), "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NODE_IPS": "\n".join(["127.0.0.1"] * len(machines)),
        }  # fmt: skip
        process = subprocess.Popen(
            ["bash", "-c", task.get("run", "")], env=env, cwd=machines[rank], text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        name = f"{'head' if rank == 0 else f'worker{rank}'}, rank={rank}" if len(machines) > 1 else self.name
        copy = threading.Thread(target=self._copy, args=(process, f"\x1b[36m({name}, pid={process.pid})\x1b[0m "))
        copy.start()
        self._copies.append(copy)
        return process

    def _copy(self, process: subprocess.Popen[str], prefix: str) -> None:
        for line in process.stdout or ():
            self.log.append(prefix + (line if line.endswith("\n") else line + "\n"))

    def _wait(self) -> None:
        # The log first: what a job has written is there when SkyPilot says that it has ended.
        for copy in self._copies:
            copy.join()
        codes = [process.wait() for process in self._processes]
        if self.status != "CANCELLED":
            self.status = "FAILED" if any(codes) else "SUCCEEDED"

    def cancel(self) -> None:
        """Ends it as SkyPilot does: SIGTERM for all its processes."""
        if self.status == "RUNNING":
            self.status = "CANCELLED"
            for process in self._processes:
                _signal(process, signal.SIGTERM)

    def end(self) -> None:
        """Ends it with its machines: what still writes to their folders, too."""
        self.cancel()
        for process, copy in zip(self._processes, self._copies, strict=True):
            if copy.is_alive():  # somebody has its standard output: its group is there
                _signal(process, signal.SIGKILL)
                copy.join(10)


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended, which is not yet noted
        os.killpg(process.pid, number)


class SkyServer:
    """The server. ``refusal`` is what launches are refused with, or None; ``log_bytes`` were sent of logs."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nemo-sky-")
        self.root = Path(self._folder.name)
        self.jobs: list[Job] = []
        self.clusters: dict[str, int] = {}
        self.refusal: Exception | None = None
        self.away = False
        self.launched: list[dict[str, Any]] = []
        self.log_bytes = 0
        self._lock = threading.Lock()
        self._answers: dict[str, dict[str, Any]] = {}
        self._bodies: dict[str, str] = {}
        self.clouds_are_slow = False
        self._launches: dict[str, dict[str, Any]] = {}
        handler = type("Handler", (_Handler,), {"sky": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends the server and the jobs."""
        for job in self.jobs:
            job.end()
        self._http.shutdown()
        self._http.server_close()
        self._folder.cleanup()

    def call(self, path: str, body: dict[str, Any]) -> str:
        """Carries out a request, and keeps its answer; returns its id."""
        number = uuid.uuid4().hex
        self._answers[number] = {
            "request_id": number, "name": "sky." + path.strip("/").replace("/", "."), "entrypoint": NONE,
            "request_body": NONE, "status": "RUNNING", "created_at": time.time(), "user_id": "u",
            "return_value": json.dumps(None), "error": json.dumps(None), "pid": None, "schedule_type": "short",
        }  # fmt: skip
        self._bodies[number] = json.dumps(body)
        if "launch" in path and self.clouds_are_slow:
            self._launches[number] = body
        else:
            self._carry_out(number, path, body)
        return number

    def give_machines(self) -> None:
        """Has slow clouds give the machines of all launches that wait for them."""
        self.clouds_are_slow = False
        while self._launches:
            number, body = self._launches.popitem()
            self._carry_out(number, "/launch" if body.get("cluster_name") else "/jobs/launch", body)

    def _carry_out(self, number: str, path: str, body: dict[str, Any]) -> None:
        value = error = None
        try:
            value = _CALLS[path](self, body)
        except Exception as caught:  # noqa: BLE001 - the client raises it
            from sky.exceptions import serialize_exception

            plain = b64encode(pickle.dumps(serialize_exception(caught))).decode()
            error = {"object": plain, "type": type(caught).__name__, "message": str(caught)}
        self._answers[number] |= {
            "status": "FAILED" if error else "SUCCEEDED", "return_value": json.dumps(value), "error": json.dumps(error),
        }  # fmt: skip

    def requests(self, numbers: list[str]) -> list[dict[str, Any]]:
        """Returns how requests fare, as the real server shows them; those that have not ended for no number."""
        chosen = numbers or [number for number, answer in self._answers.items() if answer["status"] == "RUNNING"]
        hidden = {"return_value": "null", "error": "null", "entrypoint": ""}
        return [
            {**self._answers[number], **hidden, "request_body": self._bodies[number]}
            for number in chosen
            if number in self._answers
        ]

    def cancel_requests(self, numbers: list[str]) -> list[str]:
        """Ends launches that wait for their machines."""
        found = [number for number in numbers if self._launches.pop(number, None)]
        for number in found:
            self._answers[number]["status"] = "CANCELLED"
        return found

    def answer(self, number: str) -> dict[str, Any]:
        """Returns what a request came to."""
        return self._answers[number]

    def launch(self, body: dict[str, Any]) -> int:
        """Makes the cluster, unless it is there, runs the task on it, and returns the job's number."""
        if self.refusal is not None:
            raise self.refusal
        task = [part for part in yaml.safe_load_all(body["task"]) if part and "run" in part][-1]
        with self._lock:
            self.launched.append({**body, "task": task})
            number = len(self.jobs) + 1
            cluster = body.get("cluster_name") or ""
            machines = [self.root / (cluster or f"managed-{number}") / str(n) for n in range(task.get("num_nodes", 1))]
            for machine in machines:
                machine.mkdir(parents=True, exist_ok=True)
                for target, source in (task.get("file_mounts") or {}).items():
                    place = machine / target.removeprefix("~/")
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes((self.root / "uploads" / source.lstrip("/")).read_bytes())
            if cluster:
                self.clusters[cluster] = len(machines)
            self.jobs.append(Job(number, task["name"], cluster, machines, task))
        return number

    def of(self, cluster: str) -> list[Job]:
        """Returns the jobs of a cluster, or the managed ones; newest first, as SkyPilot lists them."""
        import sky

        if cluster and cluster not in self.clusters:
            raise sky.exceptions.ClusterDoesNotExist(f"Cluster {cluster!r} does not exist.")
        return [job for job in reversed(self.jobs) if job.cluster == cluster]

    def cancel(self, cluster: str, numbers: list[int]) -> None:
        """Ends jobs."""
        for job in self.of(cluster):
            if job.number in numbers:
                job.cancel()

    def down(self, cluster: str) -> None:
        """Removes a cluster."""
        for job in self.of(cluster):
            job.cancel()
        del self.clusters[cluster]


def _listed(job: Job) -> dict[str, Any]:
    return {"job_id": job.number, "job_name": job.name, "status": job.status, "submitted_at": job.submitted_at}


def _launched(server: SkyServer, body: dict[str, Any]) -> Any:
    return {"job_id": server.launch(body), "handle": NONE}


_CALLS: dict[str, Callable[[SkyServer, dict[str, Any]], Any]] = {
    "/validate": lambda server, body: None,
    "/launch": _launched,
    "/jobs/launch": _launched,
    "/queue": lambda server, body: [_listed(job) for job in server.of(body["cluster_name"])],
    "/jobs/queue": lambda server, body: [_listed(job) for job in server.of("")],
    "/cancel": lambda server, body: server.cancel(body["cluster_name"], body["job_ids"]),
    "/jobs/cancel": lambda server, body: server.cancel("", body["job_ids"]),
    "/api/cancel": lambda server, body: server.cancel_requests(body["request_ids"]),
    "/down": lambda server, body: server.down(body["cluster_name"]),
    "/status": lambda server, body: [
        {**CLUSTER, "name": name}
        for name in list(server.clusters)
        if body["cluster_names"] is None or name in body["cluster_names"]
    ],
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sky: SkyServer

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps quiet."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path.endswith("/api/get"):
            answer = self.sky.answer(parse_qs(address.query)["request_id"][0])
            failed = answer["status"] == "FAILED"
            self._send({"detail": answer} if failed else answer, 500 if failed else 200)
        elif address.path.endswith("/api/status"):
            self._send(self.sky.requests(parse_qs(address.query).get("request_ids", [])))
        else:
            self._send(HEALTH)

    def do_POST(self) -> None:
        data = self._body()
        path = urlsplit(self.path).path.removeprefix("/api/v1")
        if self.sky.away:
            self.close_connection = True
        elif path == "/upload":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.extractall(self.sky.root / "uploads")
            self._send({"status": "completed"})
        elif path in ("/logs", "/jobs/logs"):
            body = json.loads(data)
            number = body["job_id"]
            [job] = [job for job in self.sky.jobs if job.number == number]
            tail = body.get("tail") or 0
            text = "".join(job.log[-tail:]).encode()
            self.sky.log_bytes += len(text)
            self._answer(text, {"X-Skypilot-Request-ID": self.sky.call("/validate", {})})
        else:
            self._send({}, 200, {"X-Skypilot-Request-ID": self.sky.call(path, json.loads(data))})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, value: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}, code)

    def _answer(self, data: bytes, headers: dict[str, str], code: int = 200) -> None:
        self.send_response(code)
        own = {"X-SkyPilot-API-Version": HEALTH["api_version"], "X-SkyPilot-Version": HEALTH["version"]}
        for name, value in {**own, **headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="session")
def sky_server():
    """The server, for all tests of a session: SkyPilot's client remembers the first that it is told of."""
    server = SkyServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYPILOT_API_SERVER_ENDPOINT", server.url)
        from sky.server import common

        for remembered in (common.get_server_url, common.is_api_server_local):
            remembered.cache_clear()
        yield server
    server.close()
