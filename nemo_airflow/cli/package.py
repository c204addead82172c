"""Shows what would be shipped with a job, and why; packs and sends nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from nemo_airflow import settings
from nemo_airflow.cli.output import JSON, print_json
from nemo_airflow.cli.packagers import load_packager
from nemo_airflow.cli.plan import compose_config
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.cli.terminal import keep_output_clean, say
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging.base import ContentPackager
from nemo_airflow.packaging.explanation import Explanation, LeftOut, Shipped, explain_package, modules_not_in
from nemo_airflow.progress import size_text
from nemo_airflow.store import PackageStore


def run(
    config: str,
    overrides: Sequence[str],
    packager: str,
    executor: str,
    *,
    layers: Sequence[str],
    allow: Sequence[str],
    limit: int,
    output: str,
) -> int:
    """Prints what would be shipped; returns 1 if nothing would.

    Args:
        config: A config whose modules are looked up in the package, or empty.
        overrides: Overrides of it.
        packager: See :func:`nemo_airflow.cli.packagers.load_packager`.
        executor: Where the job would run.
        layers: Files or recipes to lay over the config.
        allow: What files and overrides may import.
        limit: Most files that are printed, of each kind; 0 for all.
        output: ``text`` or ``json``.

    Raises:
        PackagingError: The packager refuses, or cannot say what it ships.
    """
    keep_output_clean()
    folder = Path.cwd()
    chosen = load_packager(packager, folder, load_executor(executor))
    if chosen is None:
        say("no package: the job imports the code from where it is, or has it in its image")
        return 1
    if not isinstance(chosen, ContentPackager):
        raise PackagingError(
            f"the {chosen.kind} packager does not say what it ships: 'nemo-airflow run --dry-run' packs"
        )
    found = explain_package(chosen, PackageStore(settings.packages_folder()), folder)
    modules = _modules(config, overrides, layers, allow) if config else []
    missing = modules_not_in({file.path for file in found.files}, modules)
    if output == JSON:
        print_json({"packager": chosen.to_json(), **dataclasses.asdict(found), "modules": modules, "missing": missing})
        return 0
    for line in _lines(found, limit):
        print(line)
    for module in missing:
        print(f"not in it: module {module} of the config, which has to be installed where the job runs")
    return 0


def _modules(config: str, overrides: Sequence[str], layers: Sequence[str], allow: Sequence[str]) -> list[str]:
    plan = plans.to_plan(compose_config(config, overrides, layers, allow), check=False)
    return sorted({target.partition(":")[0] for target in plans.targets(plan)})


def _lines(found: Explanation, limit: int) -> list[str]:
    state = ", with uncommitted changes" if found.dirty else ""
    commit = f", commit {found.commit[:12]}{state}" if found.commit else ""
    packed = f", {size_text(found.packed_size)} packed" if found.packed_size is not None else ""
    return [
        f"package {found.digest[:12]}{commit}: {_count(found.files)}, {size_text(found.size)}{packed}",
        *_files(found.files, limit),
        *_left_out(found.left_out, limit),
        *_changes(found, limit),
    ]


def _files(files: Sequence[Shipped], limit: int) -> list[str]:
    shown = files[:limit] if limit else files
    size = max((len(size_text(file.size)) for file in shown), default=0)
    width = max((len(file.path) for file in shown), default=0)
    lines = [f"  {size_text(file.size):>{size}}  {file.path:{width}}  {file.why}" for file in shown]
    if more := files[len(shown) :]:
        lines.append(f"  and {_count(more)} more, {size_text(sum(file.size for file in more))}: --limit 0 shows all")
    return lines


def _left_out(left_out: Sequence[LeftOut], limit: int) -> list[str]:
    if not left_out:
        return []
    shown = left_out[:limit] if limit else left_out
    width = max(len(each.path) for each in shown)
    more = [f"  and {len(left_out) - len(shown)} more: --limit 0 shows all"] if len(shown) < len(left_out) else []
    return ["left out:", *(f"  {each.path:{width}}  {each.why}" for each in shown), *more]


def _changes(found: Explanation, limit: int) -> list[str]:
    if not found.since:
        return ["no earlier package of this code is on this machine"]
    if found.since == found.digest:
        return ["the same as the last package"]
    marks = (("+", found.added), ("~", found.changed), ("-", found.removed))
    lines = [f"  {mark} {path}" for mark, paths in marks for path in paths]
    shown = lines[:limit] if limit else lines
    more = [f"  and {len(lines) - len(shown)} more: --limit 0 shows all"] if len(shown) < len(lines) else []
    return [f"changed since package {found.since[:12]}:", *shown, *more]


def _count(files: Sequence[object]) -> str:
    return f"{len(files)} file{'' if len(files) == 1 else 's'}"
