// Points of a job's metrics, read piece by piece while it runs. Kept outside of components: Airflow mounts a page anew.
import { useEffect, useReducer, useState } from "react";
import { fromWire, get, type ApiError } from "../../host";
import type { Line, Range, XKind } from "../../parts/chart";
import type { Schemas } from "../../types";
import type { JobQuery } from "./sections";

type MetricLine = Schemas["MetricLine"];

interface Kept {
  began: number;
  lines: Map<string, MetricLine>;
  at: number;
  error?: ApiError | undefined;
  away: string;
}

const POINTS = 1200;
const MOST = 3 * POINTS; // From here on a line is read anew.
const KEPT = 100;
const store = new Map<string, Kept>();

async function read(key: string, place: JobQuery, names: readonly string[], steps: Range | null): Promise<void> {
  const before = store.get(key);
  const goesOn = before && !steps && [...before.lines.values()].every(({ steps }) => steps.length < MOST);
  const since = goesOn ? names.map((name) => before.lines.get(name)?.steps.at(-1) ?? 0) : [];
  try {
    const answer = await get<Schemas["MetricLines"]>("job/points", {
      ...place,
      metric: names,
      points: POINTS,
      since: steps ? names.map(() => steps[0]) : since,
      until: steps?.[1],
    });
    const lines = new Map(goesOn && !answer.tracker.away ? before.lines : []);
    for (const line of answer.lines) {
      const known = goesOn ? lines.get(line.name) : undefined;
      lines.set(line.name, known ? append(known, line) : line);
    }
    store.delete(key);
    store.set(key, {
      began: answer.began,
      lines: answer.tracker.away && before ? before.lines : lines,
      at: Date.now(),
      away: answer.tracker.away ?? "",
    });
    for (const old of store.keys()) {
      if (store.size <= KEPT) break;
      store.delete(old);
    }
  } catch (error) {
    store.set(key, { began: 0, lines: new Map(), away: "", ...before, at: Date.now(), error: error as ApiError });
  }
}

/** Puts newer points behind those that are known; the step at which they meet is in both. */
function append(known: MetricLine, more: MetricLine): MetricLine {
  const from = more.steps[0];
  if (from === undefined) return known;
  const found = known.steps.findIndex((step) => step >= from);
  const end = found < 0 ? known.steps.length : found;
  return {
    ...known,
    steps: [...known.steps.slice(0, end), ...more.steps],
    times: [...known.times.slice(0, end), ...more.times],
    values: [...known.values.slice(0, end), ...more.values],
    total: known.total == null || more.total == null ? null : end + more.total,
    keeps_extremes: known.keeps_extremes && more.keeps_extremes,
  };
}

/** Loads lines of metrics; those of a running job again every so many seconds, but for what is known. */
export function useLines(
  place: JobQuery,
  names: readonly string[],
  everySeconds: number,
  steps: Range | null = null,
): Kept | undefined {
  const [, changed] = useReducer((count: number) => count + 1, 0);
  const [shown, setShown] = useState<Kept>();
  const key = JSON.stringify([place, names, steps]);
  useEffect(() => {
    if (!names.length) return;
    let gone = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const run = () =>
      void read(key, place, names, steps).then(() => {
        if (gone) return;
        changed();
        if (everySeconds && !steps) timer = setTimeout(run, everySeconds * 1000 * (document.hidden ? 10 : 1));
      });
    if (Date.now() - (store.get(key)?.at ?? 0) > 2000) run();
    else timer = everySeconds && !steps ? setTimeout(run, everySeconds * 1000) : undefined;
    return () => {
      gone = true;
      clearTimeout(timer);
    };
    // Not all that it uses is a dependency: the key has place, names and steps.
  }, [key, everySeconds]);
  const kept = store.get(key);
  useEffect(() => {
    if (kept) setShown(kept);
  }, [kept]);
  return kept ?? shown; // While others are under way, those before.
}

/** Returns the places of a line's points on an axis. */
export function placesOf(line: MetricLine, x: XKind, began: number): number[] {
  if (x === "step") return line.steps;
  return x === "relative" ? line.times : line.times.map((time) => began + time);
}

export function toLine(line: MetricLine, x: XKind, began: number, look: Pick<Line, "label" | "colour"> & Partial<Line>): Line {
  return {
    id: line.name,
    x: placesOf(line, x, began),
    y: line.values.map((value) => fromWire(value)),
    ...look,
  };
}

/** Returns the steps of what is shown of a line, with one more on each side. */
export function stepsWithin(line: MetricLine, places: readonly number[], range: Range): Range | null {
  const first = places.findIndex((place) => place >= range[0]);
  const last = places.findLastIndex((place) => place <= range[1]);
  if (first < 0 || last < 0) return null;
  const [low, high] = [line.steps[Math.max(first - 1, 0)], line.steps[Math.min(last + 1, places.length - 1)]];
  return low === undefined || high === undefined || high <= low ? null : [low, high];
}
