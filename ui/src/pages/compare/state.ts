// What the comparison shows, as it stands in the address: a link shows the same.
export type Which = "last" | "min" | "max";

/** A part of an axis: runs whose value is not in it are left out everywhere. */
export type Brushes = Readonly<Record<string, readonly [number, number]>>;

export interface Shown {
  ids: string[];
  /** The run with which the others are compared. */
  base: string;
  /** Whether what is the same in all runs is shown as well. */
  same: boolean;
  find: string;
  which: Which;
  /** Metrics for which it was chosen whether the smallest or the largest value is the best. */
  goals: Readonly<Record<string, "min" | "max">>;
  closed: readonly string[];
  curves: readonly string[];
  x: "step" | "relative";
  log: boolean;
  smoothing: number;
  zoom: readonly [number, number] | null;
  across: string;
  up: string;
  axes: readonly string[];
  brushes: Brushes;
}

const OURS = ["compare", "base", "same", "find", "which", "best", "closed", "curve", "x", "log", "smooth", "zoom", "across", "up", "axis", "brush"];

/** Changes of the address that end the comparison. */
export const NONE: Readonly<Record<string, null>> = Object.fromEntries(OURS.map((name) => [name, null]));

export function read(address: URLSearchParams): Shown {
  const ids = [...new Set(address.getAll("compare"))];
  const base = address.get("base") ?? "";
  const smoothing = Number(address.get("smooth"));
  return {
    ids,
    base: ids.includes(base) ? base : "",
    same: address.get("same") === "1",
    find: address.get("find") ?? "",
    which: oneOf(address.get("which"), ["last", "min", "max"]),
    goals: goals(address.getAll("best")),
    closed: address.getAll("closed"),
    curves: address.getAll("curve"),
    x: oneOf(address.get("x"), ["step", "relative"]),
    log: address.get("log") === "1",
    smoothing: smoothing > 0 && smoothing < 1 ? smoothing : 0,
    zoom: zoom(address.get("zoom")),
    across: address.get("across") ?? "",
    up: address.get("up") ?? "",
    axes: address.getAll("axis"),
    brushes: brushes(address.getAll("brush")),
  };
}

export function writeBrushes(brushes: Brushes): string[] {
  return Object.entries(brushes).map(([axis, [low, high]]) => `${axis}~${low}~${high}`);
}

export function writeGoals(goals: Shown["goals"]): string[] {
  return Object.entries(goals).map(([metric, goal]) => `${metric}~${goal}`);
}

function oneOf<T extends string>(text: string | null, choices: readonly [T, ...T[]]): T {
  return choices.find((each) => each === text) ?? choices[0];
}

function goals(texts: readonly string[]): Shown["goals"] {
  const found: Record<string, "min" | "max"> = {};
  for (const text of texts) {
    const [metric, goal] = parts(text, 2);
    if (metric && (goal === "min" || goal === "max")) found[metric] = goal;
  }
  return found;
}

function zoom(text: string | null): Shown["zoom"] {
  const [low, high] = (text ?? "").split("~").map(Number);
  return text && low !== undefined && high !== undefined && low < high ? [low, high] : null;
}

function brushes(texts: readonly string[]): Brushes {
  const found: Record<string, readonly [number, number]> = {};
  for (const text of texts) {
    const [axis, low, high] = parts(text, 3);
    const range = [Number(low), Number(high)] as const;
    if (axis && low && high && range[0] <= range[1]) found[axis] = range;
  }
  return found;
}

/** Splits a text at its last tildes: what is before them is a name, which may have some itself. */
function parts(text: string, count: number): string[] {
  const all = text.split("~");
  return [all.slice(0, all.length - count + 1).join("~"), ...all.slice(all.length - count + 1)];
}
