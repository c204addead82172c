// Runs as dots, placed by any two of their metrics and parameters.
import { setAddress } from "../../address";
import { useColours } from "../../parts/colours";
import { t, tn } from "../../strings";
import { firstAxes, rangeOf, type Axis } from "./axes";
import { AxisChoice, placeText } from "./AxisChoice";
import type { PartProps } from "./shownRun";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [760, 360, 76, 16, 12, 34];
const TICKS = 5;

export function Scatter({ shown, axes, runs, highlit, highlight }: PartProps) {
  const colour = useColours();
  const first = firstAxes(axes);
  const named = (id: string) => axes.find((axis) => axis.id === id);
  const across = named(shown.across) ?? first[0];
  const up = named(shown.up) ?? first.find(({ id }) => id.startsWith("metrics.") && id !== across?.id) ?? first[1];
  if (!across || !up) return null;
  const [x, y] = [scale(across, LEFT, WIDTH - RIGHT), scale(up, HEIGHT - BOTTOM, TOP)];
  const placed = runs.filter(({ index }) => across.values[index] != null && up.values[index] != null);
  const without = runs.length - placed.length;
  return (
    <>
      <div className="nemo-bar">
        <AxisChoice label={t("compare.across")} axes={axes} value={across.id} onChoose={(id) => setAddress({ across: id })} />
        <AxisChoice label={t("compare.up")} axes={axes} value={up.id} onChoose={(id) => setAddress({ up: id })} />
      </div>
      <div className="nemo-compare-figure">
        <svg
          viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
          role="img"
          aria-label={t("compare.scatter.label", { up: up.label, across: across.label, n: placed.length })}
          onMouseLeave={() => highlight("")}
        >
          {ticks(across).map((value) => (
            <g key={value}>
              <line className="grid" x1={x(value)} x2={x(value)} y1={TOP} y2={HEIGHT - BOTTOM} />
              <text x={x(value)} y={HEIGHT - BOTTOM + 16} textAnchor="middle">
                {short(placeText(across, value))}
              </text>
            </g>
          ))}
          {ticks(up).map((value) => (
            <g key={value}>
              <line className="grid" y1={y(value)} y2={y(value)} x1={LEFT} x2={WIDTH - RIGHT} />
              <text x={LEFT - 6} y={y(value) + 4} textAnchor="end">
                {short(placeText(up, value))}
              </text>
            </g>
          ))}
          {placed.map((run) => {
            const [h, v] = [across.values[run.index] ?? 0, up.values[run.index] ?? 0];
            const opacity = !run.kept ? 0.12 : highlit && highlit !== run.mlflow_run_id ? 0.25 : 0.9;
            return (
              <circle
                key={run.mlflow_run_id}
                cx={x(h)}
                cy={y(v)}
                r={highlit === run.mlflow_run_id ? 8 : 6}
                fill={colour(run.colour)}
                opacity={opacity}
                onMouseEnter={() => highlight(run.mlflow_run_id)}
              >
                <title>{`${run.name} (${run.key})\n${across.label}: ${placeText(across, h)}\n${up.label}: ${placeText(up, v)}`}</title>
              </circle>
            );
          })}
        </svg>
      </div>
      {without > 0 && <p className="muted">{tn("compare.scatter.without", without)}</p>}
    </>
  );
}

function scale({ values }: Axis, begin: number, end: number): (value: number) => number {
  const [low, high] = rangeOf(values);
  const room = (high - low) * 0.04;
  return (value) => begin + ((value - low + room) / (high - low + 2 * room)) * (end - begin);
}

/** Returns round places on an axis; of texts those of all of them, or of some where they are many. */
function ticks({ values, texts }: Axis): number[] {
  const [low, high] = rangeOf(values);
  if (texts) return texts.map((_, place) => place).filter((place) => place % Math.ceil(texts.length / 8) === 0);
  const rough = (high - low) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough) ?? rough;
  const begin = Math.ceil(low / step);
  const count = Math.floor(high / step) - begin + 1;
  return Array.from({ length: count }, (_, number) => Number(((begin + number) * step).toPrecision(12)));
}

function short(text: string): string {
  return text.length > 12 ? `${text.slice(0, 11)}…` : text;
}
