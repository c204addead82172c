// How a row and its groups look.
import { fromWire, numberText } from "../../host";
import type { Row } from "./rows";

export function isUnderWay(row: Row): boolean {
  return row.state === "running" || row.state === "pending";
}

export function valueText(column: string, value: number | string | undefined): string {
  if (value === undefined) return "";
  return column.startsWith("metrics.") ? numberText(fromWire(value)) : String(value);
}

/** Returns the sweep of a row: the mapped task, or what is above it in MLflow for a job of no DAG; or empty. */
export function sweepOf(row: Row): string {
  const { dag_id, dag_run_id, task_id, map_index } = row.place;
  if (dag_id) return (map_index ?? -1) >= 0 ? `${dag_id} · ${task_id} · ${dag_run_id}` : "";
  return row.parent ?? "";
}

export function dagRunOf(row: Row): string {
  return row.place.dag_id ? `${row.place.dag_id} · ${row.place.dag_run_id}` : "";
}
