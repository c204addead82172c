"""Reads hostile cases with one reader, in a process of its own, and writes into ``answers.json`` what came of each.

Usage: ``probe.py READER REPOSITORY CASES``; the working directory is where what is executed would leave a file.
"""

import contextlib
import io
import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn", "ctypes.dlopen")
FORBIDDEN = ("unlisted", "antigravity", "pty", "runpy")
seen = []


def watch(event, args):
    if event in WATCHED:
        seen.append(event)


class Finder:
    """Sees every import: that of ``importlib`` raises no audit event."""

    def find_spec(self, name, path=None, target=None):
        if name in FORBIDDEN:
            seen.append(f"import {name}")


def main(reader, repository, cases):
    sys.path[:0] = [repository, str(HERE)]
    read = READERS[reader]()
    sys.addaudithook(watch)
    sys.meta_path.insert(0, Finder())
    for name in FORBIDDEN:
        sys.modules.pop(name, None)
    answers = []
    for line in pathlib.Path(cases).read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        seen.clear()
        error, message = "", ""
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
                answer = read(case["text"])
            if reader in ("cli", "file") and answer == 2:
                error, message = "exit 2", errors.getvalue().strip()
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it is what came of it
            error, message = type(caught).__name__, str(caught)
        events = [*seen, *(["a file"] if os.path.exists("executed") else [])]
        answers.append({"case": case["case"], "error": error, "message": message, "events": events})
    pathlib.Path("answers.json").write_text(json.dumps(answers), encoding="utf-8")


def config():
    import fiddle  # noqa: F401
    import pydantic  # noqa: F401
    import victim

    from nemo_airflow import Config

    return Config(victim.train, model=Config(victim.Model))


def as_plan():
    from nemo_airflow.config import plan

    config()
    return lambda text: plan.from_plan(plan.loads(text), ["victim."])


def as_text():
    from nemo_airflow.config import plan

    config()
    return lambda text: plan.from_plan(text, ["victim."])


def as_looked_at():
    from nemo_airflow.config import plan
    from nemo_airflow.config.views.differences import diff

    def read(text):
        loaded = plan.loads(text)
        plan.flatten(loaded), plan.targets(loaded), plan.digest(loaded), diff(loaded, loaded)
        raise PermissionError(*plan.targets(loaded))  # a plan as such: what it names is not allowed elsewhere

    return read


def as_job():
    from nemo_airflow.runner import plan

    def read(text):
        assert not {"fiddle", "yaml", "nemo_airflow.config.plan"} & set(sys.modules)
        return plan.build(json.loads(text), ["victim."])

    return read


def as_yaml():
    from nemo_airflow.config import from_yaml

    config()
    return lambda text: from_yaml(text, ["victim."])


def as_override():
    from nemo_airflow.config import apply_overrides
    from nemo_airflow.config import plan as plans

    base = config()
    return lambda text: plans.dumps(plans.to_plan(apply_overrides(base, [text])))


def as_conf():
    from nemo_airflow.config import apply_overrides
    from nemo_airflow.operators.params import overrides_from

    base = config()

    def read(text):
        key, _, value = text.partition("=")
        params = {"x.overrides": {key: value} if value else text}
        return apply_overrides(base, overrides_from(params, "x"), origin="the run's conf")

    return read


def as_command():
    from nemo_airflow.cli import main

    config()

    def read(text):
        answers = {main(["plan", text]), main(["render", text]), main(["diff", text, "victim:train"])}
        return answers.pop() if len(answers) == 1 else 0

    return read


def as_file():
    from nemo_airflow.cli import main

    config()

    def read(text):
        pathlib.Path("case.yaml").write_text(text, encoding="utf-8")
        main(["diff", "case.yaml", "case.yaml"])  # which reads plans as such, whatever they name
        answers = {main(["plan", "case.yaml", "--allow", "victim."]), main(["render", "case.yaml"])}
        return answers.pop() if len(answers) == 1 else 0

    return read


def as_page():
    from nemo_airflow.config import plan as plans
    from nemo_airflow.exceptions import NemoAirflowError
    from nemo_airflow.plugin.api.config import _Rows

    def read(text):
        rows = _Rows(None)
        try:
            rows.add(plans.loads(text.encode("utf-8", "surrogatepass")))
        except NemoAirflowError as error:
            raise PermissionError("none") from error
        raise PermissionError(f"a tree of {len(rows.paths)} rows")

    return read


def as_allow():
    from nemo_airflow.config import plan
    from nemo_airflow.config.plan import allow
    from nemo_airflow.exceptions import ConfigError, SettingsError
    from nemo_airflow.language import errors
    from nemo_airflow.runner import plan as runner

    config()
    document = {"version": 1, "root": {"_target_": "os:system", "_args_": ["touch executed"]}}
    readers = [
        lambda entry: plan.from_plan(document, [entry]),
        lambda entry: runner.build(document, [entry]),
        lambda entry: (os.environ.update(NEMO_AIRFLOW_ALLOW=f"victim.,{entry},"), allow.read_configured()),
    ]

    def read(text):
        messages = []
        for reader in readers:
            try:
                reader(text)
            except (ConfigError, SettingsError, errors.PlanError) as error:
                messages.append(str(error))
            finally:
                os.environ.pop("NEMO_AIRFLOW_ALLOW", None)
        if len(messages) == len(readers):
            raise ValueError(" | ".join(messages))

    return read


READERS = {
    "plan": as_plan, "text": as_text, "look": as_looked_at, "job": as_job, "yaml": as_yaml, "override": as_override,
    "conf": as_conf, "cli": as_command, "file": as_file, "page": as_page, "allow": as_allow,
}  # fmt: skip

if __name__ == "__main__":
    main(*sys.argv[1:])
