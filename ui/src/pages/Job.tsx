// One job: the tab on its task instance. Its parts are in job/sections.ts.
import { Suspense, useEffect, useState } from "react";
import { useAddress } from "../address";
import type { Place } from "../entry";
import { Await } from "../parts/basics";
import { useApi } from "../query";
import { t } from "../strings";
import type { Schemas } from "../types";
import styles from "./job.css";
import { Head } from "./job/Head";
import { SECTIONS, type JobQuery } from "./job/sections";

export function Job(props: Place) {
  const [search] = useAddress();
  const run = search.get("mlflow_run_id");
  const mapped = Number(props.mapIndex ?? -1);
  const place: JobQuery = run
    ? { mlflow_run_id: run }
    : {
        dag_id: props.dagId ?? "",
        dag_run_id: props.runId ?? "",
        task_id: props.taskId ?? "",
        map_index: Number.isInteger(mapped) ? mapped : -1,
      };
  return (
    <main className="nemo nemo-page">
      <style href="nemo-job" precedence="default">
        {styles}
      </style>
      <JobOf key={JSON.stringify(place)} place={place} />
    </main>
  );
}

/** Seconds after which the head is asked for again. */
const EVERY = { active: 3, none: 15, never: 0 };

function JobOf({ place }: { place: JobQuery }) {
  const [every, setEvery] = useState(EVERY.active);
  const head = useApi<Schemas["JobHead"]>("job", place, every);
  const next = head.error?.status === 404 ? EVERY.none : head.data?.active === false ? EVERY.never : EVERY.active;
  useEffect(() => setEvery(next), [next]);
  if (head.error?.status === 404) {
    return (
      <div className="nemo-job-none" role="status">
        <p className="muted">{head.error.message}</p>
        {place.mlflow_run_id && <Newest />}
      </div>
    );
  }
  return (
    <Await of={head}>
      {(job) => (
        <>
          {place.mlflow_run_id && (
            <div className="nemo-note nemo-bar">
              <span>{t("job.older")}</span>
              <Newest />
            </div>
          )}
          {job.tracker.away && <p className="nemo-note">{t("tracker.away", { why: job.tracker.away })}</p>}
          <Head place={place} job={job} />
          <Sections place={place} job={job} reload={head.reload} />
        </>
      )}
    </Await>
  );
}

function Newest() {
  const [, setAddress] = useAddress();
  return (
    <button type="button" className="nemo-button" onClick={() => setAddress({ mlflow_run_id: null })}>
      {t("job.newest")}
    </button>
  );
}

function Sections(props: { place: JobQuery; job: Schemas["JobHead"]; reload: () => void }) {
  const [search, setAddress] = useAddress();
  const chosen = SECTIONS.find(({ id }) => id === search.get("section")) ?? SECTIONS[0];
  if (!chosen) return null;
  const open = (id: string) => setAddress({ section: id === SECTIONS[0]?.id ? null : id });
  const step = (by: number) => {
    const next = SECTIONS[(SECTIONS.indexOf(chosen) + by + SECTIONS.length) % SECTIONS.length];
    if (!next) return;
    open(next.id);
    document.getElementById(`nemo-tab-${next.id}`)?.focus();
  };
  return (
    <>
      <div className="nemo-tabs" role="tablist" aria-label={t("job.sections")}>
        {SECTIONS.map(({ id, title }) => (
          <button
            key={id}
            id={`nemo-tab-${id}`}
            type="button"
            role="tab"
            aria-selected={id === chosen.id}
            aria-controls={id === chosen.id ? "nemo-section" : undefined}
            tabIndex={id === chosen.id ? 0 : -1}
            onClick={() => open(id)}
            onKeyDown={(event) => {
              const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
              if (by) step(document.documentElement.dir === "rtl" ? -by : by);
            }}
          >
            {t(title)}
          </button>
        ))}
      </div>
      <div id="nemo-section" className="nemo-section" role="tabpanel" aria-labelledby={`nemo-tab-${chosen.id}`}>
        <Suspense fallback={<p className="muted">{t("loading")}</p>}>
          <chosen.Section key={chosen.id} {...props} />
        </Suspense>
      </div>
    </>
  );
}
