// Jobs at a glance, on Airflow's home page. Where there are none, nothing is shown.
import { Link } from "react-router-dom";
import { jobPath, timeText } from "../host";
import { State } from "../parts/basics";
import { useApi } from "../query";
import { t } from "../strings";
import type { Schemas } from "../types";

/** Returns when this day began where the user is, in seconds since the epoch. */
function midnight(): number {
  return new Date().setHours(0, 0, 0, 0) / 1000;
}

export function Widget() {
  const { data } = useApi<Schemas["Overview"]>("overview", { failed_since: midnight() }, 15);
  if (!data?.newest.length) return null;
  const experiments = "/plugin/nemo_experiments";
  const counts: [number | null, string, string][] = [
    [data.running, t("widget.running"), "?state=running"],
    [data.waiting, t("widget.waiting"), "?state=running"],
    [data.gpus, t("widget.gpus"), "?state=running"],
    [data.failed, t("widget.failed"), "?state=failed&since=24h"],
  ];
  return (
    <section className="nemo nemo-card" aria-label={t("widget.title")} style={{ order: 5 }}>
      <div className="nemo-bar" style={{ justifyContent: "space-between" }}>
        <h2>{t("widget.title")}</h2>
        <Link to={experiments}>{t("widget.all")}</Link>
      </div>
      <div className="nemo-bar" style={{ gap: 20 }}>
        {counts.map(
          ([count, label, query]) =>
            count != null && (
              <Link key={label} to={experiments + query}>
                <b>{count}</b> {label}
              </Link>
            ),
        )}
      </div>
      <ul aria-label={t("widget.newest")} style={{ listStyle: "none", marginTop: 6 }}>
        {data.newest.map((job) => (
          <li key={job.key} className="nemo-bar">
            <State state={job.state} title={job.why} />
            <Link to={jobPath(job.place)}>
              {job.place.dag_id} · {job.place.task_id}
            </Link>
            <span className="muted">{timeText(job.started)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
