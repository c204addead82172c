// What a job is and how it fares, above all parts of its page.
import { useState, useEffect, type ReactNode } from "react";
import { Link } from "react-router-dom";
import { useAddress } from "../../address";
import { durationText, timeText, webAddress } from "../../host";
import { CopyButton, State } from "../../parts/basics";
import { useApi } from "../../query";
import { t, type Text } from "../../strings";
import type { Schemas } from "../../types";
import type { JobQuery } from "./sections";

type JobHead = Schemas["JobHead"];

export function Head({ place, job }: { place: JobQuery; job: JobHead }) {
  const mlflow = webAddress(job.mlflow_url);
  return (
    <header className="nemo-card">
      <div className="nemo-job-title">
        <h1>{job.name}</h1>
        <State state={job.state} />
        <Attempts place={place} job={job} />
      </div>
      {job.why && job.state === "pending" && <p className="nemo-job-why">{t("job.waits", { why: job.why })}</p>}
      {job.expected_start && <p className="nemo-job-why">{t("job.expected", { when: job.expected_start })}</p>}
      {job.why && ["failed", "lost", "cancelled"].includes(job.state) && (
        <p className="nemo-job-why">
          {job.state === "failed" ? t("job.failed", { why: job.why }) : job.why}
          {job.exit_code != null && <span className="muted"> · {t("job.exit")} {job.exit_code}</span>}
        </p>
      )}
      {job.reused != null && <p className="nemo-job-why">{t("job.reused", { when: timeText(job.reused) })}</p>}
      <dl className="nemo-facts" style={{ marginTop: 10 }}>
        <Fact name="job.backEnd">
          <BackEnd job={job} />
        </Fact>
        <Fact name="job.host">{job.host}</Fact>
        <Fact name="job.submitted">{timeText(job.submitted)}</Fact>
        <Fact name="job.started">{timeText(job.started)}</Fact>
        <Fact name={job.ended == null && job.active ? "job.runs" : "job.took"}>{(job.started ?? job.submitted) != null && <Took job={job} />}</Fact>
        <Fact name="job.user">{job.user}</Fact>
        <Fact name="job.owner">
          <Owners job={job} />
        </Fact>
        <Fact name="job.commit">
          <Commit job={job} />
        </Fact>
        <Fact name="job.mlflow">
          {mlflow ? (
            <a href={mlflow} target="_blank" rel="noopener noreferrer">
              {t("job.mlflow.open")}
            </a>
          ) : (
            job.mlflow_run_id && <code>{job.mlflow_run_id}</code>
          )}
        </Fact>
        <Fact name="job.links">
          {job.place.dag_id && (
            <span className="nemo-bar">
              <Link to={`/dags/${encodeURIComponent(job.place.dag_id)}`}>{job.place.dag_id}</Link>
              {job.place.dag_run_id && (
                <Link to={`/dags/${encodeURIComponent(job.place.dag_id)}/runs/${encodeURIComponent(job.place.dag_run_id)}`}>
                  {job.place.dag_run_id}
                </Link>
              )}
            </span>
          )}
        </Fact>
        <Fact name="job.key">
          <span className="nemo-bar">
            <code>{job.key}</code>
            <CopyButton text={job.key} />
          </span>
        </Fact>
      </dl>
    </header>
  );
}

function Fact({ name, children }: { name: Text; children: ReactNode }) {
  if (children === null || children === undefined || children === "" || children === false) return null;
  return (
    <div>
      <dt>{t(name)}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function BackEnd({ job }: { job: JobHead }) {
  const url = webAddress(job.back_end_url);
  const id = job.job_id && (
    <>
      {url ? (
        <a href={url} target="_blank" rel="noopener noreferrer">
          {job.job_id}
        </a>
      ) : (
        <code>{job.job_id}</code>
      )}
    </>
  );
  return (
    <>
      {job.back_end} {id} {job.cluster && <span className="muted">{job.cluster}</span>}
    </>
  );
}

/** Counts on by this browser's clock from the server's time, since the clocks may differ. */
function Took({ job }: { job: JobHead }) {
  const [now, setNow] = useState(job.now);
  const runs = job.active && job.ended == null;
  useEffect(() => {
    const seen = Date.now();
    setNow(job.now);
    if (!runs) return;
    const timer = setInterval(() => setNow(job.now + (Date.now() - seen) / 1000), 1000);
    return () => clearInterval(timer);
  }, [job.now, runs]);
  return <>{durationText((job.ended ?? now) - (job.started ?? job.submitted ?? now))}</>;
}

function Owners({ job }: { job: JobHead }) {
  if (!job.owners) return null;
  const linked = new Map(job.links.map((link) => [link.name, webAddress(link.url)]));
  return (
    <>
      {job.owners.split(", ").map((owner, index) => (
        <span key={owner}>
          {index > 0 && ", "}
          {linked.get(owner) ? (
            <a href={linked.get(owner)} target="_blank" rel="noopener noreferrer">
              {owner}
            </a>
          ) : (
            owner
          )}
        </span>
      ))}
    </>
  );
}

function Commit({ job }: { job: JobHead }) {
  const url = webAddress(job.commit_url);
  if (!job.commit) return <span className="muted">{t("job.commit.none")}</span>;
  const short = <code>{job.commit.slice(0, 10)}</code>;
  return (
    <>
      {url ? (
        <a href={url} target="_blank" rel="noopener noreferrer" title={job.commit}>
          {short}
        </a>
      ) : (
        <span title={job.commit}>{short}</span>
      )}{" "}
      {job.branch} {(job.dirty === "true" || job.dirty === "included") && <strong>{t(`job.dirty.${job.dirty}`)}</strong>}
    </>
  );
}

/** The attempts of the task instance that have runs of their own; the newest one needs nothing in the address. */
function Attempts({ place, job }: { place: JobQuery; job: JobHead }) {
  const [, setAddress] = useAddress();
  const { data } = useApi<Schemas["Attempts"]>("job/attempts", place, job.active ? 30 : 0);
  const attempts = data?.attempts ?? [];
  if (attempts.length < 2) return null;
  return (
    <label className="nemo-bar">
      <span className="muted">{t("job.attempt")}</span>
      <select
        className="nemo-field"
        value={job.mlflow_run_id}
        onChange={(event) =>
          setAddress({ mlflow_run_id: event.target.value === attempts[0]?.mlflow_run_id ? null : event.target.value })
        }
      >
        {attempts.map((each) => (
          <option key={each.mlflow_run_id} value={each.mlflow_run_id}>
            {t(each.try_number ? "job.attempt.try" : "job.attempt.of", {
              n: each.number,
              try: each.try_number,
              state: t(`state.${each.state}` as Text) ?? each.state,
              when: timeText(each.started),
            })}
          </option>
        ))}
      </select>
    </label>
  );
}
