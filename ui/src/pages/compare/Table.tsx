// One table of all that was compared: a column for each run, a group of rows for each kind of value.
import { useEffect, useRef, useState, type ReactNode, type RefObject } from "react";
import { Link } from "react-router-dom";
import { setAddress } from "../../address";
import { durationText, fromWire, jobPath, numberText, timeText } from "../../host";
import { Problem, State } from "../../parts/basics";
import { useColours } from "../../parts/colours";
import { useApi } from "../../query";
import { t } from "../../strings";
import type { Schemas } from "../../types";
import type { PartProps, ShownRun } from "./shownRun";
import { writeGoals, type Shown, type Which } from "./state";

const MADE = ["config", "code", "environment", "inputs", "asked"] as const;
type Section = "run" | "metrics" | (typeof MADE)[number];

const ABSENT = -1;
const UNKNOWN = -2;

export function Table({ data, shown, runs, highlit, highlight }: PartProps) {
  const base = runs.find((run) => run.mlflow_run_id === shown.base) ?? runs[0];
  const scroll = useRef<HTMLDivElement>(null);
  if (!base) return null;
  const rows = { shown, runs, base, scroll };
  const ids = data.runs.map((run) => run.mlflow_run_id);
  return (
    <section className="nemo-compare-part" aria-label={t("compare.table")}>
      <Choices shown={shown} />
      <div className="nemo-compare-grid" ref={scroll} tabIndex={0} role="region" aria-label={t("compare.table")}>
        <table onMouseLeave={() => highlight("")}>
          <thead>
            <tr>
              <td />
              {runs.map((run) => (
                <Head key={run.mlflow_run_id} run={run} shown={shown} isBase={run === base} highlit={highlit} highlight={highlight} />
              ))}
            </tr>
          </thead>
          <RunRows {...rows} />
          <Metrics {...rows} data={data} />
          {MADE.map((section) => (
            <Made key={section} section={section} ids={ids} {...rows} />
          ))}
        </table>
      </div>
    </section>
  );
}

function Choices({ shown }: { shown: Shown }) {
  const [find, setFind] = useState(shown.find);
  useEffect(() => {
    if (find === shown.find) return;
    const timer = setTimeout(() => setAddress({ find }), 300);
    return () => clearTimeout(timer);
  }, [find, shown.find]);
  return (
    <div className="nemo-bar">
      <input
        type="search"
        className="nemo-field"
        aria-label={t("compare.find")}
        placeholder={t("compare.find")}
        value={find}
        onChange={(event) => setFind(event.target.value)}
      />
      <label className="nemo-bar">
        <input type="checkbox" checked={shown.same} onChange={(event) => setAddress({ same: event.target.checked ? 1 : null })} />
        {t("compare.same")}
      </label>
      <label className="nemo-bar">
        {t("compare.value")}
        <select
          className="nemo-field"
          value={shown.which}
          onChange={(event) => setAddress({ which: event.target.value === "last" ? null : event.target.value })}
        >
          {(["last", "min", "max"] as const).map((which) => (
            <option key={which} value={which}>
              {t(`compare.value.${which}`)}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}

function Head(props: { run: ShownRun; shown: Shown; isBase: boolean; highlit: string; highlight: (id: string) => void }) {
  const { run, shown, isBase, highlit, highlight } = props;
  const colour = useColours()(run.colour);
  const id = run.mlflow_run_id;
  const left = shown.ids.filter((each) => each !== id);
  return (
    <th
      scope="col"
      className={`${isBase ? "base" : ""} ${highlit && highlit !== id ? "faded" : ""}`}
      style={{ borderTopColor: colour }}
      onMouseEnter={() => highlight(id)}
      onFocus={() => highlight(id)}
      onBlur={() => highlight("")}
    >
      <div className="name" title={run.name}>
        {run.place.dag_id ? <Link to={jobPath(run.place)}>{run.name}</Link> : run.name}
      </div>
      <div className="key muted mono" title={run.key}>
        {run.key}
      </div>
      <State state={run.state} title={run.why} />
      <div className="tools">
        {isBase ? (
          <span className="muted">{t("compare.base")}</span>
        ) : (
          <button type="button" aria-label={t("compare.makeBase", { name: run.label })} onClick={() => setAddress({ base: id })}>
            {t("compare.setBase")}
          </button>
        )}
        <button
          type="button"
          aria-label={t("compare.remove", { name: run.label })}
          onClick={() => setAddress({ compare: left, base: shown.base === id ? null : shown.base }, "push")}
        >
          ✕
        </button>
      </div>
    </th>
  );
}

interface RowsProps {
  shown: Shown;
  runs: readonly ShownRun[];
  base: ShownRun;
  scroll: RefObject<HTMLDivElement | null>;
}

/** A group of rows under a heading that closes it. */
function Group(props: RowsProps & { section: Section; note?: string; children?: ReactNode; box?: RefObject<HTMLTableSectionElement | null> }) {
  const { section, shown, runs } = props;
  const isOpen = !shown.closed.includes(section);
  const closed = isOpen ? [...shown.closed, section] : shown.closed.filter((each) => each !== section);
  return (
    <tbody ref={props.box}>
      <tr className="group">
        <th scope="rowgroup">
          <button type="button" aria-expanded={isOpen} onClick={() => setAddress({ closed })}>
            <span aria-hidden="true">{isOpen ? "▾" : "▸"}</span> {t(`compare.section.${section}`)}
          </button>
        </th>
        <td colSpan={runs.length} className="muted">
          <span className="note">{props.note}</span>
        </td>
      </tr>
      {isOpen && props.children}
    </tbody>
  );
}

function RunRows(props: RowsProps) {
  const { runs, base, shown } = props;
  const rows: [string, (run: ShownRun) => string][] = [
    [t("compare.run.dag"), (run) => run.place.dag_id],
    [t("compare.run.task"), (run) => run.place.task_id],
    [t("compare.run.started"), (run) => timeText(run.started)],
    [t("compare.run.took"), (run) => durationText(run.seconds)],
    [t("compare.run.backEnd"), (run) => [run.back_end, run.cluster].filter(Boolean).join(" ")],
    [t("compare.run.user"), (run) => run.user],
    [t("compare.run.why"), (run) => run.why],
  ];
  const found = rows.filter(([name]) => matches(name, shown.find));
  const differing = found.filter(([, text]) => new Set(runs.map(text)).size > 1);
  return (
    <Group {...props} section="run" note={note(differing.length, found.length - differing.length)}>
      {(shown.same ? found : differing).map(([name, text]) => (
        <tr key={name}>
          <th scope="row">{name}</th>
          {runs.map((run) => (
            <Cell key={run.mlflow_run_id} text={text(run)} isBase={run === base} isChanged={false} />
          ))}
        </tr>
      ))}
    </Group>
  );
}

function Made(props: RowsProps & { section: (typeof MADE)[number]; ids: readonly string[] }) {
  const { section, ids, shown, runs, base, scroll } = props;
  const box = useRef<HTMLTableSectionElement>(null);
  const seen = useSeen(box, scroll);
  const isOpen = !shown.closed.includes(section);
  const answer = useApi<Schemas["ComparedSection"]>(seen && isOpen ? "compare/made" : null, {
    mlflow_run_id: ids,
    section,
    same: shown.same || undefined,
    search: shown.find,
  });
  const { data, error } = answer;
  const places = new Map(data?.runs.map((id, index) => [id, index]));
  const text = !data
    ? error || !isOpen
      ? ""
      : t("loading")
    : [note(data.rows.length + data.more, data.same, shown.same), data.more > 0 && t("compare.moreRows", { n: data.more })]
        .filter(Boolean)
        .join(" · ");
  return (
    <Group {...props} box={box} note={text}>
      {error && (
        <tr>
          <td colSpan={runs.length + 1}>
            <Problem error={error} retry={answer.reload} />
          </td>
        </tr>
      )}
      {data?.rows.map((row) => {
        const of = (run: ShownRun) => row.of[places.get(run.mlflow_run_id) ?? -1] ?? UNKNOWN;
        return (
          <tr key={row.name}>
            <th scope="row" title={row.name}>
              <span>{row.name}</span>
            </th>
            {runs.map((run) => {
              const place = of(run);
              const isChanged = place !== of(base) && place !== UNKNOWN;
              return (
                <Cell key={run.mlflow_run_id} text={row.values[place]} place={place} isBase={run === base} isChanged={isChanged} />
              );
            })}
          </tr>
        );
      })}
    </Group>
  );
}

function Cell({ text, place, isBase, isChanged }: { text?: string; place?: number; isBase: boolean; isChanged: boolean }) {
  const nothing = place === UNKNOWN ? t("compare.unknown") : place === ABSENT ? "–" : "";
  return (
    <td className={`${isBase ? "base" : ""} ${isChanged ? "nemo-changed" : ""}`} title={text}>
      {isChanged && <span className="nemo-visually-hidden">{t("compare.changed")}: </span>}
      {text ?? (
        <span className="muted" title={place === ABSENT ? t("compare.absent") : undefined}>
          {nothing}
        </span>
      )}
    </td>
  );
}

// ---- Metrics

function Metrics(props: RowsProps & { data: Schemas["Comparison"] }) {
  const { data, shown, runs } = props;
  const found = data.metrics.filter(({ name }) => matches(name, shown.find));
  const differing = found.filter(({ values }) => new Set(runs.map((run) => values[run.index])).size > 1);
  return (
    <Group {...props} section="metrics" note={note(differing.length, found.length - differing.length)}>
      {(shown.same ? found : differing).map((metric) => (
        <Metric key={metric.name} metric={metric} {...props} />
      ))}
    </Group>
  );
}

function Metric({ metric, data, shown, runs, base, scroll }: RowsProps & { metric: Schemas["ComparedMetric"]; data: Schemas["Comparison"] }) {
  const { name } = metric;
  const box = useRef<HTMLTableRowElement>(null);
  const isOfAll = shown.which !== "last";
  const seen = useSeen(box, scroll);
  const all = useApi<Schemas["Extremes"]>(isOfAll && seen ? "compare/extremes" : null, {
    mlflow_run_id: data.runs.map((run) => run.mlflow_run_id),
    metric: name,
  }).data;
  const goal = shown.goals[name] ?? usualGoal(name);
  const values = runs.map((run) => fromWire(valueOf(shown.which, metric, all, run)));
  const finite = values.filter((value): value is number => value !== null && Number.isFinite(value));
  const best = finite.length ? (goal === "min" ? Math.min(...finite) : Math.max(...finite)) : null;
  const isWorth = new Set(finite).size > 1;
  const isDrawn = shown.curves.includes(name);
  return (
    <tr ref={box}>
      <th scope="row" title={name}>
        <div className="metric">
          <button
            type="button"
            className="name"
            aria-pressed={isDrawn}
            title={t("compare.curve", { name })}
            onClick={() => setAddress({ curve: isDrawn ? shown.curves.filter((each) => each !== name) : [...shown.curves, name] })}
          >
            {name}
          </button>
          <button
            type="button"
            className="goal"
            aria-label={`${name}: ${t(`compare.goal.${goal}`)}`}
            title={t(`compare.goal.${goal}`)}
            onClick={() => setAddress({ best: writeGoals({ ...shown.goals, [name]: goal === "min" ? "max" : "min" }) })}
          >
            {goal === "min" ? "↓" : "↑"}
          </button>
        </div>
      </th>
      {runs.map((run, index) => {
        const value = values[index] ?? null;
        const isBest = isWorth && value === best;
        return (
          <td key={run.mlflow_run_id} className={`number ${run === base ? "base" : ""} ${isBest ? "best" : ""}`} title={value === null ? "" : String(value)}>
            {isBest && <span className="star" role="img" aria-label={t("compare.best")}>★ </span>}
            {isOfAll && !all ? "…" : value === null ? <span className="muted">–</span> : numberText(value)}
          </td>
        );
      })}
    </tr>
  );
}

function valueOf(which: Which, metric: Schemas["ComparedMetric"], all: Schemas["Extremes"] | undefined, run: ShownRun) {
  if (which === "last") return metric.values[run.index];
  const index = all?.runs.indexOf(run.mlflow_run_id) ?? -1;
  return (which === "min" ? all?.smallest : all?.largest)?.[index];
}

/** Returns which value of a metric is usually the best, by its name. */
export function usualGoal(name: string): "min" | "max" {
  return /acc|auc|f1|score|precision|recall|map|bleu|rouge|reward|throughput|per_second|iou|r2/i.test(name) ? "max" : "min";
}

// ---- Small things

function note(differing: number, same: number, areMixed = false): string {
  if (areMixed) return differing ? "" : t("compare.noneAtAll");
  if (!differing && !same) return t("compare.noneAtAll");
  const equal = same ? t("compare.areSame", { n: same }) : "";
  return [differing ? t("compare.differ", { n: differing }) : t("compare.none"), equal].filter(Boolean).join(" · ");
}

function matches(name: string, find: string): boolean {
  return name.toLowerCase().includes(find.toLowerCase());
}

/** Whether an element has come into view in a box that scrolls. */
function useSeen(box: RefObject<Element | null>, scroll: RefObject<Element | null>): boolean {
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    if (seen || !box.current) return;
    const observer = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && setSeen(true), {
      root: scroll.current,
      rootMargin: "150px 10000px",
    });
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [seen, box, scroll]);
  return seen;
}
