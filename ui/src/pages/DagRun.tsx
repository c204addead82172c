// The jobs of a DAG run: which wait for which, how they fare, and what they have used.
import { useMemo, useState, type ReactNode } from "react";
import { Link } from "react-router-dom";
import { useAddress } from "../address";
import type { Place } from "../entry";
import { durationText, jobPath, numberText, taskPath, timeText } from "../host";
import { Await, Section, State } from "../parts/basics";
import { layOut } from "../parts/layers";
import { useApi } from "../query";
import { t, tn, type Text } from "../strings";
import type { Schemas } from "../types";
import css from "./dagRun.css";
import { Models } from "./models";

type Job = Schemas["DagRunJob"];
type Task = Schemas["GraphTask"];

const OWN_STATES = ["none", "skipped", "upstream_failed"];
const AT_ONCE = 100;
const JOB = { width: 210, height: 66 };
const PASSING = { width: 150, height: 28 };

export function DagRun({ dagId = "", runId = "" }: Place) {
  const [isOver, setOver] = useState(false);
  const query = { dag_id: dagId, dag_run_id: runId };
  const loaded = useApi<Schemas["DagRunJobs"]>("dag-run", query, isOver ? 60 : 4);
  if (loaded.data && loaded.data.is_over !== isOver) setOver(loaded.data.is_over);
  return (
    <div className="nemo nemo-page">
      <style href="nemo-dag-run" precedence="default">
        {css}
      </style>
      <Await of={loaded}>
        {(run) => (
          <>
            {run.tracker.away && <p className="nemo-note">{t("tracker.away", { why: run.tracker.away })}</p>}
            {run.tasks.length ? <Run run={run} dagId={dagId} runId={runId} /> : <p className="muted">{t("dagRun.empty")}</p>}
          </>
        )}
      </Await>
    </div>
  );
}

function Run({ run, dagId, runId }: { run: Schemas["DagRunJobs"]; dagId: string; runId: string }) {
  const failed = run.jobs.filter((job) => job.state === "failed" || job.state === "lost");
  return (
    <>
      <Totals run={run} />
      <Section title={t("dagRun.title")}>
        <Graph tasks={run.tasks} jobs={run.jobs} />
      </Section>
      <Models dagId={dagId} runId={runId} isOver={run.is_over} />
      {failed.length > 0 && (
        <Section title={t("dagRun.failures")}>
          <Failures jobs={failed} />
        </Section>
      )}
      <Jobs run={run} />
    </>
  );
}

function Totals({ run }: { run: Schemas["DagRunJobs"] }) {
  const states = new Map<string, number>();
  for (const task of run.tasks) {
    if (!task.is_job) continue;
    for (const [state, n] of Object.entries(task.states)) states.set(state, (states.get(state) ?? 0) + n);
  }
  const all = [...states].filter(([state]) => !OWN_STATES.includes(state)).reduce((sum, [, n]) => sum + n, 0);
  return (
    <div className="nemo-figures">
      <strong>{tn("dagRun.jobs", all)}</strong>
      {[...states].map(([state, n]) => (
        <JobState key={state} state={state} count={n} />
      ))}
      <strong>{t("dagRun.nodeHours", { n: hoursText(run.node_hours) })}</strong>
      <strong>{t("dagRun.gpuHours", { n: hoursText(run.gpu_hours) })}</strong>
    </div>
  );
}

/** The state of a job, or of a task that has none; with a count, of several. */
function JobState({ state, title, count }: { state: string; title?: string; count?: number }) {
  if (!OWN_STATES.includes(state) && count === undefined) return <State state={state} title={title} />;
  const name = OWN_STATES.includes(state) ? t(`dagRun.state.${state}` as Text) : t(`state.${state}` as Text);
  return (
    <span className={`nemo-state ${OWN_STATES.includes(state) ? "cancelled" : state}`} title={title || undefined}>
      <span>{count === undefined ? name : `${count} ${name}`}</span>
    </span>
  );
}

// ---- The graph

function Graph({ tasks, jobs }: { tasks: readonly Task[]; jobs: readonly Job[] }) {
  const shape = JSON.stringify(tasks.map((task) => [task.task_id, task.is_job, task.downstream]));
  const drawing = useMemo(
    () =>
      layOut(
        tasks.map((task) => ({ id: task.task_id, ...(task.is_job ? JOB : PASSING) })),
        tasks.flatMap((task) => task.downstream.map((to) => [task.task_id, to] as const)),
      ),
    // Not all that it uses is a dependency: the shape has all that is laid out.
    [shape],
  );
  const byTask = useMemo(() => groupBy(jobs, (job) => job.place.task_id), [jobs]);
  const at = new Map(drawing.boxes.map((box) => [box.id, box]));
  return (
    <div className="nemo-scroll" role="group" aria-label={t("dagRun.graph")} tabIndex={0}>
      <div className="nemo-graph" style={{ width: drawing.width + 4, height: drawing.height + 4 }}>
        <svg width={drawing.width} height={drawing.height} aria-hidden="true">
          {drawing.ways.map((way) => (
            <path key={`${way.from}\n${way.to}`} d={way.path} />
          ))}
        </svg>
        {tasks.map((task) => {
          const box = at.get(task.task_id);
          const style = box && { left: box.x, top: box.y, width: box.width, height: box.height };
          return <TaskBox key={task.task_id} task={task} jobs={byTask.get(task.task_id) ?? []} style={style} />;
        })}
      </div>
    </div>
  );
}

function TaskBox({ task, jobs, style }: { task: Task; jobs: readonly Job[]; style?: React.CSSProperties }) {
  const [address, setAddress] = useAddress();
  const name = <span className="name">{task.task_id}</span>;
  if (!task.is_job) {
    return (
      <span className="nemo-graph-task passing muted" style={style} title={`${task.task_id}: ${t("dagRun.connects")}`}>
        <span>{task.task_id}</span>
      </span>
    );
  }
  const [first] = jobs;
  if (!task.is_mapped && first) {
    return (
      <Link className="nemo-graph-task" style={style} to={whereOf(first)} title={first.why || task.task_id}>
        {name}
        <JobState state={first.state} />
        <Facts jobs={jobs} />
      </Link>
    );
  }
  const isChosen = address.get("task") === task.task_id;
  return (
    <button
      type="button"
      className={`nemo-graph-task mapped${isChosen ? " chosen" : ""}`}
      style={style}
      aria-pressed={isChosen}
      title={t("dagRun.showTask", { n: jobs.length, task: task.task_id })}
      onClick={() => setAddress({ task: isChosen ? null : task.task_id })}
    >
      {name}
      <span className="nemo-graph-states">
        {Object.entries(task.states).map(([state, n]) => (
          <JobState key={state} state={state} count={n} />
        ))}
      </span>
      <Facts jobs={jobs} />
    </button>
  );
}

function Facts({ jobs }: { jobs: readonly Job[] }) {
  const gpuHours = jobs.reduce((sum, job) => sum + job.gpu_hours, 0);
  const nodeHours = jobs.reduce((sum, job) => sum + job.node_hours, 0);
  const backEnds = [...new Set(jobs.map((job) => job.back_end).filter(Boolean))].join(", ");
  const hours = gpuHours
    ? t("dagRun.gpuHours", { n: hoursText(gpuHours) })
    : nodeHours
      ? t("dagRun.nodeHours", { n: hoursText(nodeHours) })
      : "";
  return <span className="muted">{[backEnds, hours].filter(Boolean).join(" · ")}</span>;
}

// ---- What has failed, and the table

function Failures({ jobs }: { jobs: readonly Job[] }) {
  const [shown, setShown] = useState(20);
  return (
    <>
      <ul className="nemo-failures">
        {jobs.slice(0, shown).map((job) => (
          <li key={keyOf(job)}>
            <Link to={whereOf(job)}>{nameOf(job)}</Link> {job.why || t("dagRun.noReason")}
          </li>
        ))}
      </ul>
      {jobs.length > shown && <More onClick={() => setShown(shown + 100)} />}
    </>
  );
}

function Jobs({ run }: { run: Schemas["DagRunJobs"] }) {
  const [address, setAddress] = useAddress();
  const [shown, setShown] = useState(AT_ONCE);
  const chosen = address.get("task") ?? "";
  const jobs = chosen ? run.jobs.filter((job) => job.place.task_id === chosen) : run.jobs;
  const tasks = run.tasks.filter((task) => task.is_job).map((task) => task.task_id);
  const choice = (
    <select
      className="nemo-field"
      aria-label={t("dagRun.ofTask")}
      value={tasks.includes(chosen) ? chosen : ""}
      onChange={(event) => setAddress({ task: event.target.value })}
    >
      <option value="">{t("dagRun.allTasks")}</option>
      {tasks.map((task) => (
        <option key={task}>{task}</option>
      ))}
    </select>
  );
  return (
    <Section title={t("dagRun.table")} aside={tasks.length > 1 && choice}>
      <div className="nemo-scroll" tabIndex={0}>
        <table className="nemo-table" aria-label={t("dagRun.table")}>
          <thead>
            <tr>
              <Head name="task" />
              <Head name="state" />
              <Head name="took" isNumber />
              <Head name="nodes" isNumber />
              <Head name="gpus" isNumber />
              <Head name="nodeHours" isNumber />
              <Head name="gpuHours" isNumber />
              <Head name="backEnd" />
              <Head name="started" />
              <Head name="why" />
            </tr>
          </thead>
          <tbody>
            {jobs.slice(0, shown).map((job) => (
              <Row key={keyOf(job)} job={job} />
            ))}
          </tbody>
        </table>
      </div>
      {jobs.length > shown && <More onClick={() => setShown(shown + 200)} />}
      {run.left_out > 0 && <p className="muted">{t("dagRun.leftOut", { n: run.left_out })}</p>}
    </Section>
  );
}

function Head({ name, isNumber = false }: { name: string; isNumber?: boolean }) {
  return <th className={isNumber ? "number" : ""}>{t(`dagRun.column.${name}` as Text)}</th>;
}

function Row({ job }: { job: Job }) {
  const number = (value: number): ReactNode => (job.key ? numberText(value, 3) : "");
  const notes = [job.is_reused && t("dagRun.reused"), job.attempts > 1 && t("dagRun.attempts", { n: job.attempts })];
  return (
    <tr>
      <td>
        <Link to={whereOf(job)}>{nameOf(job)}</Link>
      </td>
      <td>
        <JobState state={job.state} title={job.task_state} />
      </td>
      <td className="number">{job.key ? durationText(job.seconds) : ""}</td>
      <td className="number">{number(job.nodes)}</td>
      <td className="number">{number(job.gpus)}</td>
      <td className="number">{job.key && hoursText(job.node_hours)}</td>
      <td className="number">{job.key && hoursText(job.gpu_hours)}</td>
      <td>{[job.back_end, job.cluster, job.job_id].filter(Boolean).join(" ")}</td>
      <td>{job.started ? timeText(job.started) : ""}</td>
      <td className="why">{[job.why, ...notes].filter(Boolean).join("; ")}</td>
    </tr>
  );
}

function More({ onClick }: { onClick: () => void }) {
  return (
    <button type="button" className="nemo-button" onClick={onClick}>
      {t("show.more")}
    </button>
  );
}

/** Hours to a hundredth, which is half a minute. */
function hoursText(hours: number): string {
  const rounded = Math.round(hours * 100) / 100;
  return rounded || !hours ? numberText(rounded) : `< ${numberText(0.01)}`;
}

const whereOf = (job: Job) => (job.key ? jobPath(job.place) : taskPath(job.place));
const nameOf = ({ place }: Job) => (place.map_index >= 0 ? `${place.task_id} [${place.map_index}]` : place.task_id);
const keyOf = ({ place }: Job) => `${place.task_id} ${place.map_index}`;

function groupBy<T>(values: readonly T[], name: (value: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const group = groups.get(name(value));
    if (group) group.push(value);
    else groups.set(name(value), [value]);
  }
  return groups;
}
