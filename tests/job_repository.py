"""A git repository with a module of jobs, as people have it where they work."""

import subprocess
import uuid


def make_repository(tmp_path, monkeypatch, code):
    """Makes the repository, which is the current folder then, and returns the name of the module."""
    name = f"jobs_{uuid.uuid4().hex[:8]}"
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / f"{name}.py").write_text(code)
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "jobs"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    return name
