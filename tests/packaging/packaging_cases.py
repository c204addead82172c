"""What the tests of packagers share: files laid out and read back, git, and a package unpacked as a job does."""

import os
import shutil
import subprocess

from nemo_airflow.runner.unpack import unpack_package

IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.invalid",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.invalid",
}


def run_git(folder, *arguments, **env):
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", "-C", str(folder), *arguments],
        env={**os.environ, **IDENTITY, **env}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def lay(folder, files):
    """Writes files by path; of a pair the second is the mode, of a text a link's target behind an arrow."""
    for name, data in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        data, mode = data if isinstance(data, tuple) else (data, 0o644)
        if isinstance(data, str) and data.startswith("-> "):
            os.symlink(data[3:], path)
            continue
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        os.chmod(path, mode)


def commit_files(folder, files=None, message="work"):
    """Commits files, in a repository that is made where there is none; returns the commit."""
    if not os.path.isdir(folder):
        os.makedirs(folder)
        run_git(folder, "init", "-q")
    lay(folder, files or {})
    run_git(folder, "add", "-A")
    run_git(folder, "commit", "-q", "-m", message)
    return run_git(folder, "rev-parse", "HEAD")


def tree(folder):
    """Returns what is under a folder: bytes of a file, the target of a link behind an arrow."""
    found = {}
    for above, folders, names in os.walk(folder):
        for name in names + [each for each in folders if os.path.islink(os.path.join(above, each))]:
            path = os.path.join(above, name)
            relative = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[relative] = f"-> {os.readlink(path)}"
            else:
                with open(path, "rb") as file:
                    found[relative] = (file.read(), bool(os.stat(path).st_mode & 0o100))
    return found


def unpack(package, store, folder):
    """Unpacks a package as the runner does, and returns what came of it."""
    (folder / "work").mkdir(parents=True)
    for archive in package.archives:
        shutil.copyfile(store.path(archive.digest, archive.format), folder / archive.name)
    unpack_package(str(folder), package.to_json(), str(folder / "work"))
    return tree(folder / "work")
