// The curves of chosen metrics, each with a line for each run.
import { useMemo } from "react";
import { setAddress } from "../../address";
import { fromWire } from "../../host";
import { Await } from "../../parts/basics";
import { Chart, type Line } from "../../parts/chart";
import { useApi } from "../../query";
import { t } from "../../strings";
import type { Schemas } from "../../types";
import type { PartProps } from "./shownRun";

/** Runs of which a chart has a legend; of more, the heads of the table are one. */
const LEGEND = 12;

export function Curves(props: PartProps) {
  const { data, shown } = props;
  const names = data.metrics.map(({ name }) => name);
  const asked = shown.curves.filter((name) => names.includes(name));
  const chosen = asked.length ? asked : names.slice(0, 1);
  if (!names.length) return <p className="muted">{t("compare.curves.none")}</p>;
  return (
    <>
      <Choices {...props} names={names} chosen={chosen} />
      <div className="nemo-compare-curves">
        {chosen.map((metric) => (
          <Curve key={metric} metric={metric} {...props} />
        ))}
      </div>
    </>
  );
}

function Choices({ shown, names, chosen }: PartProps & { names: readonly string[]; chosen: readonly string[] }) {
  return (
    <div className="nemo-bar">
      {chosen.map((name) => (
        <button
          key={name}
          type="button"
          className="nemo-button"
          aria-label={t("compare.curves.remove", { name })}
          onClick={() => setAddress({ curve: chosen.filter((each) => each !== name) })}
        >
          {name} ✕
        </button>
      ))}
      <select
        className="nemo-field"
        aria-label={t("compare.curves.choose")}
        value=""
        onChange={(event) => setAddress({ curve: [...chosen, event.target.value] })}
      >
        <option value="">{t("compare.curves.add")}</option>
        {names
          .filter((name) => !chosen.includes(name))
          .map((name) => (
            <option key={name}>{name}</option>
          ))}
      </select>
      <label className="nemo-bar">
        {t("compare.x")}
        <select
          className="nemo-field"
          value={shown.x}
          onChange={(event) => setAddress({ x: event.target.value === "step" ? null : event.target.value, zoom: null })}
        >
          <option value="step">{t("compare.x.step")}</option>
          <option value="relative">{t("compare.x.relative")}</option>
        </select>
      </label>
      <label className="nemo-bar">
        {t("compare.smoothing")}
        <input
          type="range"
          min={0}
          max={0.98}
          step={0.02}
          value={shown.smoothing}
          onChange={(event) => setAddress({ smooth: Number(event.target.value) || null })}
        />
      </label>
      <label className="nemo-bar">
        <input type="checkbox" checked={shown.log} onChange={(event) => setAddress({ log: event.target.checked ? 1 : null })} />
        {t("compare.log")}
      </label>
    </div>
  );
}

function Curve({ metric, data, shown, runs, highlit, highlight }: PartProps & { metric: string }) {
  const isRunning = data.runs.some((run) => run.seconds == null);
  const ids = data.runs.map((run) => run.mlflow_run_id);
  const answer = useApi<Schemas["Curves"]>("compare/points", { mlflow_run_id: ids, metric }, isRunning ? 10 : 0);
  const curves = answer.data?.curves;
  const lines = useMemo(() => {
    const byId = new Map(curves?.map((curve) => [curve.mlflow_run_id, curve]));
    return runs.flatMap((run): Line[] => {
      const curve = byId.get(run.mlflow_run_id);
      if (!curve) return [];
      return [
        {
          id: run.mlflow_run_id,
          label: run.label,
          colour: run.colour,
          x: shown.x === "step" ? curve.steps : curve.times,
          y: curve.values.map((value) => fromWire(value)),
          running: run.seconds == null,
        },
      ];
    });
  }, [curves, runs, shown.x]);
  return (
    <div className="nemo-compare-figure">
      <h3>{metric}</h3>
      <Await of={answer}>
        {() => (
          <Chart
            title={metric}
            lines={lines}
            x={shown.x}
            log={shown.log}
            smoothing={shown.smoothing}
            height={260}
            sync="nemo-compare"
            range={shown.zoom}
            onRange={(range) => setAddress({ zoom: range && range.join("~") })}
            legend={runs.length <= LEGEND}
            highlit={highlit}
            onHighlight={highlight}
          />
        )}
      </Await>
    </div>
  );
}
