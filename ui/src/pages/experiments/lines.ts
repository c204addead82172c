// The sparklines of the rows in view, by one request for those that are not known yet.
import { useEffect, useReducer, useRef } from "react";
import { fromWire, get } from "../../host";
import type { Schemas } from "../../types";
import { isUnderWay } from "./looks";
import type { Row } from "./rows";

export interface Line {
  steps: number[];
  values: (number | null)[];
  at: number;
}

const KEPT = 2000;
const FRESH = 10_000;
const WAIT = 120;
const AT_ONCE = 100;
const lines = new Map<string, Line>();

const keyOf = (metric: string, row: Row) => `${row.mlflow_run_id} ${metric}`;

export function useLines(metric: string): { lineOf: (row: Row) => Line | undefined; onView: (rows: Row[]) => void } {
  const [, changed] = useReducer((count: number) => count + 1, 0);
  const inView = useRef<Row[]>([]);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);

  const ask = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => void load(), WAIT);
  };
  const load = async () => {
    if (!metric) return;
    const now = Date.now();
    const wanted = inView.current.filter((row) => {
      const known = lines.get(keyOf(metric, row));
      return row.mlflow_run_id && (!known || (isUnderWay(row) && now - known.at > FRESH));
    });
    if (!wanted.length) return;
    const ids = wanted.slice(0, AT_ONCE).map((row) => row.mlflow_run_id ?? "");
    try {
      const { lines: found } = await get<Schemas["Sparklines"]>("runs/sparklines", { metric, mlflow_run_id: ids });
      for (const id of ids) {
        const line = found[id];
        lines.set(`${id} ${metric}`, {
          steps: line?.steps ?? [],
          values: (line?.values ?? []).map(fromWire),
          at: now,
        });
      }
      for (const old of [...lines.keys()].slice(0, Math.max(0, lines.size - KEPT))) lines.delete(old);
      changed();
    } catch {
      // The list says that MLflow is away; the lines are asked for again when other rows come into view.
    }
  };

  useEffect(() => {
    ask();
    const again = setInterval(() => !document.hidden && ask(), FRESH);
    return () => {
      clearInterval(again);
      clearTimeout(timer.current);
    };
    // Not all that it uses is a dependency: what is in view is in the reference.
  }, [metric]);

  return {
    lineOf: (row) => lines.get(keyOf(metric, row)),
    onView: (rows) => {
      inView.current = rows;
      ask();
    },
  };
}
