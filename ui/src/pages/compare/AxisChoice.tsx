import { durationText, numberText, timeText } from "../../host";
import type { Axis } from "./axes";

/** Chooses one of the axes. */
export function AxisChoice(props: { label: string; axes: readonly Axis[]; value: string; first?: string; onChoose: (id: string) => void }) {
  return (
    <label className="nemo-bar">
      {props.label}
      <select className="nemo-field nemo-compare-choice" value={props.value} onChange={(event) => props.onChoose(event.target.value)}>
        {props.first !== undefined && <option value="">{props.first}</option>}
        {props.axes.map(({ id, label }) => (
          <option key={id} value={id}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Returns what stands at a place of an axis. */
export function placeText({ id, texts }: Axis, value: number): string {
  if (texts) return texts[Math.round(value)] ?? "";
  if (id === "run.started") return timeText(value);
  return id === "run.seconds" ? durationText(value) : numberText(value, 4);
}
