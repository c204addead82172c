// The back-ends: whether jobs can run there, which of ours do, and the disk that we use.
import { useState, type ReactNode } from "react";
import { Link } from "react-router-dom";
import { ApiError, jobPath, post, sizeText, timeText } from "../host";
import { Await, Problem, Section, State } from "../parts/basics";
import { Confirm } from "../parts/dialog";
import { useApi } from "../query";
import { t, tn, type Text } from "../strings";
import type { Schemas } from "../types";
import css from "./backEnds.css";

type BackEnd = Schemas["BackEnd"];
type Job = Schemas["BackEndJob"];

const MARKS = { ok: "succeeded", warn: "pending", fail: "failed", "": "unknown" } as const;

// Of each the newest answer: of several processes of the server each has examined them by itself.
const newest = new Map<string, BackEnd>();

function keepNewest(backEnds: readonly BackEnd[]): BackEnd[] {
  return backEnds.map((each) => {
    const kept = newest.get(each.id);
    if (!kept || (each.checked ?? 0) >= (kept.checked ?? 0)) newest.set(each.id, each);
    return newest.get(each.id) ?? each;
  });
}

export function BackEnds() {
  const [isBusy, setBusy] = useState(true);
  const loaded = useApi<Schemas["BackEndList"]>("back-ends", {}, isBusy ? 2 : 15);
  const checking = loaded.data?.back_ends.some((each) => each.is_checking) ?? true;
  if (checking !== isBusy) setBusy(checking);
  const [said, act] = useAction(loaded.reload);
  return (
    <main className="nemo nemo-page">
      <style href="nemo-back-ends" precedence="default">
        {css}
      </style>
      <div className="nemo-bar" style={{ justifyContent: "space-between" }}>
        <h1>{t("backEnds.title")}</h1>
        <button
          type="button"
          className="nemo-button"
          disabled={!loaded.data?.back_ends.length}
          onClick={() => loaded.data?.back_ends.forEach(({ id }) => act("back-ends/check", { id }))}
        >
          {t("backEnds.checkAll")}
        </button>
      </div>
      <p className="muted">{t("backEnds.about")}</p>
      {said}
      <Await of={loaded}>
        {({ back_ends }) => (
          <>
            {!back_ends.some((each) => each.conn_type) && <p className="nemo-note">{t("backEnds.none")}</p>}
            {keepNewest(back_ends).map((each) => (
              <Card key={each.id} backEnd={each} act={act} />
            ))}
            <Disk />
          </>
        )}
      </Await>
    </main>
  );
}

type Act = (path: string, body: unknown) => void;

/** Returns what the last action has come to, and a function that calls one. */
function useAction(done: () => void): [ReactNode, Act] {
  const [result, setResult] = useState<string | ApiError>("");
  const act: Act = (path, body) =>
    void post<Schemas["Done"]>(path, body).then(
      ({ message }) => {
        setResult(path === "back-ends/reap" ? message : ""); // Of the others the page itself tells.
        done();
      },
      (error: unknown) => setResult(error instanceof ApiError ? error : new ApiError(0, String(error))),
    );
  const shown =
    result instanceof ApiError ? (
      <Problem error={result} />
    ) : (
      <p role="status" className={result ? "nemo-note" : "nemo-visually-hidden"}>
        {result}
      </p>
    );
  return [shown, act];
}

function Mark({ verdict, children }: { verdict: BackEnd["verdict"]; children: ReactNode }) {
  return (
    <span className={`nemo-state ${MARKS[verdict ?? ""]}`}>
      <span>{children}</span>
    </span>
  );
}

function Card({ backEnd, act }: { backEnd: BackEnd; act: Act }) {
  const { verdict = "", name } = backEnd;
  const worst = backEnd.findings?.find((each) => each.verdict === verdict && verdict !== "ok");
  return (
    <section className="nemo-card nemo-back-end" aria-label={name}>
      <div className="nemo-back-end-head">
        <h2>{name}</h2>
        <span className="muted">{backEnd.conn_type || t("backEnds.own")}</span>
        {verdict ? (
          <Mark verdict={verdict}>{t(`backEnds.${verdict}` as Text)}</Mark>
        ) : (
          <span className="muted">{t("backEnds.checking")}</span>
        )}
        <span className="end">
          {verdict && (
            <span className="muted">
              {backEnd.is_checking ? t("backEnds.checking") : t("backEnds.checked", { when: timeText(backEnd.checked) })}
            </span>
          )}
          <button
            type="button"
            className="nemo-button"
            aria-label={t("backEnds.checkNamed", { name })}
            disabled={backEnd.is_checking}
            onClick={() => act("back-ends/check", { id: backEnd.id })}
          >
            {t("backEnds.check")}
          </button>
        </span>
      </div>
      {worst && (
        <p className="nemo-back-end-why">
          <strong>{worst.name}</strong>: {worst.said}
          {worst.fix && <span className="muted"> {t("backEnds.fix", { fix: worst.fix })}</span>}
        </p>
      )}
      {(backEnd.findings?.length ?? 0) > 0 && <Checks backEnd={backEnd} />}
      {backEnd.checked && <Jobs backEnd={backEnd} act={act} />}
    </section>
  );
}

function Checks({ backEnd }: { backEnd: BackEnd }) {
  const findings = backEnd.findings ?? [];
  return (
    <details>
      <summary>{tn("backEnds.findings", findings.length)}</summary>
      <ul className="nemo-checks">
        {findings.map((each) => (
          <li key={`${each.name}\n${each.said}`}>
            <Mark verdict={each.verdict}>{each.name}</Mark>
            <span>{each.said}</span>
            {each.fix && <span className="fix muted">{t("backEnds.fix", { fix: each.fix })}</span>}
          </li>
        ))}
      </ul>
    </details>
  );
}

// ---- Jobs

function Jobs({ backEnd, act }: { backEnd: BackEnd; act: Act }) {
  const { jobs = [], states = {}, name } = backEnd;
  const all = Object.values(states).reduce((sum, n) => sum + n, 0);
  if (backEnd.trouble) return <p className="muted">{t("backEnds.unknownJobs", { why: backEnd.trouble })}</p>;
  if (!all) return <p className="muted">{t("backEnds.noJobs")}</p>;
  const orphans = jobs.filter((job) => job.owner === "orphan");
  return (
    <>
      <div className="nemo-bar">
        <span>{tn("backEnds.jobs", all)}</span>
        {Object.entries(states).map(([state, n]) => (
          <span key={state} className="nemo-bar" style={{ gap: 4 }}>
            <State state={state} /> {n}
          </span>
        ))}
        {orphans.length > 0 && <Orphans backEnd={backEnd} orphans={orphans} act={act} />}
      </div>
      {jobs.length > 0 && (
        <details open={orphans.length > 0}>
          <summary>{t("backEnds.jobsOf", { name })}</summary>
          <div className="nemo-scroll" tabIndex={0}>
            <table className="nemo-table" aria-label={t("backEnds.jobsOf", { name })}>
              <thead>
                <tr>
                  {["job", "task", "state", "owner", "submitted", "why"].map((column) => (
                    <th key={column}>{t(`backEnds.column.${column}` as Text)}</th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {jobs.map((job) => (
                  <Row key={job.key} job={job} />
                ))}
              </tbody>
            </table>
          </div>
        </details>
      )}
      {(backEnd.left_out ?? 0) > 0 && <p className="muted">{t("backEnds.leftOut", { n: backEnd.left_out ?? 0 })}</p>}
    </>
  );
}

function Row({ job }: { job: Job }) {
  const { place } = job;
  const index = place.map_index !== undefined && place.map_index >= 0 ? ` [${place.map_index}]` : "";
  return (
    <tr>
      <td title={job.key}>{job.job_id || job.key}</td>
      <td>{place.dag_id && <Link to={jobPath(place)}>{`${place.dag_id}.${place.task_id}${index}`}</Link>}</td>
      <td>
        <State state={job.state} />
      </td>
      <td>{t(`backEnds.owner.${job.owner}`, { state: job.task_state || t("backEnds.cleared") })}</td>
      <td>{timeText(job.submitted)}</td>
      <td>{job.why}</td>
    </tr>
  );
}

function Orphans({ backEnd, orphans, act }: { backEnd: BackEnd; orphans: readonly Job[]; act: Act }) {
  const [isAsking, setAsking] = useState(false);
  return (
    <>
      <Mark verdict="warn">{tn("backEnds.orphans", orphans.length)}</Mark>
      {backEnd.may_reap && (
        <button type="button" className="nemo-button danger" onClick={() => setAsking(true)}>
          {tn("backEnds.reap", orphans.length)}
        </button>
      )}
      <Confirm
        title={t("backEnds.reapTitle", { name: backEnd.name })}
        text={
          <>
            <p>{t("backEnds.reapText")}</p>
            <ul>
              {orphans.slice(0, 20).map(({ key, job_id, place }) => (
                <li key={key}>{`${job_id} ${place.dag_id}.${place.task_id} ${place.dag_run_id}`}</li>
              ))}
              {orphans.length > 20 && <li>…</li>}
            </ul>
          </>
        }
        action={tn("backEnds.reap", orphans.length)}
        open={isAsking}
        onClose={() => setAsking(false)}
        onConfirm={() => act("back-ends/reap", { id: backEnd.id, keys: orphans.map((job) => job.key) })}
      />
    </>
  );
}

// ---- Disk

function Disk() {
  const [isBusy, setBusy] = useState(false);
  const loaded = useApi<Schemas["DiskUse"]>("back-ends/disk", {}, isBusy ? 2 : 30);
  const counting = loaded.data?.is_counting ?? false;
  if (counting !== isBusy) setBusy(counting);
  const [said, act] = useAction(loaded.reload);
  const counted = loaded.data?.counted;
  const when = counting
    ? t("backEnds.disk.counting")
    : counted
      ? t("backEnds.disk.counted", { when: timeText(counted) })
      : t("backEnds.disk.never");
  const aside = (
    <span className="nemo-bar">
      <span className="muted">{when}</span>
      <button
        type="button"
        className="nemo-button"
        disabled={counting}
        onClick={() => act("back-ends/disk/count", {})}
      >
        {t("backEnds.disk.count")}
      </button>
    </span>
  );
  return (
    <Section title={t("backEnds.disk")} aside={aside}>
      <p className="muted">{t("backEnds.disk.about")}</p>
      {said}
      <Await of={loaded}>{(disk) => (disk.store || disk.folders?.length ? <DiskTable disk={disk} /> : null)}</Await>
    </Section>
  );
}

function DiskTable({ disk }: { disk: Schemas["DiskUse"] }) {
  const { store } = disk;
  return (
    <div className="nemo-scroll" tabIndex={0}>
      <table className="nemo-table" aria-label={t("backEnds.disk")}>
        <thead>
          <tr>
            {["what", "used", "freed"].map((column) => (
              <th key={column}>{t(`backEnds.disk.column.${column}` as Text)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {store && !store.where && !store.trouble && (
            <tr>
              <td colSpan={3}>{t("backEnds.disk.noStore")}</td>
            </tr>
          )}
          {store && (store.where || store.trouble) && (
            <tr>
              <td>{t("backEnds.disk.store", { where: store.where ?? "" })}</td>
              {store.trouble ? (
                <td colSpan={2}>{store.trouble}</td>
              ) : (
                <>
                  <td>{t("backEnds.disk.objects", { size: sizeText(store.size), n: store.objects ?? 0 })}</td>
                  <td>
                    {t("backEnds.disk.unused", {
                      size: sizeText(store.freed),
                      n: store.unused ?? 0,
                      days: disk.days_of_objects ?? 0,
                    })}
                  </td>
                </>
              )}
            </tr>
          )}
          {disk.folders?.map((each) => (
            <tr key={each.id}>
              <td>{t("backEnds.disk.folders", { name: each.name })}</td>
              {each.trouble || each.old == null ? (
                <td colSpan={2}>{each.trouble || t("backEnds.disk.noFolders")}</td>
              ) : (
                <>
                  <td>{each.size == null ? "" : sizeText(each.size)}</td>
                  <td>{t("backEnds.disk.old", { n: each.old, days: disk.days_of_folders ?? 0 })}</td>
                </>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
