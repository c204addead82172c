// All jobs of all DAGs that the user may read, whatever the list shows stands in the address; some of them side by side
// in the view that compares them.
import { lazy, Suspense, useState } from "react";
import { Link } from "react-router-dom";
import { useAddress } from "../address";
import { durationText, fromWire, jobPath, numberText, timeText } from "../host";
import { Await, Problem, State } from "../parts/basics";
import { Sparkline } from "../parts/sparkline";
import { VirtualTable, type Column, type Group } from "../parts/table";
import { useApi } from "../query";
import { t, tn } from "../strings";
import type { Schemas } from "../types";
import css from "./experiments.css";
import { Actions } from "./experiments/Actions";
import { ColumnChooser } from "./experiments/Columns";
import { Filters } from "./experiments/Filters";
import { useLines } from "./experiments/lines";
import { dagRunOf, isUnderWay, sweepOf, valueText } from "./experiments/looks";
import { idOf, useRows, type Row } from "./experiments/rows";
import { NARROWING, read, type Shown } from "./experiments/state";

const Compare = lazy(() => import("./Compare").then((module) => ({ default: module.Compare })));

export function Experiments() {
  const [address] = useAddress();
  return (
    <main className="nemo nemo-page nemo-experiments">
      <style href="nemo-experiments" precedence="default">
        {css}
      </style>
      {address.has("compare") ? (
        <Suspense fallback={<p className="muted">{t("loading")}</p>}>
          <Compare />
        </Suspense>
      ) : (
        <Jobs />
      )}
    </main>
  );
}

// Kept while the page is mounted anew.
const selected = new Map<string, Row>();

function Jobs() {
  const [address, setAddress] = useAddress();
  const shown = read(address);
  const [, redraw] = useState(0);
  const { rows, list, again, more } = useRows({ ...shown.filter, sort: shown.sort, column: shown.columns });
  const names = useApi<Schemas["RunNames"]>("runs/names", shown.filter).data;
  const best = useApi<Schemas["BestRun"]>(
    shown.goal ? "runs/best" : null,
    { ...shown.filter, goal: shown.goal, better: shown.better, column: shown.columns },
    20,
  ).data;
  const { lineOf, onView } = useLines(shown.line);

  const select = (some: readonly Row[], on: boolean) => {
    for (const row of some) {
      if (on) selected.set(idOf(row), row);
      else selected.delete(idOf(row));
    }
    redraw((count) => count + 1);
  };
  const bestId = shown.goal && best?.run ? idOf(best.run) : "";
  const columns = makeColumns({ shown, rows, bestId, lineOf, select });
  const tracker = list.answer?.tracker;

  return (
    <>
      <div className="nemo-bar nemo-spread">
        <h1>{t("experiments.title")}</h1>
        <Actions
          selected={[...selected.values()]}
          onUnselect={() => select([...selected.values()], false)}
          onDone={again}
        />
      </div>
      <Filters shown={shown} names={names} />
      <div className="nemo-bar">
        <Choosers shown={shown} names={names} />
      </div>
      {shown.goal && best && <Best best={best} goal={shown.goal} />}
      {tracker?.away && <p className="nemo-note">{t("tracker.away", { why: tracker.away })}</p>}
      {list.answer?.sorts_only ? (
        <p className="nemo-note">{t("experiments.sortsOnly", { n: list.answer.sorts_only })}</p>
      ) : null}
      {list.error && list.answer && <Problem error={list.error} retry={again} />}
      <Await of={{ data: list.answer, error: list.answer ? undefined : list.error, reload: again }}>
        {() =>
          rows.length ? (
            <>
              <VirtualTable
                label={t("experiments.table")}
                columns={columns}
                items={grouped(rows, shown.group)}
                id={idOf}
                className={(row) => (idOf(row) === bestId ? "best" : "")}
                sort={shown.sort || "-started"}
                onSort={(sort) => setAddress({ sort: sort === "-started" ? "" : sort })}
                onView={onView}
                onEnd={more}
              />
              <div className="nemo-bar muted">
                <span role="status">{t("experiments.shown", { n: rows.length })}</span>
                {list.next && (
                  <button type="button" className="nemo-button" onClick={more} disabled={list.isLoading}>
                    {list.isLoading ? t("loading") : t("show.more")}
                  </button>
                )}
              </div>
            </>
          ) : (
            <div className="nemo-note">
              <p>{shown.isNarrowed ? t("experiments.none") : t("experiments.first")}</p>
              {shown.isNarrowed && (
                <button type="button" className="nemo-button" onClick={() => setAddress(nothing())}>
                  {t("experiments.clearFilters")}
                </button>
              )}
            </div>
          )
        }
      </Await>
    </>
  );
}

const nothing = () => Object.fromEntries(NARROWING.map((name) => [name, null]));

function Choosers({ shown, names }: { shown: Shown; names: Schemas["RunNames"] | undefined }) {
  const [, setAddress] = useAddress();
  return (
    <>
      <ColumnChooser chosen={shown.columns} names={names} onChoose={(column) => setAddress({ column })} />
      <datalist id="nemo-metrics">
        {names?.metrics?.map((name) => <option key={name} value={name} />)}
      </datalist>
      <Committed
        label={t("experiments.best")}
        value={shown.goal}
        list="nemo-metrics"
        placeholder={t("experiments.goal")}
        onCommit={(goal) => setAddress({ goal })}
      />
      {shown.goal && (
        <select
          className="nemo-field"
          aria-label={t("experiments.best")}
          value={shown.better}
          onChange={(event) => setAddress({ better: event.target.value === "max" ? "max" : "" })}
        >
          <option value="min">{t("experiments.min")}</option>
          <option value="max">{t("experiments.max")}</option>
        </select>
      )}
      <Committed
        label={t("experiments.line")}
        value={shown.line}
        list="nemo-metrics"
        placeholder={t("experiments.goal")}
        onCommit={(line) => setAddress({ line })}
      />
      <label className="nemo-label">
        {t("experiments.group")}
        <select
          className="nemo-field"
          value={shown.group}
          onChange={(event) => setAddress({ group: event.target.value })}
        >
          <option value="">{t("experiments.noGroup")}</option>
          <option value="sweep">{t("experiments.sweep")}</option>
          <option value="dag_run">{t("experiments.dagRun")}</option>
        </select>
      </label>
    </>
  );
}

/** A field whose text counts once it is left, or Enter is pressed: each change asks the server. */
export function Committed(props: {
  label: string;
  value: string;
  onCommit: (value: string) => void;
  list?: string;
  placeholder?: string;
}) {
  const [typed, setTyped] = useState<string>();
  const commit = () => {
    if (typed !== undefined && typed.trim() !== props.value) props.onCommit(typed.trim());
    setTyped(undefined);
  };
  return (
    <label className="nemo-label">
      {props.label}
      <input
        className="nemo-field"
        value={typed ?? props.value}
        list={props.list}
        placeholder={props.placeholder}
        onChange={(event) => {
          setTyped(event.target.value);
          // A name chosen from the list comes at once, without a key.
          if (!("inputType" in event.nativeEvent) || event.nativeEvent.inputType === "insertReplacementText") {
            props.onCommit(event.target.value.trim());
          }
        }}
        onBlur={commit}
        onKeyDown={(event) => event.key === "Enter" && commit()}
      />
    </label>
  );
}

function Best({ best, goal }: { best: Schemas["BestRun"]; goal: string }) {
  if (!best.run) return <p className="nemo-note">{t("experiments.noBest")}</p>;
  const value = numberText(fromWire(best.value));
  return (
    <p className="nemo-note">
      <span aria-hidden="true">★ </span>
      {t("experiments.bestIs")} <Name row={best.run} /> <span className="muted">{best.run.place.dag_id}</span>{" "}
      <b>
        {goal} = {value}
      </b>
      {best.of_newest ? ` (${t("experiments.sortsOnly", { n: best.of_newest })})` : ""}
    </p>
  );
}

function Name({ row }: { row: Row }) {
  if (!row.place.dag_id) return <span title={row.key}>{row.name || row.key}</span>;
  return (
    <Link to={jobPath(row.place)} title={row.key}>
      {row.name || row.key}
    </Link>
  );
}

function makeColumns(props: {
  shown: Shown;
  rows: readonly Row[];
  bestId: string;
  lineOf: ReturnType<typeof useLines>["lineOf"];
  select: (rows: readonly Row[], on: boolean) => void;
}): Column<Row>[] {
  const { shown, rows, bestId, lineOf, select } = props;
  const now = Date.now() / 1000;
  const all = rows.length > 0 && rows.every((row) => selected.has(idOf(row)));
  const columns: (Column<Row> | false)[] = [
    {
      key: "select",
      label: "",
      width: 36,
      head: (
        <input
          type="checkbox"
          checked={all}
          aria-label={t("experiments.selectAll")}
          onChange={(event) => select(rows, event.target.checked)}
        />
      ),
      cell: (row) => (
        <input
          type="checkbox"
          checked={selected.has(idOf(row))}
          aria-label={t("experiments.select", { name: `${row.name} ${row.key}` })}
          onChange={(event) => select([row], event.target.checked)}
        />
      ),
    },
    {
      key: "name",
      label: t("column.name"),
      width: 150,
      sort: "name",
      cell: (row) => (
        <>
          {idOf(row) === bestId && (
            <span role="img" aria-label={t("experiments.bestMark")} title={t("experiments.bestMark")}>
              ★{" "}
            </span>
          )}
          <Name row={row} />
        </>
      ),
    },
    {
      key: "state",
      label: t("column.state"),
      width: 130,
      sort: "state",
      cell: (row) => (
        <>
          <State state={row.state} title={row.why} />
          {row.why && <span className="nemo-why"> {row.why}</span>}
        </>
      ),
    },
    { key: "dag", label: t("column.dag"), width: 150, sort: "dag", cell: (row) => row.place.dag_id },
    Boolean(shown.line) && {
      key: "line",
      label: t("column.line", { metric: shown.line }),
      width: 112,
      cell: (row) => {
        const line = lineOf(row);
        if (!line?.values.length) return null;
        const label = t("experiments.lineLabel", {
          metric: shown.line,
          name: row.name,
          first: numberText(line.values[0]),
          last: numberText(line.values[line.values.length - 1]),
        });
        return <Sparkline steps={line.steps} values={line.values} label={label} live={isUnderWay(row)} />;
      },
    },
    ...shown.columns.map((column): Column<Row> => {
      const name = column.slice(column.indexOf(".") + 1);
      return {
        key: column,
        label: name,
        width: Math.min(220, Math.max(96, name.length * 8 + 24)),
        isNumber: column.startsWith("metrics."),
        sort: column,
        cell: (row) => valueText(column, row.values[column]),
      };
    }),
    { key: "backEnd", label: t("column.backEnd"), width: 110, sort: "back-end", cell: (row) => row.back_end },
    { key: "started", label: t("column.started"), width: 215, sort: "started", cell: (row) => timeText(row.started) },
    {
      key: "took",
      label: t("column.took"),
      width: 110,
      isNumber: true,
      cell: (row) => durationText(row.seconds ?? (isUnderWay(row) && row.started ? now - row.started : null)),
    },
    { key: "user", label: t("column.user"), width: 100, sort: "user", cell: (row) => row.user },
  ];
  return columns.filter((column): column is Column<Row> => column !== false);
}

/** Puts a heading above rows that belong together, at the place of the first one; others stay as they are. */
function grouped(rows: readonly Row[], by: Shown["group"]): (Row | Group)[] {
  if (!by) return [...rows];
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const name = (by === "sweep" ? sweepOf(row) : dagRunOf(row)) || `\0${idOf(row)}`;
    const group = groups.get(name);
    if (group) group.push(row);
    else groups.set(name, [row]);
  }
  return [...groups].flatMap(([name, of]) => {
    if (name.startsWith("\0")) return of;
    const states = new Map<string, number>();
    for (const row of of) states.set(row.state, (states.get(row.state) ?? 0) + 1);
    const title = (
      <span className="nemo-bar nemo-group">
        <b>{name}</b>
        <span className="muted">{tn("experiments.jobs", of.length)}</span>
        {[...states].map(([state, count]) => (
          <span key={state}>
            {count} <State state={state} />
          </span>
        ))}
      </span>
    );
    return [{ group: name, title }, ...of];
  });
}
