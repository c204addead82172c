"""Runs a recorded run again, or only compares it, and shows what is the same."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_airflow.cli.follow import INTERRUPTED, follow_to_end
from nemo_airflow.cli.output import JSON, print_json, print_table
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.cli.terminal import keep_output_clean, say
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.launch.records import Records
from nemo_airflow.launch.reproducing import Reproduction
from nemo_airflow.reproduction import reporting
from nemo_airflow.reproduction.report import Report, Verdict, shorten
from nemo_airflow.reproduction.restoring import Source


def run(
    name: str,
    overrides: Sequence[str],
    *,
    on: str,
    check: bool,
    against: str,
    tolerance: float,
    ignore: Sequence[str],
    repositories: Sequence[str],
    output: str,
    tracking_uri: str | None,
    conn_id: str | None,
) -> int:
    """Reproduces a run, and prints the report.

    Args:
        name: The run.
        overrides: Changes, which make a variation of it.
        on: Where it is to run; where it ran when empty.
        check: Whether only to say what would be restored.
        against: A run to compare it with instead, or empty.
        tolerance: The relative difference up to which the last values of a metric count as the same.
        ignore: Patterns of metrics and outputs that are left out.
        repositories: Folders in repositories with its code, besides the current folder.
        output: ``text`` or ``json``.
        tracking_uri: MLflow's address, or None.
        conn_id: An Airflow connection with MLflow's address and login, or None.

    Returns:
        0 if all is the same; 3 if what came of it is, and something else differs or is not known; 4 if that differs.
        With ``check`` 3 instead of 4, as nothing has run. 130 if it was interrupted.

    Raises:
        SettingsError: The options do not go together.
    """
    keep_output_clean()
    source = Source(tracking_uri, conn_id, (*repositories, "."), trusts_overrides=True)
    if against:
        if on or overrides or check:
            raise SettingsError("--against compares two runs that MLflow has: leave out --check, --on and overrides")
        other = source.find(against)
        report = reporting.compare_runs(source.find(name), other, source, tolerance=tolerance, ignore=ignore)
        return _show(report, output)
    where = load_executor(on) if on else None
    again = Reproduction(name, source, on=where, overrides=overrides, tolerance=tolerance, ignore=ignore, say=say)
    if check:
        _show(again.foreseen, output)
        return 0 if all(part.is_same for part in again.foreseen.parts) else 3
    for part in again.foreseen.parts:
        if part.verdict is not Verdict.SAME:
            say(f"{part.name}: {part.verdict}{f': {part.detail}' if part.detail else ''}")
            for line in shorten(part.differences):
                say(f"  {line}")
    records = Records()
    record = again.submit(records)
    say(f"submitted job {record.key} to {record.job.kind} ({record.job.id})")
    if follow_to_end(records, record, quiet=output == JSON) == INTERRUPTED:
        original = again.restored.run.run_id
        say(f"when it has ended, 'nemo-airflow reproduce {original} --against {record.key}' compares the two")
        return INTERRUPTED
    return _show(again.report(record), output)


def _show(report: Report, output: str) -> int:
    if output == JSON:
        print_json(report.to_json())
        return report.exit_code
    print(report.headline())
    rows = []
    for part in report.parts:
        first, *others = [line for line in (part.detail, *shorten(part.differences)) if line] or [""]
        rows += [(part.name, part.verdict, first), *(("", "", line) for line in others)]
    print_table(("PART", "", "DETAIL"), rows)
    return report.exit_code
