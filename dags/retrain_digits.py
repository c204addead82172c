"""Retrains a classifier of digits each week and when new labels arrive, and promotes it if it is better.

Each run checks the data and compares it with the champion's, trains a challenger, and evaluates both on the same
digits. One that is better for sure becomes the champion; where that may be chance, a person is asked.
"""

import datetime

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronDataIntervalTimetable, Param, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from digits.comparison import compare as compare_models
from digits.data import RECENT_WEEKS, Data
from digits.drift import Limits
from digits.features import Features
from digits.gate import ASK, REFUSE, Thresholds, refusal_of_past, to_markdown
from digits.gate import decide as judge
from digits.inspection import inspect
from digits.model import Model, Optimizer
from digits.train import MODEL as LOGGED_MODEL
from digits.train import train
from digits_common import (
    CHAMPION,
    CODE,
    EXECUTOR,
    NOTICE,
    UNTIL,
    UNTIL_PARAM,
    artifacts_of,
    describe_cause,
    describe_run,
    kind_of,
    open_model,
    tell,
)

from nemo_airflow import Artifact, Config, NemoRunOperator, params_from
from nemo_airflow.operators import FailureKindRetryPolicy

LABELLED = Asset("digits/labelled")
THRESHOLDS = Thresholds()
PROMOTIONS_A_DAY = 1
"""More are refused, unless a person approves."""

GPU_HOURS_A_WEEK = 10.0
"""Beyond these no challenger is trained."""

TRAIN = Config(
    train,
    data=Config(Data, until=UNTIL),
    features=Config(Features),
    model=Config(Model, hidden=[64]),
    optimizer=Config(Optimizer),
)

with DAG(
    "retrain_digits",
    schedule=AssetOrTimeSchedule(timetable=CronDataIntervalTimetable("@weekly", timezone="UTC"), assets=LABELLED),
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    params={
        "until": UNTIL_PARAM,
        "cause": Param("", type=["null", "string"], description="Why there is this run, where a DAG has started it."),
        **params_from(TRAIN, prefix="train"),
    },
    default_args={
        "retries": 1,
        "retry_delay": datetime.timedelta(seconds=10),
        "retry_policy": FailureKindRetryPolicy(),
        "on_failure_callback": tell("failed"),
    },
    doc_md=__doc__,
    tags=["nemo", "example"],
) as dag:
    on_back_end = {
        "job_executor": EXECUTOR,
        "packager": CODE,
        "execution_timeout": datetime.timedelta(minutes=10),
    }

    @task.nemo(**on_back_end)
    def check():
        """Refuses data that cannot be trained on, and says what has drifted since the champion was trained."""
        from nemo_airflow.tracking.mlflow.usage import gpu_hours

        spent = gpu_hours("retrain_digits", days=7)
        if spent > GPU_HOURS_A_WEEK:
            raise AirflowFailException(
                f"{spent:.1f} GPU hours of {GPU_HOURS_A_WEEK:.1f} are spent in 7 days: no challenger is trained"
            )
        champion = open_model().current()
        return Config(
            inspect,
            data=Config(Data, until=UNTIL, weeks=RECENT_WEEKS),
            limits=Config(Limits),
            champion=champion.version if champion else "",
            **artifacts_of(champion, "model", "baseline"),
        )

    checked = check()
    trained = NemoRunOperator(task_id="train", config=TRAIN, params_prefix="train", **on_back_end)

    @task.nemo(**on_back_end)
    def compare(checked, trained):
        """Evaluates the challenger, and the champion that there was when the run began."""
        champion = open_model().get(checked["champion"]) if checked["champion"] else None
        return Config(
            compare_models,
            until=UNTIL,
            challenger=Artifact.from_json(trained["model"]),
            champion=artifacts_of(champion, "model").get("model"),
        )

    compared = compare(checked, trained.output)

    @task.branch
    def decide(checked, compared, until, params=None, dag_run=None, ti=None, triggering_asset_events=None) -> str:
        """Registers the challenger with what is thought of it; a person is asked if that is not clear."""
        from nemo_airflow.promotion import CHALLENGER

        run_id = ti.xcom_pull(task_ids="train", key="nemo_job")["run"]["run_id"]
        model = open_model()
        newest = model.get(checked["champion"]).tags.get("until", "") if checked["champion"] else ""
        decision = refusal_of_past(until, newest, kind_of(dag_run) == "backfill") or judge(compared, THRESHOLDS)
        cause = describe_cause(params, dag_run, triggering_asset_events)
        metrics = {f"held_out.{name}": str(value) for name, value in compared["challenger"].items()}
        about = {"until": until, "cause": cause, "decision": decision.verdict, "reason": decision.reason}
        version = model.register(run_id, LOGGED_MODEL, {**metrics, **about}, decision.reason)
        if decision.verdict != REFUSE:
            model.set_alias(CHALLENGER, version)
        print(f"version {version}, because of {cause}: {decision.reason}")
        facts = {
            "cause": cause,
            "drifted": ", ".join(checked["drifted"]) or "nothing",
            **describe_run(run_id),
        }
        body = to_markdown(compared, decision, facts)
        ti.xcom_push("decision", {**about, "version": version, "body": body})
        return "approve" if decision.verdict == ASK else "promote"

    decided = decide(checked, compared, UNTIL)

    approve = HITLOperator(
        task_id="approve",
        subject="Shall version {{ ti.xcom_pull('decide', key='decision')['version'] }} of digits become the champion?",
        body="{{ ti.xcom_pull('decide', key='decision')['body'] }}",
        options=["Approve", "Reject"],
        defaults=["Reject"],
        response_timeout=datetime.timedelta(days=3),
        retries=3,  # Airflow fails a task that is answered within its first second or two: it asks again then
    )

    @task(
        outlets=[CHAMPION],
        trigger_rule="none_failed",
        on_success_callback=tell("promoted"),
        on_skipped_callback=tell("not_promoted"),
    )
    def promote(checked, ti=None, dag_run=None, outlet_events=None) -> dict:
        """Makes the challenger the champion; is skipped where it does not become that, and the asset has no event."""
        from nemo_airflow.exceptions import PromotionRefused
        from nemo_airflow.promotion import CHALLENGER

        decision = ti.xcom_pull(task_ids="decide", key="decision")
        answer = ti.xcom_pull(task_ids="approve")
        version, reason, by = decision["version"], decision["reason"], dag_run.dag_id
        model = open_model()
        try:
            if answer:
                by = (answer["responded_by_user"] or {}).get("name") or "nobody in time"
                is_approved = answer["chosen_options"] == ["Approve"]
                reason = f"{'approved' if is_approved else 'rejected'} by {by}: {reason}"
                if not is_approved:
                    raise PromotionRefused(reason)
            elif decision["decision"] == REFUSE:
                raise PromotionRefused(reason)
            change = model.promote(
                version,
                why=reason,
                by=by,
                operation=f"{dag_run.dag_id}/{dag_run.run_id}/{version}",
                instead_of=checked["champion"],
                most_a_day=None if answer else PROMOTIONS_A_DAY,
            )
        except PromotionRefused as refused:
            ti.xcom_push(NOTICE, f"version {version} is not promoted: {refused}")
            model.set_tag(version, "reason", str(refused))
            raise AirflowSkipException(str(refused)) from None
        finally:
            challenger = model.version_of(CHALLENGER)
            if challenger and challenger.version == version:
                model.set_alias(CHALLENGER, None)
        ti.xcom_push(NOTICE, f"version {version}: {reason}")
        outlet_events[CHAMPION].extra = {"version": version, "before": change.before, "reason": reason}
        return {"version": version, "champion_before": change.before, "reason": reason}

    promoted = promote(checked)
    checked >> trained
    decided >> [approve, promoted]
    approve >> promoted
