// A small line of a metric, as high as a row.
const [WIDTH, HEIGHT, EDGE] = [96, 22, 3];

/** Draws values in the order of their steps; what is no number is a gap. */
export function Sparkline(props: {
  steps: readonly number[];
  values: readonly (number | null)[];
  label: string;
  live?: boolean;
}) {
  const { steps, values } = props;
  const known = values.filter((value): value is number => value != null && Number.isFinite(value));
  if (!known.length) return null;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const [first, last] = [steps[0] ?? 0, steps[steps.length - 1] ?? 0];
  const x = (step: number) => (last > first ? EDGE + ((step - first) / (last - first)) * (WIDTH - 2 * EDGE) : WIDTH / 2);
  const y = (value: number) =>
    high > low ? HEIGHT - EDGE - ((value - low) / (high - low)) * (HEIGHT - 2 * EDGE) : HEIGHT / 2;
  let path = "";
  let [down, end] = [false, [0, 0] as [number, number]];
  values.forEach((value, index) => {
    if (value == null || !Number.isFinite(value)) {
      down = false;
      return;
    }
    end = [x(steps[index] ?? 0), y(value)];
    path += `${down ? "L" : "M"}${end[0].toFixed(1)} ${end[1].toFixed(1)}`;
    down = true;
  });
  return (
    <svg className="nemo-spark" width={WIDTH} height={HEIGHT} role="img" aria-label={props.label}>
      <path d={path} fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinejoin="round" />
      <circle cx={end[0]} cy={end[1]} r={props.live ? 2.6 : 1.6} fill="currentColor" className={props.live ? "live" : ""} />
    </svg>
  );
}
