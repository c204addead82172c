// What runs are placed by: any metric, any parameter that differs, when they began and how long they took.
import { fromWire } from "../../host";
import type { Schemas } from "../../types";
import type { Brushes } from "./state";

type Comparison = Schemas["Comparison"];

export interface Axis {
  /** "metrics.NAME", "params.PATH", "run.seconds" or "run.started". */
  id: string;
  label: string;
  /** For each run its place; null where it has none. */
  values: readonly (number | null)[];
  /** The texts of an axis whose values are no numbers, in their order: the places are their numbers. */
  texts?: readonly string[];
}

/** Returns all axes that some run has a place on. */
export function axesOf(data: Comparison, labels: { seconds: string; started: string }): Axis[] {
  const axes: Axis[] = [];
  for (const { name, values } of data.metrics) {
    axes.push({ id: `metrics.${name}`, label: name, values: values.map((value) => finite(fromWire(value))) });
  }
  for (const { name, values, of } of data.params) {
    const numbers = values.map(number);
    if (numbers.every((value) => value !== null)) {
      axes.push({ id: `params.${name}`, label: name, values: of.map((place) => numbers[place] ?? null) });
    } else {
      const texts = [...values].sort();
      const places = values.map((value) => texts.indexOf(value));
      axes.push({ id: `params.${name}`, label: name, texts, values: of.map((place) => places[place] ?? null) });
    }
  }
  axes.push({ id: "run.seconds", label: labels.seconds, values: data.runs.map((run) => run.seconds ?? null) });
  axes.push({ id: "run.started", label: labels.started, values: data.runs.map((run) => run.started) });
  return axes.filter(({ values }) => values.some((value) => value !== null));
}

/** Returns the axes that show most at first: parameters that are numbers, and the first metrics. */
export function firstAxes(axes: readonly Axis[]): Axis[] {
  const params = axes.filter(({ id, values, texts }) => id.startsWith("params.") && !texts && varies(values));
  const metrics = axes.filter(({ id }) => id.startsWith("metrics.") && !id.startsWith("metrics.system/"));
  const few = axes.filter(({ id, texts }) => id.startsWith("params.") && texts && texts.length <= 12);
  const chosen = [...params.slice(0, 5), ...metrics.slice(0, 2)];
  if (chosen.length < 3) chosen.unshift(...few.slice(0, 3 - chosen.length));
  return chosen.length > 1 ? chosen : axes.filter(({ id }) => chosen.some((each) => each.id === id) || id === "run.seconds");
}

/** Returns for each run whether its values are in all the parts of axes that were chosen. */
export function inBrushes(axes: readonly Axis[], brushes: Brushes, count: number): boolean[] {
  const chosen = axes.filter(({ id }) => id in brushes);
  return Array.from({ length: count }, (_, run) =>
    chosen.every(({ id, values }) => {
      const [value, range] = [values[run], brushes[id]];
      return value != null && range !== undefined && value >= range[0] && value <= range[1];
    }),
  );
}

export function rangeOf(values: readonly (number | null)[]): readonly [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  return low === high ? [low - Math.abs(low || 1) * 0.05, high + Math.abs(high || 1) * 0.05] : [low, high];
}

function varies(values: readonly (number | null)[]): boolean {
  return new Set(values).size > 1;
}

function finite(value: number | null): number | null {
  return value !== null && Number.isFinite(value) ? value : null;
}

function number(text: string): number | null {
  return text.trim() === "" ? null : finite(Number(text));
}
