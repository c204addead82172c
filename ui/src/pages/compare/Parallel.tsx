// A line for each run across axes of metrics and parameters; ranges on them choose which runs the page shows.
import { useMemo } from "react";
import { setAddress } from "../../address";
import { Parallel as Lines, type ParallelAxis } from "../../parts/parallel";
import { t } from "../../strings";
import { firstAxes, rangeOf, type Axis } from "./axes";
import { AxisChoice, placeText } from "./AxisChoice";
import type { PartProps } from "./shownRun";
import { writeBrushes, type Brushes } from "./state";

export function Parallel({ shown, axes, runs, highlit, highlight }: PartProps) {
  const asked = shown.axes.flatMap((id) => axes.find((axis) => axis.id === id) ?? []);
  const chosen = asked.length ? asked : firstAxes(axes);
  const names = chosen.map(({ id }) => id).join("\n");
  const drawn = useMemo(
    () => chosen.map(drawnAxis),
    // Not all that it uses is a dependency: the axes are those of the names.
    [axes, names],
  );
  const colours = useMemo(() => runs.map((run) => run.colour), [runs]);
  const kept = useMemo(() => runs.map((run) => run.kept), [runs]);
  const setAxes = (ids: readonly string[]) => setAddress({ axis: ids });
  const brush = (id: string, range: readonly [number, number] | null) => {
    const others: Brushes = Object.fromEntries(Object.entries(shown.brushes).filter(([each]) => each !== id));
    setAddress({ brush: writeBrushes(range ? { ...others, [id]: [rounded(range[0]), rounded(range[1])] } : others) });
  };
  return (
    <>
      <div className="nemo-bar">
        <AxisChoice
          label={t("compare.parallel.axis")}
          axes={axes.filter((axis) => !chosen.includes(axis))}
          value=""
          first={t("compare.parallel.add")}
          onChoose={(id) => id && setAxes([...chosen.map((axis) => axis.id), id])}
        />
        <span className="muted">{t("compare.parallel.help")}</span>
      </div>
      {chosen.length < 2 ? (
        <p className="muted">{t("compare.parallel.few")}</p>
      ) : (
        <Lines
          label={t("compare.parallel.label", { n: runs.length, axes: chosen.length })}
          axes={drawn}
          colours={colours}
          kept={kept}
          highlit={runs.findIndex((run) => run.mlflow_run_id === highlit)}
          onHighlight={(row) => highlight(runs[row]?.mlflow_run_id ?? "")}
          brushes={shown.brushes}
          onBrush={brush}
          onRemove={(id) => setAxes(chosen.map((axis) => axis.id).filter((each) => each !== id))}
          removeLabel={(name) => t("compare.parallel.remove", { name })}
        />
      )}
      <details>
        <summary>{t("compare.parallel.ranges")}</summary>
        <div className="nemo-compare-ranges">
          {chosen
            .filter(({ texts }) => !texts)
            .map((axis) => (
              <Range key={axis.id} axis={axis} range={shown.brushes[axis.id]} onRange={(range) => brush(axis.id, range)} />
            ))}
        </div>
      </details>
    </>
  );
}

function Range(props: {
  axis: Axis;
  range: readonly [number, number] | undefined;
  onRange: (range: readonly [number, number] | null) => void;
}) {
  const { axis, range } = props;
  const name = axis.label;
  const whole = rangeOf(axis.values);
  const [low, high] = range ?? whole;
  const change = (text: string, end: 0 | 1) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value) || range?.[end] === value) return;
    props.onRange(end === 0 ? [value, Math.max(value, high)] : [Math.min(low, value), value]);
  };
  return (
    <>
      <span title={name}>{name}</span>
      {([0, 1] as const).map((end) => (
        <input
          key={`${end} ${range?.[end]}`}
          className="nemo-field"
          inputMode="decimal"
          aria-label={t(end ? "compare.parallel.to" : "compare.parallel.from", { name })}
          defaultValue={range ? range[end] : ""}
          placeholder={placeText(axis, whole[end])}
          onBlur={(event) => change(event.target.value, end)}
          onKeyDown={(event) => event.key === "Enter" && change(event.currentTarget.value, end)}
        />
      ))}
      <button
        type="button"
        className="nemo-button"
        disabled={!range}
        aria-label={t("compare.parallel.clear", { name })}
        onClick={() => props.onRange(null)}
      >
        ✕
      </button>
    </>
  );
}

function drawnAxis(axis: Axis): ParallelAxis {
  const range = rangeOf(axis.values);
  return { id: axis.id, label: axis.label, values: axis.values, range, ends: [placeText(axis, range[0]), placeText(axis, range[1])] };
}

function rounded(value: number): number {
  return Number(value.toPrecision(6));
}
