// Two to fifty runs side by side: what differs, their metrics, curves, a scatter plot and parallel coordinates.
import { lazy, Suspense, useCallback, useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import { setAddress, useAddress } from "../address";
import { Await } from "../parts/basics";
import { useApi } from "../query";
import { t, tn } from "../strings";
import type { Schemas } from "../types";
import css from "./compare.css";
import { axesOf, inBrushes } from "./compare/axes";
import { NONE, read, type Shown } from "./compare/state";
import { Table } from "./compare/Table";
import type { ShownRun } from "./compare/shownRun";

const Curves = lazy(() => import("./compare/Curves").then((module) => ({ default: module.Curves })));
const Parallel = lazy(() => import("./compare/Parallel").then((module) => ({ default: module.Parallel })));
const Scatter = lazy(() => import("./compare/Scatter").then((module) => ({ default: module.Scatter })));

const MOST = 50;

export function Compare() {
  const [address] = useAddress();
  const shown = read(address);
  const count = shown.ids.length;
  return (
    <>
      <style href="nemo-compare" precedence="default">
        {css}
      </style>
      <div className="nemo-bar">
        <h1>{t("compare.title", { n: count })}</h1>
        <button type="button" className="nemo-button" onClick={() => setAddress(NONE, "push")}>
          {t("compare.back")}
        </button>
      </div>
      {count < 2 || count > MOST ? (
        <p className="nemo-note" role="status">
          {count < 2 ? t("compare.tooFew") : t("compare.tooMany", { n: count })}
        </p>
      ) : (
        <Runs shown={shown} />
      )}
    </>
  );
}

function Runs({ shown }: { shown: Shown }) {
  const [every, setEvery] = useState(0);
  const answer = useApi<Schemas["Comparison"]>("compare", { mlflow_run_id: shown.ids }, every);
  const isRunning = answer.data?.runs.some((run) => run.seconds == null) ?? false;
  useEffect(() => setEvery(isRunning ? 10 : 0), [isRunning]);
  return <Await of={answer}>{(data) => <Compared data={data} shown={shown} />}</Await>;
}

function Compared({ data, shown }: { data: Schemas["Comparison"]; shown: Shown }) {
  const [highlit, setHighlit] = useState("");
  const highlight = useCallback((id: string) => setHighlit(id), []);
  const axes = useMemo(
    () => axesOf(data, { seconds: t("compare.took"), started: t("compare.started") }),
    [data],
  );
  const brushed = JSON.stringify(shown.brushes);
  const kept = useMemo(
    () => inBrushes(axes, shown.brushes, data.runs.length),
    // Not all that it uses is a dependency: the brushes are made anew from the address each time.
    [axes, brushed, data],
  );
  const runs = useMemo(
    () => {
      const names = data.runs.map((run) => run.name);
      const isAlone = (name: string) => names.indexOf(name) === names.lastIndexOf(name);
      return data.runs.map((run, index): ShownRun => {
        const label = isAlone(run.name) ? run.name : run.key;
        return { ...run, label, index, colour: index, kept: kept[index] ?? true };
      });
    },
    [data, kept],
  );
  const visible = useMemo(() => runs.filter((run) => run.kept), [runs]);
  const out = runs.length - visible.length;
  const parts = { data, shown, axes, runs, highlit, highlight };
  return (
    <>
      {data.missing > 0 && <p className="nemo-note">{tn("compare.missing", data.missing)}</p>}
      {data.runs.length === 1 && <p className="nemo-note">{t("compare.left")}</p>}
      {out > 0 && (
        <p className="nemo-note nemo-bar" role="status">
          {visible.length ? tn("compare.leftOut", out) : t("compare.allLeftOut")}
          <button type="button" className="nemo-button" onClick={() => setAddress({ brush: null })}>
            {t("compare.showAll")}
          </button>
        </p>
      )}
      <Table {...parts} runs={visible} />
      <Seen title={t("compare.curves")}>
        <Curves {...parts} runs={visible} />
      </Seen>
      <Seen title={t("compare.parallel")}>
        <Parallel {...parts} />
      </Seen>
      <Seen title={t("compare.scatter")}>
        <Scatter {...parts} />
      </Seen>
    </>
  );
}

/** A part of the page that is loaded when it comes into view. */
function Seen({ title, children }: { title: string; children: ReactNode }) {
  const box = useRef<HTMLElement>(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    if (!box.current || seen) return;
    const observer = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && setSeen(true), {
      rootMargin: "200px",
    });
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [seen]);
  const waiting = <p className="muted">{t("loading")}</p>;
  return (
    <section className="nemo-card nemo-compare-part" aria-label={title} ref={box}>
      <h2>{title}</h2>
      {seen ? <Suspense fallback={waiting}>{children}</Suspense> : waiting}
    </section>
  );
}
