// What the list shows, as it stands in the address.
import type { Query } from "../../host";

const FILTERS = ["dag_id", "task_id", "state", "back_end", "user"] as const;
const LISTS = ["tag", "config", "metric"] as const;

export type Filter = (typeof FILTERS)[number];
export type FilterList = (typeof LISTS)[number];

/** Names of everything that narrows the list. */
export const NARROWING: readonly string[] = [...FILTERS, ...LISTS, "since", "until"];

const HOUR = 3600;
export const SPANS: Record<string, number> = { "1h": HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR, "30d": 720 * HOUR };

const begun = Date.now() / 1000;

export interface Shown {
  filter: Query;
  isNarrowed: boolean;
  columns: string[];
  sort: string;
  goal: string;
  better: "min" | "max";
  line: string;
  group: "" | "sweep" | "dag_run";
}

export function read(address: URLSearchParams): Shown {
  const filter: Record<string, string | number | string[]> = {};
  for (const name of FILTERS) {
    const value = address.get(name);
    if (value) filter[name] = value;
  }
  for (const name of LISTS) {
    const values = address.getAll(name);
    if (values.length) filter[name] = values;
  }
  for (const name of ["since", "until"]) {
    const seconds = moment(address.get(name));
    if (seconds !== undefined) filter[name] = seconds;
  }
  const group = address.get("group");
  const columns = address.getAll("column");
  const goal = address.get("goal") ?? "";
  const firstMetric = columns.find((column) => column.startsWith("metrics."))?.slice("metrics.".length);
  return {
    filter,
    isNarrowed: NARROWING.some((name) => address.has(name)),
    columns,
    sort: address.get("sort") ?? "",
    goal,
    better: address.get("better") === "max" ? "max" : "min",
    line: address.get("line") ?? (goal || firstMetric || ""),
    group: group === "sweep" || group === "dag_run" ? group : "",
  };
}

/** Returns the time that a text of the address names: "24h" before the page was opened, or seconds since the epoch. */
function moment(text: string | null): number | undefined {
  if (!text) return undefined;
  const span = SPANS[text];
  if (span) return Math.floor(begun - span);
  const seconds = Number(text);
  return Number.isFinite(seconds) ? seconds : undefined;
}
